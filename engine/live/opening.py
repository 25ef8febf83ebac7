"""The session of an engine: the one that it left on disk, or a new one.

Law 1: an engine goes on with its latest session when that is what the settings describe, as it began or as reloads have
       left it (the file of a strategy that was reloaded has the new code); else it says what differs.
Law 2: the number of a session is in every order id; it grows, also when all journals are gone.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.journal import Journal, JournalWriter
from engine.journal.format import EVENTS, RELOADS
from engine.kernel import codes
from engine.plan import Find, Plan
from engine.recovery import Recovered, recover
from engine.session import Session
from engine.session_loop import PROGRAM

EPOCH_S = 1_704_067_200  # 2024-01-01; sessions are numbered by minutes since then, at least
ENDING = -1.0  # `amount` of the KILL with which an engine takes its orders back when it ends
SAME = ("strategies", "instruments", "rows", "cash", "limits", "breach", "sizes", "kernel")  # of two headers


def folders(root: Path) -> list[Path]:
    """The journals of an engine, oldest first."""
    return sorted((path for path in root.glob("*") if (path / "000000.tape").is_file()), key=lambda path: path.name)


def ended_half(journal: Journal) -> bool:
    """Whether the latest kill was the engine's own, at its end; in force still, it died before it took that back."""
    amount = 0.0
    for block in journal.blocks():
        if block.kind == EVENTS:
            rows = block.rows()
            kills = rows["amount"][(rows["kind"] == codes.COMMAND) & (rows["code"] == codes.KILL)]
            amount = float(kills[-1]) if len(kills) else amount
    return amount == ENDING


def reloaded(journal: Journal, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Whether strategies differ from those that a session began with only in what its latest reloads put in place."""
    began, now = journal.header["strategies"], dict[int, Mapping[str, Any]]()
    if [one["layout"] for one in wanted] != [one["layout"] for one in began]:
        return False
    for block in journal.blocks():
        if block.kind == RELOADS:
            now[block.words()["strategy"]] = block.words()
    return all(
        one[key] in (was[key], now.get(n, was)[key])
        for n, (one, was) in enumerate(zip(wanted, began, strict=True))
        for key in ("name", "params", "image")
    )


def opened(root: Path, plan: Plan, find: Find, fresh: bool, words: Mapping[str, Any], sync_ms: float,
           snapshot_every: int, told: Callable[[str], None],
           number: Callable[[int], int] = lambda least: least) -> tuple[Recovered, bool]:  # fmt: skip
    """The latest session of the journals below `root`, gone on with; a new one where there is none, or if `fresh`.

    Returns it and whether it is new. `words`: what else its header keeps. `number` makes the number of a new session of
    the least that it may be: no other session of the account may have it. Raises ConfigError when the settings are not
    those of the latest session, JournalError and ImageError as `recover`.
    """
    known = folders(root)
    if known and not fresh:
        journal = Journal(known[-1])
        wanted = json.loads(json.dumps(plan.header(PROGRAM, **words)))  # as a journal gives it back
        differ = [key for key in SAME if wanted[key] != journal.header.get(key)]
        if "strategies" in differ and reloaded(journal, wanted["strategies"]):
            differ.remove("strategies")
        if differ:
            raise ConfigError(f"{', '.join(differ)} differ from those of the session in {known[-1]}, which has its "
                              "positions and orders. Go on with the settings it was begun with, or begin a new one "
                              "with session=new: it takes over what the venue holds, but limits, profit and a kill "
                              "switch begin anew.")  # fmt: skip
        begin = time.monotonic()
        found = recover(known[-1], find, snapshot_every=snapshot_every, sync_ms=sync_ms)
        told(f"session {journal.header['session']} goes on at event {found.journal.place.events:,} "
             f"({time.monotonic() - begin:.2f} s)")  # fmt: skip
        for note in found.notes:
            told(note)
        return found, False
    least = max([int((time.time() - EPOCH_S) // 60), *(int(path.name) + 1 for path in known if path.name.isdigit())])
    plan = replace(plan, session=number(least))
    writer = JournalWriter(root / f"{plan.session:08d}", plan.header(PROGRAM, **words), sync_ms=sync_ms)
    session = Session(plan.machine(), writer, snapshot_every=snapshot_every)
    told(f"session {plan.session} begins")
    return Recovered(session, Journal(writer.folder), writer.place), True
