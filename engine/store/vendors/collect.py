"""Events of a recording of all kinds, collected one by one and handed on as frames."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.store.ticks import KINDS
from engine.store.vendors import Rows

BATCH = 1 << 16  # events


class Collector:
    """Rows of all kinds in one order of arrival; their frames, problems and notes."""

    def __init__(self) -> None:
        self.seq = 0
        self.size = 0
        self.notes: Counter[str] = Counter()
        self.rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in KINDS}
        self.problems: dict[tuple[str, str], list[int]] = {}

    def add(self, kind: str, name: str, row: int, ts: int, recv: int, *body: Any) -> None:
        """One event; `body` holds the columns of its kind in their order (see `engine.store.ticks.KINDS`)."""
        self.rows[kind].append((name, row, ts, recv, self.seq, *body))
        self.seq += 1
        self.size += 1

    def refuse(self, kind: str, start: int, reason: str) -> bool:
        """Note a problem of all rows of a kind from place `start` on; False if there are none."""
        end = len(self.rows[kind])
        if end > start:
            self.problems.setdefault((kind, reason), []).extend(range(start, end))
        return end > start

    def hand_on(self, file: str) -> Iterator[Rows]:
        """What was collected, a frame for each kind; then it is forgotten."""
        import polars as pl

        rows, problems, notes = self.rows, self.problems, dict(self.notes)
        self.rows, self.problems, self.size = {kind: [] for kind in KINDS}, {}, 0
        self.notes.clear()
        for kind, found in rows.items():
            if not found:
                continue
            names = ["instrument", "row", "ts", "recv", "seq", *KINDS[kind].fields]
            frame = pl.DataFrame(found, schema=names, orient="row", infer_schema_length=1)
            masks = []
            for (where, why), places in problems.items():
                if where == kind:
                    mask = np.zeros(len(found), bool)
                    mask[places] = True
                    masks.append((mask, why))
            yield Rows(kind, frame, file, True, masks, notes)
            notes = {}
