"""Seeded random walks: bars whose every price lies on a tick grid, for tests, laws and benchmarks.

Law 1: the same arguments give the same bytes; a tape does not depend on the size of the pieces it is made in.
Law 2: low <= open, close <= high, and prices stay positive: the walk is reflected at both ends of its range.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError
from engine.store.files import progress, text_hash
from engine.store.instruments import InstrumentInfo, to_json
from engine.store.merge import bar_events
from engine.store.tape import Events, Tape, blank, frozen, read_tape, schema_hash, to_ns, write_tape

if TYPE_CHECKING:
    import polars as pl

MINUTE_NS = 60_000_000_000
BLOCK = 1 << 14  # bars of an instrument that one seed makes
TOP = 20_000  # ticks; the walk moves within [TOP / 20, TOP]
MOVES = 8  # largest move from open to close, ticks


def _fold(walk: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Reflect whole ticks into [TOP / 20, TOP]: a triangle wave has no jumps."""
    low, width = TOP // 20, TOP - TOP // 20
    return np.asarray(low + np.abs((walk - low + width) % (2 * width) - width))


def _block(seed: int, instrument: int, number: int, at: int, count: int, tick: float) -> dict[str, Any]:
    """Columns of bars `number * BLOCK` onwards of an instrument whose walk has come to `at` ticks."""
    rng = np.random.Generator(np.random.PCG64([seed, instrument, number]))
    moves = rng.integers(-MOVES, MOVES + 1, BLOCK)
    jumps = rng.integers(-2, 3, BLOCK)  # from a close to the next open
    above, below = rng.integers(0, MOVES, BLOCK), rng.integers(0, MOVES, BLOCK)
    volume = rng.integers(1, 10_000, BLOCK).astype(np.float64)
    walk = at + np.cumsum(moves + jumps)
    close, opened = _fold(walk), _fold(walk - moves)
    high, low = np.maximum(opened, close) + above, np.minimum(opened, close) - below
    ticks = {"open": opened, "high": high, "low": low, "close": close}
    scale = round(1 / tick)
    # Whole ticks divided by ticks per unit give the float nearest to the decimal price.
    columns: dict[str, Any] = {name: value[:count] / scale for name, value in ticks.items()}
    return {**columns, "volume": volume[:count], "end": int(walk[-1])}


def _walk(bars: int, instrument: int, seed: int, start_ns: int, step_ns: int, tick: float) -> Iterator[Events]:
    """The bars of one instrument in blocks."""
    at = TOP // 2
    for number in range(-(-bars // BLOCK)):
        first = number * BLOCK
        count = min(BLOCK, bars - first)
        columns = _block(seed, instrument, number, at, count, tick)
        at = columns.pop("end")
        columns["ts"] = start_ns + (np.arange(first, first + count, dtype=np.int64) + 1) * step_ns
        yield bar_events(columns, instrument)


def _pieces(bars: int, instruments: int, seed: int, start_ns: int, step_ns: int, tick: float) -> Iterator[Events]:
    """All instruments side by side: they share their times, so bar i of each makes one group."""
    walks = [_walk(bars, i, seed, start_ns, step_ns, tick) for i in range(instruments)]
    for group in zip(*walks, strict=True):
        if instruments == 1:
            yield group[0]
            continue
        for low in range(0, len(group[0]), max(1, (1 << 18) // instruments)):
            cut = [block[low : low + max(1, (1 << 18) // instruments)] for block in group]
            joined = blank(len(cut[0]) * instruments)
            for i, block in enumerate(cut):
                joined[i::instruments] = block
            yield joined


def _about(bars: int, instruments: int, seed: int, start: str, step_ns: int, tick: float) -> tuple[Any, str, str, int]:
    if bars < 1 or instruments < 1:
        raise ConfigError(f"synthetic: bars={bars} and instruments={instruments} must be 1 or more.")
    scale = round(1 / tick) if tick > 0 else 0
    if scale < 1 or abs(scale * tick - 1) > 1e-9:
        raise ConfigError(f"synthetic: tick={tick} must be one over a whole number, such as 0.01 or 0.25.")
    width = max(4, len(str(instruments - 1)))
    infos = tuple(InstrumentInfo(f"SYN{i:0{width}d}", tick=tick, bar_ns=step_ns) for i in range(instruments))
    name = f"synthetic-{bars}x{instruments}-{seed}"
    digest = text_hash("synthetic 1", schema_hash(), str(bars), str(seed), start, str(step_ns), to_json(infos))
    return infos, name, digest, to_ns(start, "start") or 0


def synthetic_tape(bars: int, instruments: int = 1, seed: int = 0, *, start: str = "2020-01-01",
                   step_ns: int = MINUTE_NS, tick: float = 0.01) -> Tape:  # fmt: skip
    """A tape in memory of `bars` bars for each of `instruments` instruments, which share their times.

    Bar i closes at start + (i + 1) * step_ns. Raises ConfigError for arguments out of range.
    """
    infos, name, digest, start_ns = _about(bars, instruments, seed, start, step_ns, tick)
    events = blank(bars * instruments)
    at = 0
    for piece in _pieces(bars, instruments, seed, start_ns, step_ns, tick):
        events[at : at + len(piece)] = piece
        at += len(piece)
    return Tape(frozen(events), infos, digest, name)


def write_synthetic_tape(path: str | Path, bars: int, instruments: int = 1, seed: int = 0, *, start: str = "2020-01-01",
                         step_ns: int = MINUTE_NS, tick: float = 0.01) -> Tape:  # fmt: skip
    """The same tape as a file, written in bounded memory whatever its length, then mapped.

    A file that already holds it is used as it is. Raises ConfigError, and DataError for a full disk.
    """
    infos, name, digest, start_ns = _about(bars, instruments, seed, start, step_ns, tick)
    target = Path(path)
    if target.is_file():
        found = read_tape(target)
        if found.digest == digest:
            return found
    with write_tape(target, infos, digest, name) as writer, progress(bars * instruments, name, "events") as bar:
        for piece in _pieces(bars, instruments, seed, start_ns, step_ns, tick):
            writer.append(piece)
            bar.update(len(piece))
    return read_tape(target)


def synthetic_frame(bars: int, instruments: int = 1, seed: int = 0, *, start: str = "2020-01-01",
                    step_ns: int = MINUTE_NS, tick: float = 0.01) -> "pl.DataFrame":  # fmt: skip
    """The same bars as a polars frame: instrument, ts (Datetime ns UTC), open, high, low, close, volume."""
    import polars as pl

    tape = synthetic_tape(bars, instruments, seed, start=start, step_ns=step_ns, tick=tick)
    names = np.array([info.name for info in tape.instruments])
    values = {name: tape.events[name] for name in ("open", "high", "low", "close", "volume")}
    return pl.DataFrame({
        "instrument": names[tape.events["instrument"]], "ts": np.ascontiguousarray(tape.events["ts"]),
        **{name: np.ascontiguousarray(value) for name, value in values.items()},
    }).with_columns(pl.col("ts").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"))  # fmt: skip
