"""The fold over whole arrays of events: one compiled loop, whatever their number and whatever the kind of bar."""

import ctypes
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.kernel import build
from engine.kernel.events import Event, event_at
from engine.kernel.fold import Fold, Folded
from engine.kernel.layout import Record
from engine.kernel.primitives import Pointer

Rows = np.ndarray[Any, Any]
ROOM = 1 << 14  # closed bars between two looks at Python


class Folding(Record):
    """What the loop is given: addresses and numbers. `begun`: the event of `row` is in its fold, not all bars taken.

    With `until` the rows are the folds themselves, each of which is told the time `ts`.
    """

    events: int
    rows: int
    row: int
    begun: int
    folds: int
    instruments: int
    out: int
    room: int
    count: int
    until: int
    ts: int


folding_at = Pointer(Folding)
fold_at = Pointer(Fold)
folded_at = Pointer(Folded)
EVENT_BYTES, FOLD_BYTES, BAR_BYTES = Event.dtype.itemsize, Fold.dtype.itemsize, Folded.dtype.itemsize


def hand_out(job: Folding, bar: Folded, instrument: int) -> None:
    """One more closed bar."""
    row = folded_at(job.out + BAR_BYTES * job.count)
    row.ts = bar.ts
    row.recv = bar.recv
    row.opened = bar.opened
    row.open = bar.open
    row.high = bar.high
    row.low = bar.low
    row.close = bar.close
    row.volume = bar.volume
    row.value = bar.value
    row.bought = bar.bought
    row.trades = bar.trades
    row.instrument = instrument
    job.count += 1


def run(address: int) -> None:
    """Fold rows in until they are used up, or there is no room for one more bar; then it can be called again."""
    job = folding_at(address)
    while job.row < job.rows:
        i = job.row
        if job.until == 0:
            event = event_at(job.events + EVENT_BYTES * job.row)
            i = event.instrument
            if i >= job.instruments:
                raise IndexError("an event of an instrument that is not there")
            fold = fold_at(job.folds + FOLD_BYTES * i)
            if job.begun == 0:
                fold.add_event(event)
        else:
            fold = fold_at(job.folds + FOLD_BYTES * i)
            if job.begun == 0:
                fold.advance(job.ts)
        job.begun = 1
        while fold.pending != 0:
            if job.count == job.room:
                return
            if fold.take():
                hand_out(job, fold.bar, i)
        job.begun = 0
        job.row += 1


@cache
def _compiled() -> Any:
    image = build.loop("fold", run, Fold)
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(image.addresses["run"])


def fold_rows(pieces: Iterable[Rows], rules: Rows, until: int | None = None, *, compiled: bool = True,
              room: int = ROOM) -> Iterator[Rows]:  # fmt: skip
    """Closed bars (arrays of Folded.dtype, in the order in which they closed) from pieces of events in their order.

    `rules`: one Fold for each instrument (array of Fold.dtype) with the rule set; it holds the state afterwards.
    `until`: the time (ns) that has come after the last event. Raises DataError for an event of no instrument.
    """
    step = _compiled() if compiled else run
    job, out = Folding.new(), np.zeros(room, Folded.dtype)
    job.folds, job.instruments = rules.ctypes.data, len(rules)
    job.out, job.room = out.ctypes.data, room
    for events in pieces:
        job.events, job.rows, job.row = events.ctypes.data, len(events), 0
        yield from _bars(job, step, out, events)
    if until is not None:
        job.until, job.ts, job.rows, job.row = 1, until, len(rules), 0
        yield from _bars(job, step, out, rules)


def _bars(job: Folding, step: Any, out: Rows, kept: Rows) -> Iterator[Rows]:
    """Bars of one piece. `kept` is what the job points to: it must live until the end."""
    while job.row < job.rows:
        before = job.row, job.begun, job.count
        step(job._address)
        if job.count:
            yield out[: job.count].copy()
            job.count = 0
        elif job.row < job.rows:
            wrong = kept["instrument"][job.row] if job.until == 0 else job.row
            raise DataError(f"event {job.row} of a piece (from row {before[0]}) is of instrument {wrong}, "
                            f"there are {job.instruments}.")  # fmt: skip
