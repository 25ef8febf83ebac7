"""The verdict: skill is told from luck, each of its figures is that of its own function, and absence never passes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.honesty import verdict as v
from backtest.honesty.pbo import overfitting
from backtest.honesty.sharpe import deflated, effective_lanes, moments, probabilistic
from backtest.honesty.spa import superior
from engine import ledger
from engine import tracking_names as names

YEAR = 252.0


def lanes(seed: int, count: int = 30, edge: float = 0.0, periods: int = 1500) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0, 0.01, (periods, count))
    returns[:, 0] += edge
    return returns


def of(returns: np.ndarray, more: int = 0) -> ledger.Ledger:
    sharpe = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * YEAR**0.5
    runs = [{"tags": {names.KIND: names.SWEEP}, "metrics": ledger.figures(sharpe, effective_lanes(returns))}]
    return ledger.count(runs * (1 + more))


def best(returns: np.ndarray) -> np.ndarray:
    return returns[:, int((returns.mean(axis=0) / returns.std(axis=0)).argmax())]


def test_skill_is_called_skill_and_luck_luck() -> None:
    skilled = lanes(1, edge=0.0018)
    found = v.verdict(skilled[:, 0], YEAR, ledger=of(skilled), lanes=skilled, oos=lanes(9, 1, 0.0018)[:, 0])
    assert found.word == v.SKILL
    assert found.lead.startswith("Out of sample: Sharpe ratio 3.20 (95 %: 2.") and "no choice has seen" in found.lead
    assert "Of 30 lanes tried of this idea" in found.sentence
    assert found.sentence.startswith("This is unlikely to be luck: it passed every test that was made.")
    words = []
    for seed in range(10):
        noise = lanes(seed, 10, periods=600)
        oos = np.random.default_rng(seed + 100).normal(0, 0.01, 700)
        words.append(v.verdict(best(noise), YEAR, ledger=of(noise), lanes=noise, oos=oos).word)
    assert words.count(v.SKILL) == 0 and words.count(v.LUCK) >= 7


def test_figures_are_those_of_their_functions() -> None:
    some, oos = lanes(3, 40), lanes(4, 1)[:, 0]
    some[5, 7] = math.nan
    rest = np.delete(some, 7, axis=1)
    book = of(rest, more=2)
    figures = v.verdict(best(rest), YEAR, ledger=book, lanes=some, oos=oos, seed=3).figures
    own = moments(best(rest))
    assert figures[names.PSR] == probabilistic(own)
    assert figures[names.DSR] == deflated(own, book.effective, max(book.var / YEAR, 1 / 1499))
    assert figures[names.PBO] == overfitting(rest, 16).pbo
    assert figures[names.SPA] == superior(rest, seed=3).spa
    assert figures[names.LEDGER_LANES] == 117
    assert figures[names.OOS_SHARPE] == pytest.approx(moments(oos).sharpe * YEAR**0.5)
    assert figures[names.OOS_PERIODS] == 1500
    assert set(figures) >= {names.OOS_RETURN, names.OOS_DRAWDOWN, names.OOS_ANNUAL, names.MIN_TRACK_RECORD}


def test_what_was_not_tested_is_not_skill() -> None:
    good = lanes(1, edge=0.003)
    found = v.verdict(good[:, 0], YEAR, ledger=of(good), lanes=good)
    assert found.word == v.OPEN and found.lead.startswith("Out of sample: untested")
    assert names.OOS_SHARPE not in found.figures
    bad = v.verdict(good[:, 0], YEAR, ledger=of(good), lanes=good, oos=-good[:, 0])
    assert bad.word == v.LUCK and "luck: it earned nothing where the choice was tested." in bad.sentence
    still = v.verdict(good[:, 0], YEAR, ledger=of(good), oos=np.zeros(300))
    assert (
        still.lead == "Out of sample: no figure; in 300 periods that no choice has seen, what was chosen did not move."
    )
    short = v.verdict(good[:, 0], YEAR, ledger=of(good), untested="2 days are too short.")
    assert short.lead == "Out of sample: untested; 2 days are too short." and "no figure tells how" in short.sentence
    nothing = v.verdict(np.zeros(9), YEAR, ledger=ledger.Ledger(1, 1.0))
    assert nothing.word == v.OPEN and "too little" in nothing.sentence and names.DSR not in nothing.figures
    assert "The tracker was not heard" in v.verdict(good[:, 0], YEAR, ledger=of(good), whole=False).sentence


@pytest.mark.slow
def test_the_best_of_many_is_not_held_against_few() -> None:
    """The best of 2,000 lanes of noise, of which 100 are kept: its p-value is that of the best of 2,000."""
    sure, plain = 0, 0
    for seed in range(20):
        noise = lanes(seed, 2000, periods=150)
        some = np.column_stack([best(noise), noise[:, :99]])
        book = of(some)
        alone = v.verdict(some[:, 0], YEAR, ledger=book, lanes=some)
        corrected = 1 - (1 - alone.figures[names.SPA]) ** 20
        sure, plain = sure + (corrected < 0.1), plain + (alone.figures[names.SPA] < 0.1)
        if seed < 3:
            told = v.verdict(some[:, 0], YEAR, ledger=book, lanes=some, tried=2000)
            assert told.figures[names.SPA] == pytest.approx(corrected)
            assert told.text.endswith("PBO and SPA are told from 100 of 2,000 lanes.") and "told from" not in alone.text
    assert sure <= 5 and plain >= 14


def test_a_structure_that_was_chosen_on_all_data_has_no_figure_out_of_sample() -> None:
    good = lanes(1, edge=0.0018)
    given = {"ledger": of(good), "lanes": good, "oos": lanes(9, 1, 0.0018)[:, 0]}
    assert v.verdict(good[:, 0], YEAR, **given).word == v.SKILL
    found = v.verdict(good[:, 0], YEAR, **given, structures=4)
    assert found.word == v.OPEN and names.OOS_SHARPE not in found.figures
    assert "that no choice of numbers has seen, but the choice among 4 structures has." in found.lead


@given(st.integers(0, 10**6), st.integers(0, 5))
@settings(max_examples=8)
def test_more_lanes_in_the_ledger_never_help(seed: int, more: int) -> None:
    some = lanes(seed, 8, 0.001, 200)
    one, other = (v.verdict(some[:, 0], YEAR, ledger=of(some, k)).figures for k in (0, more))
    assert other[names.DSR] <= one[names.DSR] + 1e-9
    assert one[names.PSR] == other[names.PSR] >= one[names.DSR] - 1e-12


def test_one_lane_is_judged_by_its_probabilistic_sharpe() -> None:
    own = lanes(2, 1, 0.001)[:, 0]
    alone = ledger.count([{"tags": {names.KIND: names.BACKTEST}, "metrics": {names.SHARPE: 1.5}}])
    found = v.verdict(own, YEAR, ledger=alone)
    assert found.figures[names.DSR] == found.figures[names.PSR]
    assert "One lane of this idea was tried" in found.sentence


def test_copies_of_one_lane_are_two_at_least() -> None:
    """Whoever tried several had a choice, however alike they were."""
    same = np.repeat(lanes(5, 1, 0.001), 50, axis=1)
    found = v.verdict(same[:, 0], YEAR, ledger=of(same), lanes=same)
    assert found.figures[names.LEDGER_EFFECTIVE] == 2
    assert found.figures[names.DSR] < found.figures[names.PSR]
