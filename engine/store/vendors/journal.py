"""Journals of sessions: the market data in them, in the order and with the times of their receipt.

tandem mode=import vendor=journal sources=journals/mine name=traded
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.journal import Journal
from engine.journal.format import EVENTS
from engine.kernel import codes
from engine.store.ticks import FLAGS, KINDS
from engine.store.vendors import Rows

BARS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Options:
    """A journal says everything itself."""


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """The quotes, trades, depth and funding of journals, one after another; what else they hold is counted."""
    for journal in journals(sources):
        names = [info["name"] for info in journal.header["instruments"]]
        others = {codes.GAP: "gaps: events were lost before", codes.BAR: "bars, left out: there are quotes or trades"}
        for number, events in market(journal):
            notes = {word: int((events["kind"] == code).sum()) for code, word in others.items()}
            found = [kind for kind, about in KINDS.items() if (events["kind"] == about.code).any()]
            for kind in found:
                at = np.flatnonzero(events["kind"] == KINDS[kind].code)
                yield Rows(kind, frame(events[at], number + at, names, KINDS[kind].fields), journal.name, True,
                           notes=notes if kind == found[0] else {})  # fmt: skip


def journals(sources: Sequence[tuple[str | None, Any]]) -> list[Journal]:
    """The journals that are meant: themselves, their directories, or the files in these."""
    paths = [one for _, one in sources if not isinstance(one, Journal)]
    folders = dict.fromkeys(Path(p) if Path(p).is_dir() else Path(p).parent for p in paths)
    return [*(one for _, one in sources if isinstance(one, Journal)), *map(Journal, folders)]


def market(journal: Journal) -> "Iterator[tuple[int, np.ndarray[Any, Any]]]":
    """The events of a journal in pieces, with the number of the first of each."""
    parts: list[np.ndarray[Any, Any]] = []
    begin = 0
    for block in journal.blocks():
        if block.kind == EVENTS:
            parts.append(block.rows())
            if block.first + block.records - begin >= 1 << 17:
                yield begin, joined(parts)
                begin, parts = block.first + block.records, []
    if parts:
        yield begin, joined(parts)


def joined(parts: "list[np.ndarray[Any, Any]]") -> "np.ndarray[Any, Any]":
    """Events end to end, as bytes."""
    return np.concatenate([part.view("V64") for part in parts]).view(parts[0].dtype)


def frame(events: "np.ndarray[Any, Any]", rows: "np.ndarray[Any, Any]", names: Sequence[str], fields: Any) -> Any:
    """Events of one kind as a frame; `rows`: their numbers in the journal, `fields`: column -> field."""
    import polars as pl

    wholes = {"row": rows, "ts": events["ts"], "recv": events["recv"], "seq": rows}
    columns = {name: pl.Series(np.ascontiguousarray(values), dtype=pl.Int64) for name, values in wholes.items()}
    for name, field in fields.items():
        kind = pl.Int64 if name in FLAGS else pl.Float64
        columns[name] = pl.Series(np.ascontiguousarray(events[field]).astype(np.int64 if name in FLAGS else np.float64),
                                  dtype=kind)  # fmt: skip
    instruments = pl.Series([names[i] for i in events["instrument"].tolist()], dtype=pl.String)
    return pl.DataFrame({"instrument": instruments, **columns})


def bar_frames(journal: Journal) -> Iterator[Any]:
    """The bars of a journal, by the times of their closes."""
    names = [info["name"] for info in journal.header["instruments"]]
    for number, events in market(journal):
        at = np.flatnonzero(events["kind"] == codes.BAR)
        if len(at):
            yield frame(events[at], number + at, names, {name: name for name in BARS}).drop("row", "recv", "seq")


def actions(journal: Journal) -> list[dict[str, Any]]:
    """The splits and dividends of a journal, for `import_bars`."""
    names, found = [info["name"] for info in journal.header["instruments"]], []
    for _, events in market(journal):
        for event in events[np.isin(events["kind"], (codes.SPLIT, codes.DIVIDEND))]:
            kind, value = ("split", "ratio") if event["kind"] == codes.SPLIT else ("dividend", "amount")
            found.append({"instrument": names[event["instrument"]], "ts": int(event["ts"]), "kind": kind,
                          value: float(event["amount"])})  # fmt: skip
    return found


def import_journal(name: str, folder: Path, **settings: Any) -> Path:
    """A journal's market data as a dataset: its quotes and trades, or its bars when it has no others.

    `settings`: `root`, `instruments`, `on_error`, `overwrite`, as of `import_ticks`. Raises JournalError, DataError.
    """
    from engine.store.importer import import_bars
    from engine.store.ticks_import import import_ticks

    journal = Journal(folder)
    kinds: set[int] = set()
    for _, events in market(journal):
        kinds |= set(np.unique(events["kind"]).tolist())
    about = {info["name"]: {k: v for k, v in info.items() if k != "name"} for info in journal.header["instruments"]}
    settings["instruments"] = {**about, **settings.get("instruments", {})}
    if kinds & {about.code for about in KINDS.values()} - {codes.FUNDING}:
        return import_ticks(name, journal, vendor="journal", book="empty", **settings)
    if codes.BAR not in kinds:
        raise DataError(f"{journal.name} holds no quotes, trades, depth or bars; there is nothing to import.")
    steps = {info["bar_ns"] for info in journal.header["instruments"]} - {0}
    return import_bars(list(bar_frames(journal)), name, label="end", interval=min(steps) if steps else None,
                       actions=actions(journal), adjust="events", source=str(folder), **settings)  # fmt: skip
