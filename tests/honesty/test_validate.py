"""Validation on made-up returns, where the truth is known, and on compiled lanes beside single runs."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.honesty import validate as validation
from backtest.honesty.bootstrap import figures
from backtest.honesty.splits import DAY_NS, Fold, Span, TooShort, combinatorial, holdout, paths, purged, walk_forward
from backtest.honesty.study import _validated
from backtest.honesty.validate import Evaluate, Evaluation, extent, of_lanes, unranked, validate
from backtest.lanes import Lanes, between
from backtest.run import prepare
from engine.errors import ConfigError
from strategies import Momentum

DAYS = 1200
ENDS = np.arange(1, DAYS + 1) * DAY_NS


def known(returns: np.ndarray) -> Evaluate:
    """Lanes whose returns are written down: the table says which column."""

    def evaluate(table: Any, span: Span, wanted: bool) -> Evaluation:
        rows = (span.start <= ENDS) & (span.end > ENDS)
        part = returns[rows][:, list(table["lane"])]
        return Evaluation(figures(part.T, 252.0), part if wanted else None, ENDS[rows], 252.0)

    return evaluate


def noise(seed: int, lanes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0003, 0.01, (DAYS, lanes))


SPLITS = {
    "holdout": holdout(0, DAYS * DAY_NS + 1),
    "rolling": walk_forward(0, DAYS * DAY_NS + 1, folds=4),
    "anchored": walk_forward(0, DAYS * DAY_NS + 1, folds=4, anchored=True),
    "purged": purged(0, DAYS * DAY_NS + 1, folds=5, purge=5 * DAY_NS, embargo=5 * DAY_NS),
    "combinatorial": combinatorial(0, DAYS * DAY_NS + 1, groups=5, tested=2, purge=DAY_NS),
}


def inside(fold_spans: tuple[Span, ...]) -> np.ndarray:
    return np.any([(s.start <= ENDS) & (s.end > ENDS) for s in fold_spans], axis=0)


@pytest.mark.parametrize("split", SPLITS)
@given(seed=st.integers(0, 10**6), objective=st.sampled_from(["sharpe", "total_return", "max_drawdown"]))
@settings(max_examples=12)
def test_chosen_in_training_measured_in_the_test(split: str, seed: int, objective: str) -> None:
    returns, folds = noise(seed), SPLITS[split]
    found = validate(known(returns), {"lane": range(5)}, folds, objective=objective)
    score = {
        "sharpe": lambda r: r.mean(axis=0) / r.std(axis=0),
        "total_return": lambda r: np.prod(1 + r, axis=0),
        "max_drawdown": lambda r: np.array([_fall(r[:, k]) for k in range(5)]),
    }[objective]
    for fold, choice in zip(folds, found.choices, strict=True):
        assert choice.lane == int(np.argmax(score(returns[inside(fold.train)])))
    covered = np.any([inside(f.test) for f in folds], axis=0)
    assert len(found.paths) == (len(paths(5, 2)) if split == "combinatorial" else 1)
    for path in found.paths:
        assert (path.ends == ENDS[covered]).all()
    if split != "combinatorial":
        expected = np.concatenate([returns[inside(f.test), c.lane] for f, c in zip(folds, found.choices, strict=True)])
        assert (found.path.returns == expected).all()
        assert found.figures["total_return"] == pytest.approx(np.prod(1 + expected) - 1)
    else:
        middle = np.sort(found.sharpes)[(len(found.paths) - 1) // 2]
        assert found.figures["sharpe"] == pytest.approx(middle)


def _fall(r: np.ndarray) -> float:
    equity = np.cumprod(np.append(1.0, 1 + r))
    return float((equity / np.maximum.accumulate(equity) - 1).min())


@given(st.integers(0, 10**6), st.sampled_from(sorted(SPLITS)), st.permutations(range(5)))
@settings(max_examples=25)
def test_the_test_decides_nothing_and_order_does_not_matter(seed: int, split: str, order: list[int]) -> None:
    returns, folds = noise(seed), SPLITS[split]
    found = validate(known(returns), {"lane": range(5)}, folds)
    for k, fold in enumerate(folds):
        other = returns.copy()
        other[~inside(fold.train)] = noise(seed + 1)[~inside(fold.train)] * 3
        assert validate(known(other), {"lane": range(5)}, [fold]).choices[0].lane == found.choices[k].lane
    again = validate(known(returns), {"lane": order}, folds)
    assert [order[c.lane] for c in again.choices] == [c.lane for c in found.choices]
    assert (again.path.returns == found.path.returns).all()


@given(st.integers(0, 10**6), st.sampled_from(sorted(SPLITS)))
@settings(max_examples=10)
def test_of_lanes_that_tie_in_training_none_is_taken_for_its_test(seed: int, split: str) -> None:
    """Lanes that differ at the end only, such as limits that nothing reached before, listed as a ranking lists them."""
    returns = np.repeat(noise(seed, 1), 6, axis=1)
    returns[-240:] += noise(seed + 1, 6)[-240:]
    best_first = np.argsort(-returns.mean(axis=0) / returns.std(axis=0))
    first, ranked = (
        _validated(known(returns), {"lane": lanes}, SPLITS[split], "sharpe", 1) for lanes in (range(6), best_first)
    )
    assert [best_first[c.lane] for c in ranked.choices] == [c.lane for c in first.choices]
    assert all((a.returns == b.returns).all() for a, b in zip(first.paths, ranked.paths, strict=True))
    assert unranked({"a": ["x", "y"], "b": np.array([2, None], object)}).tolist() == [0, 1]


@pytest.mark.parametrize("split", SPLITS)
def test_training_holds_the_returns_of_some_lanes_at_a_time(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = known(noise(5)), list[int]()

    def evaluate(table: Any, span: Span, wanted: bool) -> Evaluation:
        asked.append(len(table["lane"]))
        return plain(table, span, wanted)

    whole = validate(plain, {"lane": range(5)}, SPLITS[split])
    monkeypatch.setattr(validation, "LANES", 2)
    found = validate(evaluate, {"lane": range(5)}, SPLITS[split])
    assert found.choices == whole.choices and max(asked) == 2


def test_the_smaller_may_be_the_better() -> None:
    found = validate(known(noise(1)), {"lane": range(5)}, SPLITS["rolling"], objective="volatility", sign=-1)
    for fold, choice in zip(SPLITS["rolling"], found.choices, strict=True):
        spread = noise(1)[inside(fold.train)].std(axis=0)
        assert choice.lane == spread.argmin() and choice.trained == pytest.approx(spread.min() * 252**0.5, rel=1e-2)
        assert choice.tested == pytest.approx(noise(1)[inside(fold.test), choice.lane].std(ddof=1) * 252**0.5)


def test_lanes_that_fail_are_not_chosen_and_without_any_nothing_is_traded() -> None:
    returns = noise(3)
    returns[:, [0, 2]] = math.nan
    returns[:, 1] = 0.0
    found = validate(known(returns), {"lane": range(5)}, SPLITS["rolling"])
    assert {c.lane for c in found.choices} <= {3, 4}
    none = validate(known(np.full((DAYS, 2), math.nan)), {"lane": range(2)}, SPLITS["rolling"])
    assert {c.lane for c in none.choices} == {-1} and not none.path.returns.any()
    assert math.isnan(none.figures["sharpe"]) and none.figures["total_return"] == 0
    # Chosen, and broken later: flat from then on.
    late = noise(4)[:, :1] + 0.001
    late[1100:] = math.nan
    assert not validate(known(late), {"lane": [0]}, SPLITS["holdout"]).path.returns[-90:].any()


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["rolling", "anchored"]))
def test_what_fails_after_a_test_decides_nothing_before_it(seed: int, lane: int, split: str) -> None:
    """Not even by how it is scored: a lane goes on from fold to fold until it has failed, not until it will have."""
    returns, folds = noise(seed), SPLITS[split]
    begun = returns + 0.01 * (np.arange(5) == lane)  # a lane that is begun anew fares otherwise
    later = returns.copy()
    last = folds[-1].train[0].end
    later[(folds[-2].test[0].end <= ENDS) & (last > ENDS), lane] = math.nan

    def through(own: np.ndarray) -> Evaluate:
        return lambda table, span, wanted: known(own if len(table["lane"]) == 5 or wanted else begun)(
            table, span, wanted
        )

    one, other = (validate(through(own), {"lane": range(5)}, folds).choices for own in (returns, later))
    assert [c.lane for c in one[:-1]] == [c.lane for c in other[:-1]]


def test_lanes_that_ended_early_are_begun_anew_in_each_fold() -> None:
    """A limit that ended a lane in the first year does not keep it out of what is chosen years later."""
    returns, asked = noise(6, 3), list[tuple[int, ...]]()
    plain, whole = known(returns), returns.copy()
    whole[100:, 1] = math.nan

    def evaluate(table: Any, span: Span, wanted: bool) -> Evaluation:
        asked.append(tuple(int(lane) for lane in table["lane"]))
        return (known(whole) if len(table["lane"]) == 3 else plain)(table, span, wanted)

    found = validate(evaluate, {"lane": range(3)}, SPLITS["rolling"])
    assert found.choices == validate(plain, {"lane": range(3)}, SPLITS["rolling"]).choices
    assert asked.count((0, 1, 2)) == 1 and asked.count((1,)) >= 4


@pytest.mark.filterwarnings("ignore:Degrees of freedom")  # of the made-up figures
def test_a_test_of_one_period_is_refused() -> None:
    (fold,) = SPLITS["holdout"]
    (test,) = fold.test
    with pytest.raises(TooShort, match="Fold 1 of 1 is tested on 1 period"):
        validate(known(noise(1)), {"lane": [0]}, [fold._replace(test=(test._replace(end=test.start + DAY_NS),))])


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of total_return"):
        validate(known(noise(1)), {"lane": [0]}, SPLITS["purged"], objective="win_rate")


def test_skill_is_found_and_noise_is_not() -> None:
    skilled = noise(5, 20) - 0.0003
    skilled[:, 7] += 0.0025
    found = validate(known(skilled), {"lane": range(20)}, SPLITS["anchored"])
    assert {c.lane for c in found.choices} == {7} and found.figures["sharpe"] > 2
    pure = [validate(known(noise(s, 20) - 0.0003), {"lane": range(20)}, SPLITS["rolling"]) for s in range(30)]
    assert abs(np.mean([p.figures["sharpe"] for p in pure])) < 0.4
    assert np.mean([c.trained for p in pure for c in p.choices]) > 1  # what was chosen looked well in training


TABLE = {"strategy.fast": [5, 10, 20, 30], "strategy.slow": [50, 60, 80, 120]}


@pytest.mark.slow
def test_compiled_folds_are_single_runs_of_slices() -> None:
    prepared = prepare(Momentum(qty=100.0), "equities", end="2006-01-01")
    folds = walk_forward(*extent(prepared), folds=3)
    found = validate(of_lanes(prepared, np.float64), TABLE, folds)
    pieces = []
    for fold, choice in zip(folds, found.choices, strict=True):
        events = prepared.tape.events["recv"]
        for spans, lanes in ((fold.train, range(4)), (fold.test, [choice.lane])):
            (span,) = spans
            warm, start, end = np.searchsorted(events, (span.warm, span.start, span.end))
            work = Lanes(between(prepared, warm, end), TABLE, warmup=start - warm)
            alone = [work.alone(lane) for lane in lanes]
            if len(alone) == 4:
                assert choice.lane == int(np.argmax([a.metrics["sharpe"] for a in alone]))
            else:
                pieces.append(alone[0].periods.returns)
                assert alone[0].raw["orders"]["ts"].min() >= span.start
    assert found.path.returns == pytest.approx(np.concatenate(pieces), abs=1e-12)


@pytest.mark.slow
def test_a_fold_is_warm_when_it_begins() -> None:
    prepared = prepare(Momentum(qty=100.0, short=True), "equities", end="2006-01-01")
    start, end = extent(prepared)
    cut = start + 900 * DAY_NS
    table = {"strategy.fast": [20], "strategy.slow": [300]}
    warm, cold = (of_lanes(prepared)(table, Span(cut, end, w), True).returns for w in (start, cut))
    assert warm is not None and cold is not None and len(warm) == len(cold)
    first = [int(np.flatnonzero(matrix[:, 0])[0]) for matrix in (warm, cold)]
    assert first[0] < 5 and first[1] >= 298, "traded on the first days, and after 300 bars"
    with pytest.raises(ConfigError, match="no events"):
        of_lanes(prepared)(table, Span(end, end + DAY_NS, start), False)


@pytest.mark.slow
def test_purged_folds_over_compiled_lanes() -> None:
    prepared = prepare(Momentum(qty=100.0), "equities", end="2006-01-01")
    folds: list[Fold] = combinatorial(*extent(prepared), groups=4, tested=2, purge=20 * DAY_NS, warmup=300 * DAY_NS)
    found = validate(of_lanes(prepared), TABLE, folds)
    assert len(found.paths) == 3 and len(found.choices) == 6
    assert np.isfinite(found.sharpes).all()
    lengths = {len(path.returns) for path in found.paths}
    assert len(lengths) == 1
