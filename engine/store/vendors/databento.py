"""Databento DBN files (.dbn, .dbn.zst) of any version, decoded by Databento's own library.

mbo: orders folded into price levels, and trades; mbp-10: levels, quotes, trades; mbp-1, tbbo: quotes and trades;
bbo-1s, bbo-1m: quotes; trades. `ts` is ts_event, `recv` is ts_recv. A book changes where the vendor closes an event
(F_LAST), snapshots and clears begin it anew, and where the vendor doubts it (F_MAYBE_BAD_BOOK) so do we.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.store.blocks import guarded
from engine.store.vendors import Rows
from engine.store.vendors.collect import BATCH, Collector

BLOCK = 1 << 20
SCALE = 1e9
LAST, SNAPSHOT, DOUBTFUL = 128, 32, 4  # bits of `flags`
SIDES = {"B": 1, "A": -1, "N": 0}
SCHEMAS = {"mbo", "mbp-1", "mbp-10", "tbbo", "trades", "bbo-1s", "bbo-1m"}
ZSTD, SKIPPED = 0xFD2FB528, 0x184D2A50
DOUBT = "the vendor lost packets here (F_MAYBE_BAD_BOOK)"


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


@dataclass
class Book:
    """Levels of one instrument: now, and as they were handed on last. Keys are (side, price)."""

    orders: dict[int, tuple[int, float, int]] = field(default_factory=dict)
    levels: dict[tuple[int, float], int] = field(default_factory=dict)
    told: dict[tuple[int, float], int] = field(default_factory=dict)
    changed: dict[tuple[int, float], None] = field(default_factory=dict)
    fresh: bool = False  # the next group is a snapshot
    loading: bool = False  # inside a snapshot of the vendor
    quote: tuple[float, ...] = ()
    price: float = 1.0

    def clear(self) -> None:
        """Nothing rests any more; what comes next is told as a snapshot."""
        self.orders.clear()
        self.levels.clear()
        self.fresh = True

    def put(self, order: int, side: int, price: float, volume: int) -> None:
        """An order now rests with this volume; 0 removes it."""
        if order in self.orders:
            was, at, size = self.orders.pop(order)
            self._change((was, at), -size)
        if volume > 0:
            self.orders[order] = (side, price, volume)
            self._change((side, price), volume)

    def _change(self, key: tuple[int, float], by: int) -> None:
        self.levels[key] = self.levels.get(key, 0) + by
        if self.levels[key] == 0:
            del self.levels[key]
        self.changed[key] = None


class Recording(Collector):
    """One reading of DBN files: its books and the names of its instruments."""

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[int, Book] = {}
        self.names: dict[int, list[tuple[str, str, str]]] = {}
        self.schema = ""

    def meet(self, metadata: Any, label: str) -> None:
        """The head of a file: its schema, and instrument id -> name by day."""
        self.schema = str(metadata.schema)
        if self.schema not in SCHEMAS:
            hint = "; bars go through import_bars" if self.schema.startswith("ohlcv") else ""
            raise DataError(f"{label}: schema {self.schema} has no events; give {', '.join(sorted(SCHEMAS))}{hint}.")
        self.names = {}
        for name, spans in metadata.mappings.items():
            for span in spans:
                if str(span["symbol"]).isdigit():
                    place = self.names.setdefault(int(span["symbol"]), [])
                    place.append((str(span["start_date"]), str(span["end_date"]), str(name)))

    def name(self, record: Any) -> str:
        """The instrument of a record, by the symbology of its file; empty if it is not in there."""
        spans = self.names.get(record.instrument_id, [])
        if len(spans) == 1:
            return spans[0][2]
        day = datetime.fromtimestamp(record.ts_event / 1e9, UTC).date().isoformat()
        return next((name for start, end, name in spans if start <= day < end), "")

    def take(self, record: Any, row: int, decoder: Any) -> None:
        """One record of any of the schemas."""
        if isinstance(record, decoder.SymbolMappingMsg | decoder.SystemMsg | decoder.ErrorMsg):
            self.notes["messages of the vendor's gateway, left out"] += 1
            return
        at = (self.name(record), row, record.ts_event, getattr(record, "ts_recv", record.ts_event))
        starts = {kind: len(found) for kind, found in self.rows.items()}
        book = self.books.setdefault(record.instrument_id, Book())
        if isinstance(record, decoder.MBOMsg):
            self._order(book, at, record)
        elif isinstance(record, decoder.TradeMsg):
            self._trade(at, record)
        elif isinstance(record, decoder.MBP10Msg):
            self._trade(at, record)
            self._levels(book, at, record)
            self._quote(book, at, record.levels[0])
        elif isinstance(record, decoder.MBP1Msg):
            # tbbo tells the quote just before the trade; mbp-1 that after the event.
            if self.schema == "tbbo":
                self._quote(book, at, record.levels[0])
            self._trade(at, record)
            self._quote(book, at, record.levels[0])
        else:
            self._quote(book, at, record.levels[0])
        for kind, start in starts.items():
            if not at[0]:
                self.refuse(kind, start, f"instrument id {record.instrument_id} is not in the symbology of the file")
            if kind == "depth" and record.flags & DOUBTFUL:
                self.refuse(kind, start, DOUBT)

    def _trade(self, at: tuple[Any, ...], record: Any) -> None:
        if str(record.action) == "T":
            self.add("trades", *at, record.price / SCALE, float(record.size), SIDES[str(record.side)])

    def _quote(self, book: Book, at: tuple[Any, ...], level: Any) -> None:
        quote = (*_side(level.bid_px, level.bid_sz), *_side(level.ask_px, level.ask_sz))
        if quote != book.quote:
            book.quote = quote
            self.add("quotes", *at, quote[0], quote[2], quote[1], quote[3])

    def _order(self, book: Book, at: tuple[Any, ...], record: Any) -> None:
        action, side, volume = str(record.action), SIDES[str(record.side)], int(record.size)
        if record.flags & SNAPSHOT and not book.loading:
            book.clear()
        book.loading = bool(record.flags & SNAPSHOT) and not record.flags & LAST
        if action == "R":
            book.clear()
        elif action == "C":
            was = book.orders.get(record.order_id)
            if was is not None:
                book.put(record.order_id, was[0], was[1], was[2] - volume)
        elif action in ("A", "M"):
            book.put(record.order_id, side, record.price / SCALE, volume)
        else:  # A trade leaves the book to the cancels that follow it; a fill repeats the trade.
            self._trade(at, record)
        if record.flags & LAST:
            self.publish(book, at)

    def _levels(self, book: Book, at: tuple[Any, ...], record: Any) -> None:
        """Ten levels: what is not shown any more is gone."""
        if not record.flags & LAST:
            return
        book.fresh = not book.told
        shown = {(side, price): volume for level in record.levels
                 for side, (price, volume) in ((1, _side(level.bid_px, level.bid_sz)),
                                               (-1, _side(level.ask_px, level.ask_sz))) if price}  # fmt: skip
        book.changed = dict.fromkeys([*book.told, *shown])
        book.levels = {key: int(volume) for key, volume in shown.items()}
        self.publish(book, at)

    def publish(self, book: Book, at: tuple[Any, ...]) -> None:
        """Hand on what changed since the last time, as one group."""
        if book.fresh:
            rows = [(price, volume, side) for (side, price), volume in book.levels.items()] or [(book.price, 0, 1)]
        else:
            rows = [(key[1], book.levels.get(key, 0), key[0]) for key in book.changed
                    if book.levels.get(key, 0) != book.told.get(key, 0)]  # fmt: skip
        for i, (price, volume, side) in enumerate(rows, 1):
            self.add("depth", *at, price, float(volume), side, int(i == len(rows)), int(book.fresh))
            book.price = price
        if book.fresh:
            book.told = dict(book.levels)
        for key in book.changed:
            if key in book.levels:
                book.told[key] = book.levels[key]
            else:
                book.told.pop(key, None)
        book.fresh = False
        book.changed.clear()


def _side(price: int, volume: int) -> tuple[float, float]:
    """Price and volume of one side; an undefined price is a side that is not there."""
    return (price / SCALE, float(volume)) if price < 2**63 - 1 and volume > 0 else (0.0, 0.0)


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files in the order given. Raises DataError for a file that is cut, and if the library is missing."""
    try:
        import databento_dbn as decoder
    except ImportError as error:
        raise DataError("vendor databento reads DBN with Databento's own library, which is not installed; run "
                        "pip install 'tandem[databento]'.") from error  # fmt: skip
    recording = Recording()
    for _, source in sources:
        path, row = Path(source), 0
        with guarded(path), open(path, "rb") as file:
            packed = _whole(path, file)
            form: Any = decoder.Compression.ZSTD if packed else decoder.Compression.NONE
            reader = decoder.DBNDecoder(compression=form)
            while True:
                block = file.read(BLOCK)
                try:
                    reader.write(block)
                    records = reader.decode() if block else []
                except decoder.DBNError as error:
                    raise DataError(f"{path}: not DBN, or damaged ({error}); fetch it again.") from error
                for record in records:
                    if isinstance(record, decoder.Metadata):
                        recording.meet(record, path.name)
                        continue
                    row += 1
                    recording.take(record, row, decoder)
                if recording.size >= BATCH:
                    yield from recording.hand_on(path.name)
                if not block:
                    break
        if len(reader.buffer()):
            raise DataError(f"{path}: it ends inside a record after row {row}, it was cut; fetch it again.")
        open_ends = sum(bool(book.changed) for book in recording.books.values())
        if source is sources[-1][1] and open_ends:
            recording.notes["books with a last event that the files do not finish, left out"] += open_ends
        yield from recording.hand_on(path.name)


