"""The rules a bar must keep, each problem with file, row and reason.

Row numbers count data rows of their file from 1, so that a person finds them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ValidationError

if TYPE_CHECKING:
    import polars as pl

SHOWN, KEPT = 10, 1000
SLACK = 1e-9  # relative; adjusted prices carry float noise
Column = np.ndarray[Any, Any]
SORT_CURE = "Rows that are not in order of time: import with sort=True (sort=true on the command line)."
ROWS_CURE = "Correct the source, or import with on_error='quarantine' (bad rows are set aside) or 'keep'."
PRICES = ("open", "high", "low", "close")


def _outside(b: dict[str, Column], name: str) -> Column:
    return (b[name] > b["high"] * (1 + SLACK)) | (b[name] < b["low"] * (1 - SLACK))


def _not_finite(b: dict[str, Column]) -> Column:
    return np.asarray(~np.isfinite([b[p] for p in PRICES]).all(axis=0))


def _not_positive(b: dict[str, Column]) -> Column:
    return np.asarray((np.array([b[p] for p in PRICES]) <= 0).any(axis=0))


# Each rule marks the bad bars; a comparison with NaN is false, so the first rule alone speaks of NaN.
RULES: tuple[tuple[str, Callable[[dict[str, Column]], Column]], ...] = (
    ("a price is missing or not finite", _not_finite),
    ("a price is zero or negative", _not_positive),
    ("high is below low", lambda b: b["high"] < b["low"]),
    ("open is outside [low, high]", lambda b: (b["high"] >= b["low"]) & _outside(b, "open")),
    ("close is outside [low, high]", lambda b: (b["high"] >= b["low"]) & _outside(b, "close")),
    ("volume is missing or negative", lambda b: ~(b["volume"] >= 0)),
)


@dataclass
class Findings:
    """What validation found so far: how many, the first thousand in words, and how many of each kind."""

    count: int = 0
    lines: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    cures: dict[str, int] = field(default_factory=dict)

    def add(self, file: str, row: int, instrument: str, reason: str, cure: str = "") -> None:
        """Note one problem. `cure`: what to do about a problem of the whole, which no row can be set aside for."""
        self.count += 1
        if cure:
            self.cures[cure] = self.cures.get(cure, 0) + 1
        kind = reason.split(":")[0]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.lines) < KEPT:
            self.lines.append(f"{file}, row {row} ({instrument}): {reason}")

    def refuse(self, name: str) -> None:
        """Raise ValidationError if anything was found."""
        if self.count:
            shown = "\n  ".join(self.lines[:SHOWN])
            more = f"\n  … and {self.count - SHOWN} more" if self.count > SHOWN else ""
            cures = list(self.cures)
            if ORDER[2].partition(":")[0] in self.kinds:
                cures.append(SORT_CURE)
            if self.count > sum(self.cures.values()):
                cures.append(ROWS_CURE)
            raise ValidationError(
                f"{name}: {self.count} problem{'s' if self.count > 1 else ''}, nothing was imported.\n  {shown}{more}\n"
                + "\n".join(cures),
                self.lines,
            )


def order_reasons(ts: Column, last: int | None) -> tuple[Column, int | None]:
    """For each time: 0 good, 1 repeats one before, 2 goes back; and the latest time so far."""
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min if last is None else last], ts]))
    state = np.where(ts > before[:-1], 0, np.where(ts == before[:-1], 1, 2))
    return state, int(before[-1])


ORDER = ("", "timestamp repeats the one before", "timestamp goes back: rows are not sorted by time")


def check(piece: "pl.DataFrame", last: int | None, instrument: str, files: list[str], findings: Findings,
          extra: Iterable[tuple[Column, str]] = ()) -> tuple["Column", list[str], int | None]:  # fmt: skip
    """Check the bars of one instrument, in the order of the source: columns file, row, ts and OHLCV.

    `extra`: more masks with their reason. `last`: the latest time of an earlier piece. Returns which rows are
    bad, the reason of each bad row, and the latest time of a good row.
    """
    bars = {name: piece[name].to_numpy() for name in (*PRICES, "volume")}
    bad: Column = np.zeros(piece.height, bool)
    reason = np.full(piece.height, "", dtype=object)
    for text, rule in (*RULES, *((text, lambda _, mask=mask: mask) for mask, text in extra)):
        hit = rule(bars)
        reason[hit & ~bad] = text
        bad |= hit
    good = np.flatnonzero(~bad)
    state, last = order_reasons(piece["ts"].to_numpy()[good], last)
    for code in (1, 2):
        rows = good[state == code]
        reason[rows] = ORDER[code]
        bad[rows] = True
    where, row = piece["file"].to_numpy(), piece["row"].to_numpy()
    for i in np.flatnonzero(bad):
        findings.add(files[where[i]], int(row[i]), instrument, reason[i])
    return bad, [str(text) for text in reason[bad]], last
