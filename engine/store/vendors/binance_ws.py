"""Binance websocket as recorded: on each line the local time, a blank and the message, all kinds in one order.

The book follows Binance's own rules. Updates that came before the REST snapshot wait for it; those up to its
`lastUpdateId` are dropped, the first one applied spans it (futures: U <= id <= u; spot: U <= id + 1 <= u), and each
further one follows the one before (futures: pu = u before; spot: U = u before + 1). A gap is a problem of its rows,
and no book exists until the next snapshot. Files are one recording in the order given: a day goes on from the last.

`bookTicker` is QUOTE, `trade` (or `aggTrade`, by option) is TRADE; `markPrice` gives a FUNDING event when a funding
time has passed, with the last rate told before it. Spot quotes have no time of their own: theirs is that of receipt.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, DataError
from engine.store import blocks
from engine.store.vendors import Rows
from engine.store.vendors.collect import BATCH, Collector

WAIT = 1000  # updates that may come before the first snapshot
MS = 1_000_000
LOCAL = ((10**17, 1), (10**14, 10**3), (10**11, 10**6))  # the local time is in ns, us or ms, by its size


@dataclass(frozen=True)
class Options:
    """`trades`: which stream tells the trades, "trade" or "aggTrade"."""

    trades: str = "trade"

    def __post_init__(self) -> None:
        if self.trades not in ("trade", "aggTrade"):
            raise ConfigError(f"trades={self.trades!r}; choose 'trade' or 'aggTrade'.")


@dataclass
class Line:
    """Where a message stands, and when it was received."""

    row: int
    recv: int


@dataclass
class Book:
    """What is known of the sequence of one instrument's book."""

    snapshot: int | None = None  # its lastUpdateId, until the first update has spanned it
    previous: int | None = None  # `u` of the update before
    waiting: bool = True  # no snapshot yet
    broken: str = ""  # a gap that was seen in an update without rows
    recent: "deque[tuple[Line, dict[str, Any]]]" = field(default_factory=lambda: deque(maxlen=WAIT))

    def judge(self, data: dict[str, Any]) -> str | None:
        """What is wrong with an update: "" nothing, None if it is old and to be dropped."""
        first, final, pu = data["U"], data["u"], data.get("pu")
        if self.snapshot is not None:
            known = self.snapshot
            if final < known or (pu is None and final == known):
                return None
            self.snapshot, self.previous = None, final
            if first <= known + (pu is None):
                return ""
            return f"out of sequence: the first update after snapshot {known} begins at {first}"
        before, self.previous = self.previous, final
        if before is None or (pu == before if pu is not None else first == before + 1):
            return ""
        return f"out of sequence: update {first} to {final} does not follow {before}"


