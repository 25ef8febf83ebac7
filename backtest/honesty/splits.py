"""Folds by time: what is chosen on, what is measured on, and what lies between them and belongs to neither.

Law 1: spans are [start, end) in ns UTC; no moment is both trained and tested on in a fold, and of walk-forward folds
       nothing that is trained on comes after what is tested.
Law 2: before a span its indicators are warmed by events from `warm` on, which are seen and not traded on; they may lie
       in another span, as what came before is known to whoever trades.
Law 3: cuts stand between days, one nanosecond after midnight UTC: the bar that closes at midnight ends its day. A part
       of less than two days has no two returns, so it is refused, never measured.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from math import comb
from typing import NamedTuple

from engine.errors import ConfigError

DAY_NS = 86_400_000_000_000


class TooShort(ConfigError):
    """There are too few days for what was asked."""


class Span(NamedTuple):
    """Traded in [start, end), after the events of [warm, start) were seen. ns UTC."""

    start: int
    end: int
    warm: int


class Fold(NamedTuple):
    """Spans to choose on and spans to measure on, each in the order of time."""

    train: tuple[Span, ...]
    test: tuple[Span, ...]


def cuts(start: int, end: int, parts: Sequence[float]) -> list[int]:
    """start, the moments between the parts (in the proportions given), end. Raises ConfigError for parts that are
    none, TooShort for one of less than two days."""
    if not parts or min(parts) <= 0 or start >= end:
        raise ConfigError(f"[{start}, {end}) cannot be cut into {len(parts)} parts of {list(parts)}; parts are above "
                          "0.")  # fmt: skip
    total, done, found = float(sum(parts)), 0.0, [start]
    for part in parts[:-1]:
        done += part
        at = start + round((end - start) * (done / total))
        found.append(round(at / DAY_NS) * DAY_NS + 1)
    if (end - start) * min(parts) / total < 2 * DAY_NS:
        raise TooShort(f"{round((end - start) / DAY_NS, 1):,g} days are too short for {len(parts):,} parts of two "
                       "days each; take a longer span, or fewer folds (sweep.folds).")  # fmt: skip
    return [*found, end]


def _span(start: int, end: int, first: int, warmup: int | None) -> Span:
    return Span(start, end, first if warmup is None else max(first, start - warmup))


def holdout(start: int, end: int, *, test: float = 0.3, embargo: int = 0, warmup: int | None = None) -> list[Fold]:
    """One fold: train on the first part, then after `embargo` (ns) test on the share `test` at the end.

    `warmup`: ns of events before each span, None for all that there are; the same in all functions here.
    """
    return walk_forward(start, end, folds=1, train=1.0 - test, embargo=embargo, warmup=warmup)


def walk_forward(start: int, end: int, *, folds: int = 5, train: float = 0.5, anchored: bool = False, embargo: int = 0,
                 warmup: int | None = None) -> list[Fold]:  # fmt: skip
    """Choose on the past, measure on what follows, move on: the tests are `folds` equal parts of what comes after the
    first `train` share. Rolling: the window of choice keeps its length. Anchored: it begins at `start` and grows.

    Source: R. Pardo, The Evaluation and Optimization of Trading Strategies (2008), chapter 11.
    """
    if folds < 1:
        raise ConfigError(f"folds={folds}: at least one part is tested.")
    edges, made = cuts(start, end, [train, *([(1.0 - train) / folds] * folds)]), []
    for low, high in pairwise(edges[1:]):
        begin = start if anchored else max(start, low - (edges[1] - start))
        made.append(Fold((_span(begin, low - embargo, start, warmup),), (_span(low, high, start, warmup),)))
    return _checked(made)


def purged(start: int, end: int, *, folds: int = 5, purge: int = 0, embargo: int = 0,
           warmup: int | None = None) -> list[Fold]:  # fmt: skip
    """k-fold: each part is tested once, on what was chosen on all the others.

    `purge`: how long a decision's outcome takes (holding time); no decision that close to a test, before or after it,
    is trained on. `embargo`: as long again after the test, for what memory of the test is left. ns. Source: M. López de
    Prado, Advances in Financial Machine Learning (2018), chapter 7.
    """
    return combinatorial(start, end, groups=folds, tested=1, purge=purge, embargo=embargo, warmup=warmup)


def combinatorial(start: int, end: int, *, groups: int = 6, tested: int = 2, purge: int = 0, embargo: int = 0,
                  warmup: int | None = None) -> list[Fold]:  # fmt: skip
    """Combinatorial purged cross-validation: a fold for each way to test `tested` of `groups` equal parts.

    Each part is tested in C(N-1, k-1) folds, so the tests make that many whole paths: see `paths`. Source: as `purged`,
    chapter 12.
    """
    if not 0 < tested < groups:
        raise ConfigError(f"tested={tested} of groups={groups}: at least one part is tested and at least one is not.")
    edges = list(pairwise(cuts(start, end, [1.0] * groups)))
    made = []
    for chosen in combinations(range(groups), tested):
        train: list[tuple[int, int]] = []
        for k, (low, high) in enumerate(edges):
            if k in chosen:
                continue
            low = low + purge + embargo if k - 1 in chosen else low
            high = high - purge if k + 1 in chosen else high
            if train and train[-1][1] == low:  # neighbours are one span: positions are not closed between them
                train[-1] = (train[-1][0], high)
            elif low < high:
                train.append((low, high))
        made.append(Fold(tuple(_span(a, b, start, warmup) for a, b in train),
                         tuple(_span(*edges[k], start, warmup) for k in chosen)))  # fmt: skip
    return _checked(made)


def paths(groups: int, tested: int) -> list[list[int]]:
    """For each path through the whole time, the fold that tests each part: C(N, k) k / N = C(N-1, k-1) paths, in which
    each test of each fold occurs exactly once.

    >>> paths(3, 2)
    [[0, 0, 1], [1, 2, 2]]
    """
    of_part: list[list[int]] = [[] for _ in range(groups)]
    for fold, chosen in enumerate(combinations(range(groups), tested)):
        for part in chosen:
            of_part[part].append(fold)
    return [[folds[k] for folds in of_part] for k in range(comb(groups - 1, tested - 1))]


def _checked(folds: list[Fold]) -> list[Fold]:
    for fold in folds:
        if not fold.train or any(span.end - span.start < DAY_NS for span in (*fold.train, *fold.test)):
            raise TooShort("purge and embargo leave nothing to choose on; make them shorter, or the folds fewer.")
    return folds
