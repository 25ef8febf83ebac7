"""Bars of a tape of ticks: as a polars frame, or as a tape of BAR events that is data like any other.

Law 1: the bars are those of `engine.kernel.fold`, by its compiled loop; the rules are told there.
Law 2: memory does not grow with the tape; a tape of bars does not depend on the pieces it was made in.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.kernel import codes
from engine.kernel.fold import DOLLAR, FLAT, SKIP, TICK, TIME, VOLUME, Fold, Folded
from engine.kernel.folding import fold_rows
from engine.store.files import cache_dir, progress, text_hash
from engine.store.importer import duration
from engine.store.instruments import InstrumentInfo, to_json
from engine.store.merge import PRICES
from engine.store.opening import open_tape
from engine.store.tape import Events, Tape, Time, blank, frozen, read_tape, schema_hash, to_ns, write_tape

if TYPE_CHECKING:
    import polars as pl

KINDS = {"time": TIME, "tick": TICK, "volume": VOLUME, "dollar": DOLLAR}
SOURCES = {"trades": codes.TRADE, "quotes": codes.QUOTE}
EMPTY = {"skip": SKIP, "flat": FLAT}
COLUMNS = ("instrument", "ts", "opened", *PRICES, "value", "bought", "trades", "recv")
PIECE = 1 << 18  # events
VERSION = "1"  # of the rules; a new one makes cached tapes of bars anew
Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BarRule:
    """What bars to make, in words. `interval` and `offset` ("1m", "5s", ns) are of time bars; `size` of the others:
    trades of a tick bar, units of a volume bar, price * volume * multiplier of a dollar bar.

    `source`: trades, or quotes (their middle; `shown=True` gives them the volume shown on both sides, else 0).
    `empty`: skip an interval without a trade, or a flat bar at the last price. Raises ConfigError.
    """

    kind: str = "time"
    interval: str | int = "1m"
    size: float = 0.0
    source: str = "trades"
    empty: str = "skip"
    offset: str | int = 0
    shown: bool = False

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("source", SOURCES), ("empty", EMPTY)):
            if getattr(self, name) not in known:
                raise ConfigError(f"bars: {name}={getattr(self, name)!r}; there are {', '.join(known)}.")
        if self.kind == "time" and (not self.interval_ns or self.interval_ns < 1):
            raise ConfigError(f"bars: interval={self.interval!r} must be longer than nothing; write 1m, 5s or ns.")
        if self.kind != "time" and not (np.isfinite(self.size) and self.size > 0):
            raise ConfigError(f"bars: size={self.size!r} must be above 0 for {self.kind} bars.")
        if self.kind == "tick" and self.size != int(self.size):
            raise ConfigError(f"bars: size={self.size!r} must be a whole number of trades for tick bars.")
        if self.kind in ("volume", "dollar") and self.source == "quotes" and not self.shown:
            raise ConfigError(f"bars: quotes have no volume for {self.kind} bars; take source=trades or shown=True.")

    @property
    def interval_ns(self) -> int:
        """Length of a time bar, 0 for the others."""
        return (duration(self.interval, "interval") or 0) if self.kind == "time" else 0

    def record(self, multiplier: float = 1.0) -> Rows:
        """The fold of one instrument, before its first event: an array (1,) of Fold.dtype for `Fold.view`."""
        row = np.zeros(1, Fold.dtype)
        row["kind"], row["source"], row["empty"] = KINDS[self.kind], SOURCES[self.source], EMPTY[self.empty]
        row["interval"], row["shown"] = self.interval_ns, self.shown
        row["offset"] = duration(self.offset, "offset") or 0
        row["bar_size"] = self.size / multiplier if self.kind == "dollar" else self.size
        return row


def fold_bars(data: Any, kind: str = "time", interval: str | int = "1m", *, instruments: Any = None,
              start: Time = None, end: Time = None, until: Time = None, **rule: Any) -> "pl.DataFrame":  # fmt: skip
    """Bars of a whole tape of ticks, or of arrays, as a frame sorted by (ts, instrument).

    `data`: what `open_tape` takes, or a frame or mapping with columns ts (ns UTC or Datetime), price, volume[, side]
    or bid, ask[, bid_volume, ask_volume], and optionally instrument and recv, in the order of arrival.
    `rule`: as in BarRule.
    `until`: the time that has come at the end of the data; it closes the last time bars. A bar that is not closed
    is no bar, so without `until` the last one is missing.

    For research, indicators run over its columns: `RSI.scan(bars["close"], 14)`.

    Columns: instrument, ts (close), opened, open, high, low, close, volume, value, bought, trades, recv.
    Raises ConfigError for a rule out of range, DataError for prices or volumes that are no numbers.

    >>> ticks = {"ts": [0, 30, 70, 130], "price": [5.0, 7.0, 6.0, 6.5], "volume": [1.0, 2.0, 1.0, 1.0]}
    >>> fold_bars(ticks, interval=60).select("open", "close", "volume").rows()
    [(5.0, 7.0, 3.0), (6.0, 6.0, 1.0)]
    """
    import polars as pl

    spec = BarRule(kind, interval, **rule)
    tape = _tape(data, instruments, start, end)
    parts = list(_folded(tape, spec, until))
    rows = np.concatenate(parts) if parts else np.zeros(0, Folded.dtype)
    rows = rows[np.lexsort((rows["instrument"], rows["ts"]))]
    names = pl.Series([info.name for info in tape.instruments], dtype=pl.String)
    times = {
        n: pl.Series(np.ascontiguousarray(rows[n])).cast(pl.Datetime("ns", "UTC")) for n in ("ts", "opened", "recv")
    }
    numbers = {n: np.ascontiguousarray(rows[n]) for n in (*PRICES, "value", "bought", "trades")}
    return pl.DataFrame({"instrument": names.gather(rows["instrument"]), **times, **numbers}).select(COLUMNS)


def fold_tape(data: Any, kind: str = "time", interval: str | int = "1m", *, instruments: Any = None,
              start: Time = None, end: Time = None, until: Time = None, **rule: Any) -> Tape:  # fmt: skip
    """The same bars as a tape of BAR events, made once and then mapped from the cache; `backtest` takes it as data.

    A bar's `recv` is its close, as it is of a vendor's bars: the bars of one minute are one moment for a strategy
    that looks at all instruments. `fold_bars` tells when each was really known.
    """
    spec = BarRule(kind, interval, **rule)
    tape = _tape(data, instruments, start, end)
    infos = tuple(replace(info, bar_ns=spec.interval_ns) for info in tape.instruments)
    digest = text_hash("fold", VERSION, schema_hash(), tape.digest, repr(spec), repr(to_ns(until)), to_json(infos))
    path = cache_dir("tapes") / f"{digest}.tape"
    name = f"{tape.name} {spec.kind} bars"
    if path.is_file():
        try:
            return read_tape(path)
        except DataError:  # A cached tape that was cut or is of an older layout: make it again below.
            path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".runs-", dir=path.parent) as scratch, \
            write_tape(path, infos, digest, name) as writer:  # fmt: skip
        for rows in _in_order(_folded(tape, spec, until), Path(scratch)):
            writer.append(_events(rows))
    return read_tape(path)


def _events(rows: Rows) -> Events:
    events = blank(len(rows))
    events["kind"], events["recv"] = codes.BAR, rows["ts"]
    for name in ("ts", "instrument", *PRICES):
        events[name] = rows[name]
    return events


def _folded(tape: Tape, spec: BarRule, until: Time) -> Iterator[Rows]:
    """Closed bars in the order in which they closed."""
    rules = np.concatenate([spec.record(info.multiplier) for info in tape.instruments])
    events = tape.events
    with progress(len(events), f"bars of {tape.name}", "events") as bar:

        def pieces() -> Iterator[Events]:
            for low in range(0, len(events), PIECE):
                piece = events[low : low + PIECE]
                bar.update(len(piece))
                yield piece

        yield from fold_rows(pieces(), rules, to_ns(until, "until"))
    if not rules["known"].any() and not rules["ignored"].any():
        other = "quotes" if spec.source == "trades" else "trades"
        raise DataError(f"{tape.name}: no {spec.source} to make bars of; give data that have some, or source={other}.")
    bad = int(rules["ignored"].sum())
    if bad:
        raise DataError(f"{tape.name}: {bad} {spec.source} have a price or volume that is not finite, or a volume "
                        "below 0; drop them first.")  # fmt: skip


def _in_order(parts: Iterator[Rows], scratch: Path) -> Iterator[Rows]:
    """Bars by (ts, instrument). A bar is handed out when the next event of its instrument comes, so a silent
    instrument is late: sorted runs go to a file and are merged."""
    width = Folded.dtype.itemsize
    lengths: list[int] = []
    path = scratch / "bars"
    with path.open("wb") as file:
        for rows in _joined(parts):
            file.write(np.ascontiguousarray(_sorted(rows)).view(np.uint8).data)
            lengths.append(len(rows))
    if not lengths:
        return
    stored = np.memmap(path, Folded.dtype, "r", shape=(path.stat().st_size // width,))
    ends = np.cumsum(lengths)
    runs = [stored[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    share = max(1, PIECE // len(runs))
    while runs:
        moment = min(int(run["ts"][min(share, len(run)) - 1]) for run in runs)
        cuts = [int(np.searchsorted(run["ts"], moment, side="right")) for run in runs]
        yield _sorted(np.concatenate([run[:cut] for run, cut in zip(runs, cuts, strict=True)]))
        runs = [run[cut:] for run, cut in zip(runs, cuts, strict=True) if cut < len(run)]


def _sorted(rows: Rows) -> Rows:
    return rows[np.lexsort((rows["instrument"], rows["ts"]))]


def _joined(parts: Iterator[Rows]) -> Iterator[Rows]:
    """Small parts put together to about a piece."""
    held: list[Rows] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= PIECE:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _tape(data: Any, instruments: Any, start: Time, end: Time) -> Tape:
    """What `open_tape` opens; or columns of ticks as a tape in memory."""
    names = data.columns if hasattr(data, "columns") else data if isinstance(data, dict) else ()
    if not ({"price"} <= {*names} or {"bid", "ask"} <= {*names}):
        return open_tape(data, instruments, start, end)
    import polars as pl

    frame = pl.DataFrame(data)
    if "ts" not in names:
        raise DataError(f"ticks need a column ts; there are {', '.join(names)}.")
    who = frame["instrument"] if "instrument" in names else pl.repeat("instrument", frame.height, eager=True)
    known = who.unique().sort()  # not by who came first: a span has the same order
    events = blank(frame.height)
    ts = frame["ts"]
    events["ts"] = events["recv"] = ts if ts.dtype.is_integer() else ts.cast(pl.Datetime("ns")).cast(pl.Int64)
    if "recv" in names:
        events["recv"] = frame["recv"]
    if bool((events["recv"][1:] < events["recv"][:-1]).any()):
        raise DataError("ticks go back in time; sort them by recv, or by ts if they have none.")
    events["instrument"] = who.replace_strict(known, range(len(known)), return_dtype=pl.UInt32)
    events["kind"] = codes.TRADE if "price" in names else codes.QUOTE
    fields = {"price": "price", "volume": "traded", "side": "side"} if "price" in names else {
        name: name for name in ("bid", "ask", "bid_volume", "ask_volume")}  # fmt: skip
    for column, field in fields.items():
        if column in names:
            events[field] = frame[column]
    infos = tuple(InstrumentInfo(str(one)) for one in known)
    return open_tape(Tape(frozen(events), infos, text_hash(to_json(infos), events.tobytes().hex()), "ticks"),
                     instruments, start, end)  # fmt: skip
