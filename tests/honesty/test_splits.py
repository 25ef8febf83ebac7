"""Folds never overlap wrongly, whatever is asked for; their counts are those of the book."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.honesty.splits import DAY_NS, Fold, TooShort, combinatorial, cuts, holdout, paths, purged, walk_forward
from engine.errors import ConfigError

STARTS = st.integers(0, 2 * 10**18)
YEARS = st.integers(400, 9000).map(lambda d: d * DAY_NS)
HOURS = st.integers(0, 10 * 24).map(lambda h: h * DAY_NS // 24)
WARMUP = st.one_of(st.none(), st.integers(0, 10**16))


def sound(folds: list[Fold], start: int, end: int, gap_before: int = 0, gap_after: int = 0) -> None:
    """No train within the gaps of a test; all inside the data; warmed by what came before."""
    for fold in folds:
        for span in (*fold.train, *fold.test):
            assert start <= span.warm <= span.start < span.end <= end
        for train in fold.train:
            for test in fold.test:
                assert train.end + gap_before <= test.start or train.start >= test.end + gap_after
        for group in (fold.train, fold.test):
            assert all(a.end <= b.start for a, b in pairwise(group))


@given(STARTS, YEARS, st.floats(0.1, 0.9), HOURS, WARMUP)
def test_holdout(start: int, length: int, share: float, embargo: int, warmup: int | None) -> None:
    folds = holdout(start, start + length, test=share, embargo=embargo, warmup=warmup)
    sound(folds, start, start + length, embargo)
    (fold,) = folds
    assert fold.test[0].end - fold.test[0].start == pytest.approx(share * length, abs=DAY_NS)
    assert fold.test[0].start % DAY_NS == 1


@given(STARTS, YEARS, st.integers(1, 9), st.floats(0.2, 0.8), st.booleans(), HOURS, WARMUP)
def test_walk_forward(start: int, length: int, n: int, share: float, anchored: bool, embargo: int,
                      warmup: int | None) -> None:  # fmt: skip
    end = start + length
    folds = walk_forward(start, end, folds=n, train=share, anchored=anchored, embargo=embargo, warmup=warmup)
    sound(folds, start, end, embargo)
    tests = [f.test[0] for f in folds]
    assert len(folds) == n and tests[-1].end == end
    assert all(a.end == b.start for a, b in pairwise(tests)), "stitched without a hole"
    for fold in folds:
        (train,), (test,) = fold
        assert train.end == test.start - embargo
        assert test.warm == (start if warmup is None else max(start, test.start - warmup))
        if anchored:
            assert train.start == start
        else:
            assert train.end - train.start + embargo == pytest.approx(share * length, abs=2 * DAY_NS)


@given(STARTS, YEARS, st.integers(2, 8), HOURS, HOURS)
def test_purged(start: int, length: int, n: int, purge: int, embargo: int) -> None:
    folds = purged(start, start + length, folds=n, purge=purge, embargo=embargo)
    sound(folds, start, start + length, purge, purge + embargo)
    assert [f.test[0].start for f in folds] == cuts(start, start + length, [1.0] * n)[:-1]
    for k, fold in enumerate(folds):
        trained = sum(s.end - s.start for s in fold.train)
        lost = (purge if k > 0 else 0) + (purge + embargo if k < n - 1 else 0)
        assert trained == length - (fold.test[0].end - fold.test[0].start) - lost


@given(STARTS, YEARS, st.integers(2, 8), st.data())
def test_combinatorial(start: int, length: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    folds = combinatorial(start, start + length, groups=n, tested=k, purge=DAY_NS, embargo=2 * DAY_NS)
    sound(folds, start, start + length, DAY_NS, 3 * DAY_NS)
    assert len(folds) == math.comb(n, k)
    routes, edges = paths(n, k), cuts(start, start + length, [1.0] * n)
    assert len(routes) == k * math.comb(n, k) // n  # the book's number of paths
    used = set()
    for route in routes:
        for part, fold in enumerate(route):
            span = next(s for s in folds[fold].test if s.start == edges[part])
            assert span.end == edges[part + 1]
            used.add((part, fold))
    assert len(used) == k * math.comb(n, k) == n * len(routes), "each test in exactly one path"


def test_counts_of_the_book() -> None:
    # Advances in Financial Machine Learning, 12.3: six groups, two tested: 15 splits, 5 paths.
    assert (len(combinatorial(0, 600 * DAY_NS)), len(paths(6, 2))) == (15, 5)


def test_neighbours_are_one_span() -> None:
    fold = combinatorial(0, 600 * DAY_NS, groups=6, tested=1)[3]
    assert [(s.start, s.end) for s in fold.train] == [(0, fold.test[0].start), (fold.test[0].end, 600 * DAY_NS)]


def test_a_bar_at_midnight_ends_its_day() -> None:
    edges = cuts(0, 100 * DAY_NS, [1, 1, 2])
    assert edges == [0, 25 * DAY_NS + 1, 50 * DAY_NS + 1, 100 * DAY_NS]
    with pytest.raises(TooShort, match="3 days are too short for 2 parts of two days each; take a longer span"):
        cuts(0, 3 * DAY_NS, [1, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: cuts(5, 5, [1.0]),
        lambda: cuts(0, 3, [1.0] * 9),
        lambda: holdout(0, 10**18, test=1.0),
        lambda: walk_forward(0, 10**18, folds=0),
        lambda: purged(0, 30 * DAY_NS, folds=3, purge=20 * DAY_NS),
        lambda: combinatorial(0, 10**18, groups=3, tested=3),
        lambda: holdout(0, 10 * DAY_NS, embargo=9 * DAY_NS),
    ],
)
def test_what_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError):
        np.asarray(wrong())  # type: ignore[operator]
