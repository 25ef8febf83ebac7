"""A part of a tape that begins with the books as they stood: updates alone would build wrong ones.

Law 1: a part of a tape without depth is a view. With depth it is a tape of its own in the cache: a snapshot of each
       book as the events before the start left it, then the events of the span, unchanged.
"""

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.store.files import cache_dir, text_hash
from engine.store.tape import ROW, Events, Tape, Time, blank, join, read_tape, write_tape

PIECE = 1 << 18  # events
SINGLE = (codes.QUOTE, codes.TRADE, codes.DEPTH, codes.FUNDING)
Levels = dict[tuple[int, float], float]


def span(tape: Tape, start: Time, end: Time) -> Tape:
    """The events with start <= recv < end; a depth tape opens with its books. Raises as `Tape.span` does."""
    part = tape.span(start, end)
    if part is tape or int(tape.events["kind"][0]) not in SINGLE:
        return part
    low = int(np.searchsorted(tape.events["recv"], part.events["recv"][0], side="left"))
    head = books_at(tape.events[:low], int(part.events["recv"][0]))
    if not len(head):
        return part
    digest = text_hash("books", part.digest)
    path = cache_dir("tapes") / f"{digest}.tape"
    if not path.is_file():
        with write_tape(path, tape.instruments, digest, tape.name) as writer:
            writer.append(head)
            for at in range(0, len(part), PIECE):
                writer.append(part.events[at : at + PIECE])
    return read_tape(path)


def books_at(events: Events, moment: int) -> Events:
    """Snapshot rows of every book as `events` leave it, received at `moment` (ns); none for a book that is empty
    or was never told. Bids first, best level first."""
    books: dict[int, Levels] = {}
    latest: dict[int, tuple[int, int, int]] = {}  # instrument -> (ts, source, last) of its last row of depth
    for at in range(0, len(events), PIECE):
        piece = events[at : at + PIECE]
        rows = piece.view(ROW)[piece["kind"] == codes.DEPTH].view(Event.dtype)
        for instrument in np.unique(rows["instrument"]).tolist():
            own = rows.view(ROW)[rows["instrument"] == instrument].view(Event.dtype)
            fold(books.setdefault(instrument, {}), own, latest.get(instrument, (0, 0, 1))[2])
            row = own[-1]
            latest[instrument] = (int(row["ts"]), int(row["source"]), int(row["last"]))
    return join([blank(0), *(_snapshot(books[i], i, latest[i], moment) for i in sorted(books) if books[i])])


def fold(book: Levels, rows: Events, before: int) -> None:
    """Apply rows of depth of one instrument to its levels; `before`: `last` of the row before them."""
    closed = np.concatenate([[before], rows["last"][:-1]]) != 0
    begins = np.flatnonzero((rows["code"] == codes.SNAPSHOT) & closed)
    if len(begins):
        book.clear()
        rows = rows[begins[-1] :]
    # Only the last row of a level counts; a dictionary of pairs in order keeps exactly that.
    book.update(
        zip(zip(rows["side"].tolist(), rows["price"].tolist(), strict=True), rows["traded"].tolist(), strict=True)
    )
    for key in [key for key, volume in book.items() if volume == 0]:
        del book[key]


def _snapshot(book: Levels, instrument: int, latest: tuple[int, int, int], moment: int) -> Events:
    levels = sorted(book, key=lambda key: (-key[0], -key[0] * key[1]))
    events = blank(len(levels))
    events["ts"], events["recv"], events["source"] = min(latest[0], moment), moment, latest[1]
    events["kind"], events["code"], events["instrument"] = codes.DEPTH, codes.SNAPSHOT, instrument
    events["side"] = [side for side, _ in levels]
    events["price"] = [price for _, price in levels]
    events["traded"] = [book[key] for key in levels]
    events["last"][-1] = 1
    return events
