"""CSCV beside a loop that follows the paper word by word, and its laws; Monte-Carlo on trades beside all orders."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.honesty.chances import monte_carlo
from backtest.honesty.pbo import overfitting


def word_by_word(returns: np.ndarray, blocks: int) -> tuple[float, list[float]]:
    lanes = returns.shape[1]
    parts = np.split(returns, blocks)
    logits = []
    for half in combinations(range(blocks), blocks // 2):
        here = np.vstack([parts[k] for k in half])
        there = np.vstack([parts[k] for k in range(blocks) if k not in half])
        best = int((here.mean(axis=0) / here.std(axis=0)).argmax())
        score = there.mean(axis=0) / there.std(axis=0)
        omega = (1 + (score < score[best]).sum()) / (lanes + 1)
        logits.append(math.log(omega / (1 - omega)))
    return float(np.mean(np.array(logits) <= 0)), logits


@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([2, 4, 6]), st.integers(2, 6))
@settings(max_examples=30)
def test_as_the_paper_says_it(seed: int, lanes: int, blocks: int, size: int) -> None:
    returns = np.random.default_rng(seed).normal(0.0002, 0.01, (blocks * size, lanes))
    pbo, logits = word_by_word(returns, blocks)
    found = overfitting(returns, blocks)
    assert found.pbo == pytest.approx(pbo)
    assert found.logits == pytest.approx(logits)


def test_there_are_as_many_choices_as_published() -> None:
    # The paper's example: 16 blocks give 12,870 combinations.
    found = overfitting(np.random.default_rng(0).normal(size=(160, 3)), 16)
    assert len(found.logits) == 12_870 == math.comb(16, 8)


def test_noise_is_a_coin_and_skill_is_not() -> None:
    pure = [overfitting(np.random.default_rng(s).normal(0, 0.01, (400, 40)), 8).pbo for s in range(40)]
    assert np.mean(pure) == pytest.approx(0.5, abs=0.06)
    returns = np.random.default_rng(1).normal(0, 0.01, (400, 40))
    returns[:, 17] += 0.004
    skill = overfitting(returns, 8)
    assert skill.pbo < 0.02 and skill.loss < 0.02
    # A lane that wins one half by losing the other: choosing is worse than a coin.
    trap = np.random.default_rng(2).normal(0, 0.001, (400, 20))
    trap += np.repeat(np.random.default_rng(3).normal(0, 0.003, (8, 20)), 50, axis=0)
    trap -= trap.mean(axis=0)
    assert overfitting(trap, 8).pbo > 0.6
    assert overfitting(trap, 8).slope < 0


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_order_and_scale_do_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.normal(0, 0.01, (43, 7))
    one, two = overfitting(returns, 4), overfitting(returns[:, rng.permutation(7)] * scale, 4)
    assert (one.pbo, one.loss) == (two.pbo, two.loss)
    assert one.slope == pytest.approx(two.slope, rel=1e-6)
    backwards = overfitting(returns[::-1], 4) if len(returns) % 4 == 0 else one
    assert sorted(backwards.logits) == pytest.approx(sorted(one.logits))


def test_lanes_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = np.random.default_rng(4).normal(0, 0.01, (64, 30)).astype(np.float32)
    whole = overfitting(returns, 8)
    monkeypatch.setattr("backtest.honesty.pbo.NUMBERS", 100)
    assert (overfitting(returns, 8).logits == whole.logits).all()


def test_lanes_that_are_the_same_are_neither_better_nor_worse() -> None:
    one = np.random.default_rng(5).normal(0, 0.01, (64, 1))
    same = overfitting(np.repeat(one, 9, axis=1), 8)
    assert same.logits == pytest.approx(np.zeros(70))
    idle = overfitting(np.hstack([np.zeros((64, 1)), one - one.mean() - 0.01]), 8)
    assert idle.pbo == 0 and idle.loss == 0  # doing nothing is best in every half


def test_too_little_is_nan_and_odd_is_refused() -> None:
    for returns in (np.zeros((100, 1)), np.zeros((20, 5)), np.full((100, 5), np.nan)):
        assert math.isnan(overfitting(returns).pbo)
    with pytest.raises(ValueError, match="even"):
        overfitting(np.zeros((100, 5)), 5)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5))
@settings(max_examples=30)
def test_shuffled_trades_are_among_all_orders(pnl: list[float]) -> None:
    drawn = monte_carlo(np.array(pnl), 100.0, seed=1, count=300, how="shuffle")
    ways = []
    for order in permutations(pnl):
        equity = np.cumsum([100.0, *order])
        ways.append(min(0.0, (equity / np.maximum.accumulate(equity) - 1).min()))
    assert drawn.end == pytest.approx(np.full(300, 100 + sum(pnl)))
    assert all(np.isclose(ways, fall).any() for fall in drawn.drawdown)
    assert drawn.drawdown.mean() == pytest.approx(np.mean(ways), abs=4 * np.std(ways) / 300**0.5 + 1e-9)


def test_drawn_trades_have_the_spread_of_a_sum() -> None:
    pnl = np.random.default_rng(1).normal(5, 40, 120)
    drawn = monte_carlo(pnl, 10_000.0, seed=2, count=4000)
    assert drawn.end.mean() == pytest.approx(10_000 + pnl.sum(), abs=4 * pnl.std() * 120**0.5 / 4000**0.5)
    assert drawn.end.std() == pytest.approx(pnl.std() * 120**0.5, rel=0.04)
    assert (drawn.end == monte_carlo(pnl, 10_000.0, seed=2, count=4000).end).all()
    assert (drawn.drawdown <= 0).all() and len(np.unique(drawn.drawdown)) > 3900


def test_without_trades_there_are_no_series() -> None:
    found = monte_carlo(np.zeros(0), 1.0, seed=0)
    assert len(found.end) == len(found.drawdown) == 0