class Recording(Collector):
    """One recording: its books, its place in the order, and the rows that wait to be handed on."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.names: dict[str, None] = {}
        self.books: dict[str, Book] = {}
        self.rates: dict[str, tuple[int, float]] = {}

    def event(self, kind: str, name: str, line: Line, ts: int, *body: Any) -> None:
        """One event of a line."""
        self.add(kind, name, line.row, ts, line.recv, *body)

    def message(self, line: Line, outer: dict[str, Any], named: str | None) -> None:
        """One line of the recording."""
        if "lastUpdateId" in outer:
            self.on_snapshot(line, outer, named)
            return
        data = outer.get("data", outer)
        kind, name = data.get("e", "bookTicker" if "b" in data and "B" in data else "?"), str(data.get("s", ""))
        name = named or name
        self.names[name] = None
        if kind == "depthUpdate":
            self.on_update(line, data, name)
        elif kind == "bookTicker":
            ts = data["T"] * MS if "T" in data else line.recv
            self.event("quotes", name, line, ts, *(float(data[k]) for k in ("b", "a", "B", "A")))
        elif kind == self.options.trades:
            if data.get("X", "MARKET") != "MARKET":
                self.notes[f"trades outside the market ({data['X']}), left out"] += 1
                return
            self.event("trades", name, line, data["T"] * MS, float(data["p"]), float(data["q"]), -1 if data["m"] else 1)
        elif kind == "markPriceUpdate":
            self.on_mark(line, data, name)
        else:
            self.notes[f"messages of another kind ({kind}), left out"] += 1

    def on_mark(self, line: Line, data: dict[str, Any], name: str) -> None:
        """The funding that fell due since the mark price before, if any."""
        due, rate = self.rates.get(name, (data["T"], 0.0))
        if data["T"] > due:
            self.event("funding", name, line, due * MS, rate)
        self.rates[name] = (data["T"], float(data["r"] or 0.0))

    def on_snapshot(self, line: Line, data: dict[str, Any], named: str | None) -> None:
        """A whole book, then the updates that it does not hold yet, all received at this moment."""
        name = named or data.get("symbol") or (next(iter(self.names)) if len(self.names) == 1 else "")
        if not name:
            raise DataError(f"row {line.row}: a snapshot does not say its instrument, and the recording has "
                            f"{len(self.names)} so far; give the files as {{instrument: files}}.")  # fmt: skip
        book = self.books.setdefault(name, Book())
        book.snapshot, book.previous, book.waiting, book.broken = data["lastUpdateId"], None, False, ""
        ts = data["T"] * MS if "T" in data else line.recv
        self._levels(name, line, ts, data["bids"], data["asks"], 1)
        held, book.recent = book.recent, deque(maxlen=WAIT)
        for _, update in held:
            self._apply(book, name, line, update)
            book.recent.append((line, update))

    def on_update(self, line: Line, data: dict[str, Any], name: str) -> None:
        """One update of a book; before the first snapshot it waits."""
        book = self.books.setdefault(name, Book())
        if book.waiting and len(book.recent) < WAIT:
            book.recent.append((line, data))
            return
        if book.waiting:
            self.give_up(name)
        self._apply(book, name, line, data)
        book.recent.append((line, data))

    def give_up(self, name: str) -> None:
        """No snapshot came: what waits goes on as it is, and the import judges a book without a beginning."""
        book = self.books[name]
        book.waiting = False
        for line, data in book.recent:
            self._apply(book, name, line, data)

    def _apply(self, book: Book, name: str, line: Line, data: dict[str, Any]) -> None:
        wrong = book.judge(data)
        if wrong is None:
            self.notes["updates older than their snapshot, dropped"] += 1
            return
        start = len(self.rows["depth"])
        self._levels(name, line, data.get("T", data["E"]) * MS, data["b"], data["a"], 0)
        book.broken = book.broken or wrong
        if book.broken and self.refuse("depth", start, book.broken):
            book.broken = ""

    def _levels(self, name: str, line: Line, ts: int, bids: Any, asks: Any, snapshot: int) -> None:
        levels = [*((price, volume, 1) for price, volume, *_ in bids),
                  *((price, volume, -1) for price, volume, *_ in asks)]  # fmt: skip
        for i, (price, volume, side) in enumerate(levels, 1):
            self.event("depth", name, line, ts, float(price), float(volume), side, int(i == len(levels)), snapshot)


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files as one recording, in the order given. Raises DataError for a line that is no message."""
    recording, label = Recording(options), ""
    for named, source in sources:
        path, row = Path(source), 0
        for label, opened in blocks.members(path):
            for block in blocks.blocks(path, opened):
                for text in block.splitlines():
                    row += 1
                    if text.strip():
                        recording.message(*_parse(text, label, row), named)
                    if recording.size >= BATCH:
                        yield from recording.hand_on(label)
            yield from recording.hand_on(label)
    for name, book in recording.books.items():
        if book.waiting:
            recording.give_up(name)
    yield from recording.hand_on(label)


def _parse(text: bytes, label: str, row: int) -> tuple[Line, dict[str, Any]]:
    stamp, _, message = text.partition(b" ")
    try:
        local = int(stamp)
        outer = json.loads(message)
        unit = next(unit for least, unit in LOCAL if local >= least)
        if not isinstance(outer, dict):
            raise ValueError("no object")
    except (ValueError, StopIteration) as error:
        raise DataError(f"{label}, row {row}: {text[:60]!r} is no local time and message ({error}); the recording is "
                        "damaged there. Cut the line out and import again.") from error  # fmt: skip
    return Line(row, local * unit), outer
