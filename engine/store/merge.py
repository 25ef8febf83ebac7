"""Bars and corporate actions into events, and many instruments into one order of time.

Law 1: the order is (recv, instrument order, original order), where recv = ts for bars; within one instrument
       a corporate action comes after the bar that closes at its moment and before the bar that opens there.
Law 2: the result does not depend on the size of the pieces.
Law 3: no more than about one piece is held in anonymous memory, whatever the length of the tape.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.store.tape import ROW, Events, blank, join, to_bytes

PIECE = 1 << 18  # events: 16 MiB a piece
PRICES = ("open", "high", "low", "close", "volume")
Columns = dict[str, np.ndarray[Any, Any]]
Order = Callable[[Events], np.ndarray[Any, Any]]


def bar_events(columns: Columns, instrument: int) -> Events:
    """BAR events from columns ts (i8, ns UTC, close of the bar), open, high, low, close, volume (f8)."""
    events = blank(len(columns["ts"]))
    events["ts"] = events["recv"] = columns["ts"]
    events["kind"] = codes.BAR
    events["instrument"] = instrument
    for name in PRICES:
        events[name] = columns[name]
    return events


def action_events(rows: Sequence[tuple[int, int, float]], instrument: int) -> Events:
    """SPLIT and DIVIDEND events from rows (ts, kind, amount), sorted by time here."""
    events = blank(len(rows))
    for event, (ts, kind, amount) in zip(events, sorted(rows), strict=True):
        event["ts"] = event["recv"] = ts
        event["kind"], event["instrument"], event["amount"] = kind, instrument, amount
    return events


def with_actions(pieces: Iterable[Events], actions: Events) -> Iterator[Events]:
    """Bars of one instrument in pieces, with its actions put in: each before the first bar that closes later."""
    done = 0
    for piece in pieces:
        if len(piece) == 0:
            continue
        upto = int(np.searchsorted(actions["ts"], piece["ts"][-1], side="left"))
        if upto > done:
            chosen = actions[done:upto]
            where = np.searchsorted(piece["ts"], chosen["ts"], side="right")
            piece = np.insert(piece.view(ROW), where, chosen.view(ROW)).view(Event.dtype)
            done = upto
        yield piece
    if done < len(actions):
        yield actions[done:]


def by_time(events: Events) -> np.ndarray[Any, Any]:
    """The indices that sort events by the time of their arrival; what is equal keeps its order."""
    return np.argsort(events["recv"], kind="stable")


def merge(runs: Sequence[Events], piece: int = PIECE, *, order: Order = by_time) -> Iterator[Events]:
    """Runs sorted by `recv` as pieces of one sorted sequence (a k-way merge).

    Each round takes from every run what lies up to a common moment, chosen so that no run gives more than
    its share of a piece (ties on that moment aside), and puts that in `order`: sorted by `recv` first.
    """
    live = [run for run in runs if len(run)]
    times = [run["recv"] for run in live]
    at = [0] * len(live)
    while live:
        share = max(1, piece // len(live))
        moment = min(int(ts[min(i + share, len(ts)) - 1]) for ts, i in zip(times, at, strict=True))
        ends = [i + int(np.searchsorted(ts[i:], moment, side="right")) for ts, i in zip(times, at, strict=True)]
        parts = [run[i:end] for run, i, end in zip(live, at, ends, strict=True) if end > i]
        if len(parts) == 1:
            yield parts[0]
        else:
            joined = join(parts)
            yield joined.view(ROW)[order(joined)].view(Event.dtype)
        keep = [i for i, end in enumerate(ends) if end < len(live[i])]
        live, times, at = [live[i] for i in keep], [times[i] for i in keep], [ends[i] for i in keep]


def spill(sources: Sequence[Iterable[Events]], folder: Path, order: Order = by_time) -> Iterator[Events]:
    """Merge sources that are too long for memory: each is written to a run file first, then mapped and merged."""
    if len(sources) == 1:
        yield from sources[0]
        return
    runs: list[Events] = []
    with ExitStack() as stack:
        for number, source in enumerate(sources):
            path = folder / f"{number}.run"
            with path.open("wb") as file:
                for piece in source:
                    file.write(to_bytes(piece))
            stack.callback(path.unlink, missing_ok=True)
            runs.append(np.memmap(path, dtype=Event.dtype, mode="r") if path.stat().st_size else blank(0))
        yield from merge(runs, order=order)
