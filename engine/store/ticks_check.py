"""The rules a single event must keep, and what a book loses when a row of its depth is bad.

Law 1: a row of depth that is set aside takes with it everything up to the next snapshot: an update onto a book
       that lacks one before gives a wrong book. Where a book is lost, one row empties it, so that nobody trades on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

Column = np.ndarray[Any, Any]
Columns = dict[str, Column]
Rule = tuple[str, Callable[[Columns], Column]]
GRID = 1e-6  # of a tick: how far from the grid a price may lie


def _bad_price(name: str) -> Callable[[Columns], Column]:
    return lambda c: ~(np.isfinite(c[name]) & (c[name] > 0))


def _absent_side(name: str) -> Callable[[Columns], Column]:
    return lambda c: ~(np.isfinite(c[name]) & (c[name] >= 0))


def _negative(name: str) -> Callable[[Columns], Column]:
    return lambda c: ~(np.isfinite(c[name]) & (c[name] >= 0))


# The rules of all kinds, then those of each; comparisons are written so that NaN is bad.
TIMES: tuple[Rule, ...] = (
    ("recv is before ts: the clocks of the source and of the recorder disagree", lambda c: c["recv"] < c["ts"]),
)
RULES: dict[str, tuple[Rule, ...]] = {
    "trades": (
        ("price is missing, zero or negative", _bad_price("price")),
        ("volume is missing or negative", _negative("volume")),
        ("volume is zero: nothing was traded", lambda c: c["volume"] == 0),
        ("side is neither buy (1), sell (-1) nor unknown (0)", lambda c: ~np.isin(c["side"], (-1, 0, 1))),
    ),
    "quotes": (
        ("bid is not a number or negative (0 = no bid)", _absent_side("bid")),
        ("ask is not a number or negative (0 = no ask)", _absent_side("ask")),
        ("bid volume is missing or negative", _negative("bid_volume")),
        ("ask volume is missing or negative", _negative("ask_volume")),
    ),
    "depth": (
        ("price is missing, zero or negative", _bad_price("price")),
        ("volume is missing or negative", _negative("volume")),
        ("side is neither bid (1) nor ask (-1)", lambda c: ~np.isin(c["side"], (-1, 1))),
    ),
    "funding": (("rate is missing or not finite", lambda c: ~np.isfinite(c["rate"])),),
}
PRICES = {"trades": ("price",), "quotes": ("bid", "ask"), "depth": ("price",), "funding": ()}


def off_grid(prices: Column, tick: float) -> Column:
    """Which prices are no multiple of the tick."""
    steps = np.where(np.isfinite(prices), prices, 0.0) / tick
    return np.asarray(np.abs(steps - np.round(steps)) > GRID)


def judge(kind: str, frame: "pl.DataFrame", last: int | None, tick: float | None,
          more: "list[tuple[Column, str]]") -> tuple[Column, Column, int | None]:  # fmt: skip
    """Which rows of one instrument are bad, the reason of each, and the latest `recv` of a good one.

    `last`: the latest `recv` of an earlier piece; `tick`: the grid of the prices, if it was given; `more`: masks
    with their reasons, which speak first.
    """
    columns = {name: frame[name].to_physical().to_numpy() for name in frame.columns if name not in ("instrument",)}
    bad: Column = np.zeros(frame.height, bool)
    reason = np.full(frame.height, "", dtype=object)

    def mark(mask: Column, text: str) -> None:
        reason[mask & ~bad] = text
        bad[mask] = True

    for mask, text in more:
        mark(mask, text)
    for text, rule in (*TIMES, *RULES[kind]):
        mark(rule(columns), text)
    for name in PRICES[kind] if tick is not None else ():
        mark(off_grid(columns[name], float(tick or 1)), f"{name} is off the tick of {tick:g}")
    good = np.flatnonzero(~bad)
    recv = columns["recv"][good]
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min if last is None else last], recv]))
    back = good[recv < before[:-1]]
    reason[back], bad[back] = "recv goes back: rows are not in the order of arrival", True
    latest = int(before[-1])
    return bad, reason, None if latest == np.iinfo(np.int64).min else latest


@dataclass
class Gate:
    """What is known of one book: `lost` when updates cannot be applied until the next snapshot.

    `bad` in the group that caused it; `why` is the reason that the rows behind it get.
    """

    lost: bool
    why: str = "missing snapshot: the book before the first update is unknown"

    def pass_through(self, frame: "pl.DataFrame", bad: Column, reason: Column) -> tuple[Column, Column, list[int]]:
        """Which rows of depth cannot stay, their reasons, and the rows at which a good book is lost.

        A piece holds whole groups: each ends with `last` = 1.
        """
        last, snapshot = frame["last"].to_numpy() == 1, frame["snapshot"].to_numpy() == 1
        starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
        wrong = np.logical_or.reduceat(bad, starts)
        fresh = snapshot[starts] & ~wrong
        group = np.repeat(np.arange(len(starts)), np.diff(np.concatenate([starts, [len(bad)]])))
        # The state after each group: that of the last group that lost the book or gave a new one.
        turns = np.where(wrong | fresh, np.arange(len(starts)), -1)
        turn = np.maximum.accumulate(turns)
        lost = np.where(turn >= 0, wrong[turn], self.lost)
        before = np.concatenate([[self.lost], lost[:-1]])
        reasons = reason.copy()
        for g in np.flatnonzero(wrong):
            text = str(reason[starts[g] :][np.argmax(bad[starts[g] :])])
            row = frame["row"][int(starts[g] + np.argmax(bad[starts[g] :]))]
            reasons[(group == g) & ~bad] = f"belongs to an update with a bad row ({text})"
            if not before[g]:
                self.why = f"no valid book since row {row} ({text}); waiting for a snapshot"
            reasons[(turn[group] == g) & (group > g) & ~bad] = self.why
        if self.lost:
            first = int(np.argmax(wrong | fresh)) if (wrong | fresh).any() else len(starts)
            reasons[(group < first) & ~bad] = self.why
        self.lost = bool(lost[-1])
        aside = lost[group]
        return aside, reasons, [int(starts[g]) for g in np.flatnonzero(wrong & ~before)]