def _whole(path: Path, file: Any) -> bool:
    """Whether a file is packed with zstd, after a walk over its blocks. The decoder takes a file that was cut for a
    shorter one. Raises DataError for a cut file. (RFC 8878, section 3.1)"""
    cut = DataError(f"{path}: its last block is incomplete, it was cut; fetch it again.")

    def number(count: int) -> int:
        data = file.read(count)
        if len(data) < count:
            raise cut
        return int.from_bytes(data, "little")

    size = path.stat().st_size
    if size < 8:
        raise cut
    packed = number(4) in (ZSTD,)
    file.seek(0)
    while packed and file.tell() < size:
        magic = number(4)
        if magic & ~0xF == SKIPPED:
            file.seek(number(4), 1)
            continue
        if magic != ZSTD:
            raise DataError(f"{path}: no zstd frame at byte {file.tell() - 4}; fetch it again.")
        about = number(1)
        single = about >> 5 & 1
        number((0 if single else 1) + (0, 1, 2, 4)[about & 3] + (single, 2, 4, 8)[about >> 6])
        final = 0
        while not final:
            header = number(3)
            final, kind, length = header & 1, header >> 1 & 3, header >> 3
            file.seek(1 if kind == 1 else length, 1)
        file.seek(4 if about & 4 else 0, 1)
    if packed and file.tell() > size:
        raise cut
    file.seek(0)
    return packed
