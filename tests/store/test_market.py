"""The synthetic market: the same bytes each time, rules that every event keeps, and the facts it claims to have.

The bounds of the facts are wide: they hold for any seed, and would not hold for a random walk with random signs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, DataError
from engine.kernel import codes
from engine.store import market_tape, open_tape
from engine.store.market import market_events
from engine.store.tape import join, to_ns

Array = np.ndarray[Any, Any]
SEEDS = (0, 1)


@pytest.fixture(scope="module", params=SEEDS)
def events(request: pytest.FixtureRequest) -> Array:
    """Half a million events, about four hours."""
    return join(list(market_events(500_000, request.param)))


def memory(values: Array, *lags: int) -> list[float]:
    """Autocorrelations."""
    x = values - values.mean()
    return [float((x[:-lag] * x[lag:]).mean() / (x * x).mean()) for lag in lags]


def quotes_of(events: Array) -> Array:
    return events[events["kind"] == codes.QUOTE]


def middle_at(events: Array, times: Array) -> Array:
    """The middle price in ticks as it stood at some times."""
    quotes = quotes_of(events)
    rows = np.searchsorted(quotes["ts"], times, side="right") - 1
    return np.asarray((quotes["bid"] + quotes["ask"])[rows] * 50)


def steps(events: Array, seconds: int) -> Array:
    """Changes of the middle price over intervals of clock time, ticks."""
    return np.diff(middle_at(events, np.arange(events["ts"][0], events["ts"][-1], seconds * 10**9)))


def test_the_same_arguments_give_the_same_bytes() -> None:
    short = join(list(market_events(500, 7, 2, 10**18)))
    assert short.tobytes() == join(list(market_events(500, 7, 2, 10**18))).tobytes()
    assert short.tobytes() == join(list(market_events(500, 7, 2, 10**18, compiled=False))).tobytes()
    assert short.tobytes() == join(list(market_events(150_000, 7, 2, 10**18)))[:500].tobytes()
    assert short.tobytes() != join(list(market_events(500, 8, 2, 10**18))).tobytes()


def test_every_event_keeps_the_rules(events: Array) -> None:
    assert set(np.unique(events["kind"])) == {codes.QUOTE, codes.TRADE}
    quotes, trade = quotes_of(events), events["kind"] == codes.TRADE
    trades = events[trade]
    assert (quotes["bid"] < quotes["ask"]).all()
    for prices in (quotes["bid"], quotes["ask"], trades["price"]):
        assert (prices == np.rint(prices * 100) / 100).all()
        assert (prices > 0).all()
    for volumes in (quotes["bid_volume"], quotes["ask_volume"], trades["traded"]):
        assert (volumes >= 1).all()
        assert (volumes == np.rint(volumes)).all()
    assert set(np.unique(trades["side"])) == {-1, 1}


def test_time_goes_forward_and_the_feed_is_late_by_half_a_millisecond(events: Array) -> None:
    delay = events["recv"] - events["ts"]
    assert (np.diff(events["ts"]) >= 0).all()
    assert (np.diff(events["recv"]) >= 0).all()
    assert delay.min() >= 400_000
    assert 450_000 < np.median(delay) < 550_000
    assert np.std(delay) > 50_000


def test_trades_take_the_touch_and_the_next_quote_shows_it(events: Array) -> None:
    at = np.flatnonzero(events["kind"] == codes.TRADE)
    at = at[(at > 0) & (at < len(events) - 1)]
    before, trades, after = events[at - 1], events[at], events[at + 1]
    assert (before["kind"] == codes.QUOTE).all()
    assert (after["kind"] == codes.QUOTE).all()
    buys = trades["side"] > 0
    assert (trades["price"] == np.where(buys, before["ask"], before["bid"])).all()
    shown = np.where(buys, before["ask_volume"], before["bid_volume"])
    assert (trades["traded"] <= shown).all()
    assert (after["ts"] == trades["ts"]).all()
    partly = trades["traded"] < shown
    left = np.where(buys, after["ask_volume"], after["bid_volume"])
    assert (left[partly] == (shown - trades["traded"])[partly]).all()
    moved = np.where(buys, after["ask"] > before["ask"], after["bid"] < before["bid"])
    assert (moved == ~partly).all()


def test_signs_have_a_long_memory(events: Array) -> None:
    signs = events["side"][events["kind"] == codes.TRADE].astype(float)
    near, middle, far = memory(signs, 1, 10, 100)
    assert 0.15 < near < 0.45
    assert near > middle > far > 3 / np.sqrt(len(signs)) / 2
    # A power law of exponent about 1/2 loses a factor of 3 from lag 10 to 100; an exponential would lose all.
    assert 0.01 < np.mean(memory(signs, *range(80, 120))) < 0.05


def test_prices_diffuse_all_the_same(events: Array) -> None:
    assert abs(memory(steps(events, 5), 1)[0]) < 0.12
    per_second = [steps(events, seconds).std() / seconds**0.5 for seconds in (1, 30)]
    assert 0.6 < per_second[1] / per_second[0] < 1.4


def test_volatility_clusters_and_tails_are_heavy(events: Array) -> None:
    returns = steps(events, 1)
    near, middle, far = memory(np.abs(returns), 1, 10, 100)
    assert near > middle > far > 0.02
    assert near > 0.15
    assert (returns**4).mean() / returns.var() ** 2 > 5


def test_the_spread_is_mostly_one_tick_and_sometimes_more(events: Array) -> None:
    quotes = quotes_of(events)
    ticks = np.rint((quotes["ask"] - quotes["bid"]) * 100)[:-1]
    held = np.bincount(ticks.astype(int), np.diff(quotes["ts"]).astype(float))
    share = held / held.sum()
    assert 0.8 < share[1] < 0.97
    assert share[1] > share[2] > share[3] > 0
    assert ticks.max() <= 20


def test_volumes_have_a_power_law_tail(events: Array) -> None:
    volumes = np.sort(events["traded"][events["kind"] == codes.TRADE])[::-1]
    top = volumes[: len(volumes) // 100]
    assert 1.2 < 1 / np.log(top / top[-1]).mean() < 3.0  # Hill's estimator of the exponent


def test_queues_tell_and_makers_neither_win_nor_lose_for_certain(events: Array) -> None:
    quotes = quotes_of(events)[1::7]
    imbalance = (quotes["bid_volume"] - quotes["ask_volume"]) / (quotes["bid_volume"] + quotes["ask_volume"])
    change = middle_at(events, quotes["ts"] + 10**9) - middle_at(events, quotes["ts"])
    assert 0.05 < np.corrcoef(imbalance, change)[0, 1] < 0.4
    trades = events[np.flatnonzero(events["kind"] == codes.TRADE)[1:]]
    now = middle_at(events, trades["ts"])
    moved = np.abs(now - middle_at(events, np.maximum(trades["ts"] - 30 * 10**9, events["ts"][1])))
    for seconds in (1, 5):
        later = middle_at(events, trades["ts"] + seconds * 10**9)
        earned = trades["side"] * (trades["price"] * 100 - later)  # ticks of half the spread that a maker keeps
        assert -0.1 < earned.mean() < 0.2
        assert -0.25 < np.average(earned, weights=trades["traded"]) < 0.1
        assert earned[moved < np.quantile(moved, 0.5)].mean() > earned[moved > np.quantile(moved, 0.95)].mean() + 0.05


def test_ticks_is_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = open_tape("ticks")
    assert [info.name for info in tape.instruments] == ["SYNTH"]
    assert len(tape) == 1_000_000
    assert "synthetic" in tape.name
    assert tape.events["ts"][0] >= (to_ns("2024-01-02") or 0)
    assert open_tape("ticks", "SYNTH").digest == tape.digest
    assert open_tape("ticks", lot=5).instruments[0].lot == 5
    with pytest.raises(DataError, match="unknown instrument"):
        open_tape("ticks", "AAPL")


def test_several_instruments_share_a_tape(places: Path) -> None:
    tape = market_tape(3001, seed=4, instruments=3)
    assert [info.name for info in tape.instruments] == ["SYNTH0", "SYNTH1", "SYNTH2"]
    assert np.bincount(tape.events["instrument"]).tolist() == [1001, 1000, 1000]
    assert (np.diff(tape.events["recv"]) >= 0).all()
    alone = join(list(market_events(1000, 4, 2, to_ns("2024-01-02") or 0)))
    assert tape.events[tape.events["instrument"] == 2].tobytes() == alone.tobytes()
    with pytest.raises(ConfigError):
        market_tape(2, instruments=3)
    (path,) = (places / "cache" / "tapes").glob("*.tape")
    path.write_bytes(path.read_bytes()[:-1])  # a cached tape that was cut is made again
    assert market_tape(3001, seed=4, instruments=3).events.tobytes() == tape.events.tobytes()
