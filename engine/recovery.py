"""Recovery: from what a session left on disk to a session that goes on where it was.

Law 1: newest sound snapshot, then the tail of the journal; the orders that the tail gives must be those in it.
Law 2: order ids go on; orders that the crash kept from being written are written now, and are in doubt like any other
       that was not answered: nothing is sent before `reconcile` has heard the venue.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import JournalError
from engine.journal import Journal, JournalWriter, snapshots
from engine.journal.format import ORDERS, ROW, Place
from engine.journal.writer import Hold
from engine.kernel.records import Order
from engine.plan import Find
from engine.replay import Rerun, differs, rebuilt
from engine.session import Rows, Session


@dataclass
class Recovered:
    """A session that can go on, where in the journal its state was taken up, and what is to be told."""

    session: Session
    journal: Journal
    start: Place
    notes: list[str] = field(default_factory=list)


def recover(folder: Path | str, find: Find, *, exact: bool = True, snapshot_every: int = 0,
            **settings: Any) -> Recovered:  # fmt: skip
    """The session of a journal, ready to go on. `settings`: of JournalWriter.

    Raises JournalError for damage, when the kernel does not give the orders of the journal, and while another process
    writes to it; ImageError when what ran then is not to be had.
    """
    hold = Hold(Journal(folder).folder)
    journal = Journal(folder)  # as it is now that nobody else writes
    rerun = rebuilt(journal, find, exact)
    start, notes = taken_up(journal, rerun)
    if not rerun.drive(start) or rerun.wanted:
        raise JournalError(f"{journal.name} and the kernel do not agree, the session cannot go on: "
                           f"{differs(journal, rerun)} Run tandem mode=replay journal={folder}.")  # fmt: skip
    if journal.torn:
        notes.append(journal.torn)
    writer = JournalWriter(journal.folder, journal.header, at=journal.place, hold=hold, **settings)
    if rerun.made:
        notes.append(f"{len(rerun.made) // ROW} orders of the last events had not been written; they are now, unsent")
        writer.orders(np.frombuffer(rerun.made, Order.dtype))
    session = rerun.session
    session.go_on(writer, snapshot_every)
    return Recovered(session, journal, start, notes)


def taken_up(journal: Journal, rerun: Rerun) -> tuple[Place, list[str]]:
    """Put the newest sound snapshot into the session; its place, and what is to be said of those that are not."""
    notes: list[str] = []
    for path in snapshots.newest_first(journal.folder):
        found = snapshots.load(path)
        segment = journal.paths.get(found.place.segment) if found else None
        if found is None or segment is None or segment.stat().st_size < found.place.offset:
            notes.append(f"{path.name} is damaged, or ahead of the journal; an older one is taken")
            continue
        rerun.session.restore(found.state)
        for words in found.words["reloads"].values():
            rerun.put(words)
        rerun.session.restore(found.state)  # a reload writes parameters and more; the state has them
        rerun.orders = found.place.orders
        return found.place, notes
    return Place(), notes


def instructions(journal: Journal, ids: Iterable[int], start: Place) -> dict[int, Rows]:
    """The latest instruction about each order: behind `start`, else anywhere in the journal."""
    wanted, found = sorted(set(ids)), dict[int, Rows]()
    for begin in (start, Place()):
        if set(wanted) <= set(found):
            break
        for block in journal.blocks(begin):
            if block.kind == ORDERS:
                rows = block.rows()
                for n in np.flatnonzero(np.isin(rows["id"], wanted)):
                    found[int(rows["id"][n])] = rows[n : n + 1]
    return found
