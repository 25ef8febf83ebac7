"""Indicators against independent references (TA-Lib, pandas, numpy), on real and on seeded data; and their laws."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.kernel.indicators import (
    ATR,
    EMA,
    MACD,
    RSI,
    VWAP,
    WMA,
    Bollinger,
    Decay,
    Deviation,
    Donchian,
    Highest,
    Indicator,
    Lowest,
    Mean,
    RateOfChange,
    RollingVWAP,
    SessionVWAP,
    Slope,
    Wilder,
    Window,
    ZScore,
)
from tests.kernel.cases import CASES, IDS, bars, nasty, recorded


@pytest.fixture(scope="module", params=["real", "synthetic"])
def data(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "synthetic":
        return bars(1200, seed=42)
    folder: Path = request.getfixturevalue("real_data")
    return {name: column[:1200] for name, column in recorded(folder).items()}


def rolling(x: Any, length: int) -> Any:
    return pd.Series(x).rolling(length)


def vwap(data: dict[str, Any], length: int) -> Any:
    return rolling(data["c"] * data["v"], length).sum() / rolling(data["v"], length).sum()


# name: (what we say, what the reference says), each of the bars d
REFERENCES: dict[str, Any] = {
    "Mean": (lambda d: Mean.scan(d["c"], 20), lambda d: talib.SMA(d["c"], 20)),
    "Mean of one": (lambda d: Mean.scan(d["c"], 1), lambda d: d["c"]),
    "EMA": (lambda d: EMA.scan(d["c"], 20), lambda d: talib.EMA(d["c"], 20)),
    "Wilder": (lambda d: Wilder.scan(d["c"], 14)[13:],
               lambda d: pd.Series(np.r_[d["c"][:14].mean(), d["c"][14:]]).ewm(alpha=1 / 14, adjust=False).mean()),
    "Decay": (lambda d: Decay.scan(d["c"], 0.1), lambda d: pd.Series(d["c"]).ewm(alpha=0.1, adjust=False).mean()),
    "WMA": (lambda d: WMA.scan(d["c"], 30), lambda d: talib.WMA(d["c"], 30)),
    "Slope": (lambda d: Slope.scan(d["c"], 14)[:, 0], lambda d: talib.LINEARREG_SLOPE(d["c"], 14)),
    "Slope.intercept": (lambda d: Slope.scan(d["c"], 14)[:, 1], lambda d: talib.LINEARREG_INTERCEPT(d["c"], 14)),
    "Slope.fitted": (lambda d: Slope.scan(d["c"], 14)[:, 2], lambda d: talib.LINEARREG(d["c"], 14)),
    "Deviation": (lambda d: Deviation.scan(d["c"], 20)[:, 0], lambda d: talib.STDDEV(d["c"], 20)),
    "Deviation.sample": (lambda d: Deviation.scan(d["c"], 20)[:, 1], lambda d: rolling(d["c"], 20).std()),
    "ZScore": (lambda d: ZScore.scan(d["c"], 20),
               lambda d: (d["c"] - rolling(d["c"], 20).mean()) / rolling(d["c"], 20).std(ddof=0)),
    "Bollinger": (lambda d: Bollinger.scan(d["c"], 20, 2.0),
                  lambda d: np.c_[tuple(talib.BBANDS(d["c"], 20, 2.0, 2.0)[k] for k in (1, 0, 2))]),
    "RSI": (lambda d: RSI.scan(d["c"], 14), lambda d: talib.RSI(d["c"], 14)),
    "MACD": (lambda d: MACD.scan(d["c"], 12, 26, 9)[33:], lambda d: np.c_[talib.MACD(d["c"], 12, 26, 9)][33:]),
    "ATR": (lambda d: ATR.scan(d["h"], d["l"], d["c"], 14), lambda d: talib.ATR(d["h"], d["l"], d["c"], 14)),
    "Highest": (lambda d: Highest.scan(d["h"], 20), lambda d: talib.MAX(d["h"], 20)),
    "Lowest": (lambda d: Lowest.scan(d["l"], 20), lambda d: talib.MIN(d["l"], 20)),
    "Donchian": (lambda d: Donchian.scan(d["h"], d["l"], 20)[:, 1:],
                 lambda d: np.c_[rolling(d["h"], 20).max(), rolling(d["l"], 20).min()]),
    "RateOfChange": (lambda d: RateOfChange.scan(d["c"], 10), lambda d: talib.ROCP(d["c"], 10)),
    "Window": (lambda d: Window.scan(d["c"], 7), lambda d: pd.Series(d["c"]).shift(7)),
    "VWAP": (lambda d: VWAP.scan(d["c"], d["v"]), lambda d: np.cumsum(d["c"] * d["v"]) / np.cumsum(d["v"])),
    "RollingVWAP": (lambda d: RollingVWAP.scan(d["c"], d["v"], 20), lambda d: vwap(d, 20)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
def test_against_reference(name: str, data: dict[str, Any]) -> None:
    ours, theirs = (np.asarray(function(data), float) for function in REFERENCES[name])
    assert np.isfinite(ours).sum() > 1000  # else nan would equal nan all the way
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    # The references subtract squares of prices; what that costs them is about 1e-13 of the price, hence atol.
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(theirs)))


def test_session_vwap_is_vwap_per_session() -> None:
    data = bars(60, seed=3)
    expected = np.concatenate([VWAP.scan(data["c"][k : k + 5], data["v"][k : k + 5]) for k in range(0, 60, 5)])
    assert SessionVWAP.scan(data["c"], data["v"], data["d"]).tolist() == expected.tolist()


def brute(x: Any, length: int) -> Any:
    """Windows of the finite samples, one row for each sample from the first full window on."""
    return np.lib.stride_tricks.sliding_window_view(x[np.isfinite(x)], length)


def test_steps_and_spikes_leave_no_trace() -> None:
    """A spike of 1e9 deviations spoils no window that it is not in; equal samples deviate by exactly 0."""
    x = 100.0 + np.random.default_rng(5).normal(0.0, 1.0, 400)
    x[100], x[200:260] = 1e9, 7.3e8
    ours, windows = Deviation.scan(x, 20)[19:, 0], brute(x, 20)
    np.testing.assert_allclose(ours, windows.std(axis=1), rtol=1e-11, atol=1e-6)
    calm = windows.max(axis=1) < 200.0
    np.testing.assert_allclose(ours[calm], windows.std(axis=1)[calm], rtol=1e-11)
    assert np.all(ours[windows.min(axis=1) == windows.max(axis=1)] == 0.0)


@pytest.mark.parametrize(("cls", "exact"), [(Mean, np.mean), (WMA, None), (Slope, None)])
def test_no_drift(cls: Any, exact: Any) -> None:
    """After 30,000 updates over a wide range the sums are as good as fresh ones: a fresh record agrees."""
    x = 1e6 * np.exp(np.cumsum(np.random.default_rng(9).normal(0.0, 0.02, 30_000)))
    x[25_000:] = 100.0 + np.random.default_rng(2).normal(0.0, 0.01, 5_000)
    last = cls.scan(x, 50)[-5_000 + 100 :]
    fresh = cls.scan(x[-5_000:], 50)[100:]
    np.testing.assert_allclose(last, fresh, rtol=1e-13, atol=1e-15)
    if exact is not None:
        np.testing.assert_allclose(last, exact(brute(x[-5_000 + 51 :], 50), axis=1), rtol=1e-14)


PRICE = st.one_of(st.integers(900, 1100).map(lambda cents: cents / 100), st.floats(-1e6, 1e6), st.floats(1e-9, 1e9))


@given(st.lists(PRICE, min_size=1, max_size=60), st.integers(1, 9))
@example([9.71, 10.24, -4e-293], 3)
def test_a_mean_is_the_exact_mean(prices: list[float], length: int) -> None:
    """Near prices (two operations carry the error) and far ones (six do) have the sum of exact arithmetic, rounded.

    What is left of the error may decide a tie: the sum is the next one then, and both quotients are rounded.
    """
    mean = Mean.new()
    found = [mean.update(x, length) for x in prices]
    for n in range(length, len(prices) + 1):
        window = prices[n - length : n]
        exact, most = math.fsum(window) / length, max(map(abs, prices[:n]))
        assert abs(found[n - 1] - exact) <= 4.5e-16 * abs(exact) + 1e-29 * most * n


@pytest.mark.parametrize(("cls", "inputs", "args"), CASES, ids=IDS)
def test_samples_that_are_not_finite_are_no_samples(cls: Any, inputs: str, args: tuple[float, ...]) -> None:
    """Taking the holes out first gives the same values; a hole repeats the value before it."""
    if cls is Window:
        pytest.skip("a Window keeps what it is given")
    data = nasty()
    whole = np.isfinite(data["x"])
    with_holes = cls.scan(*(data[name] for name in inputs), *args)
    without = cls.scan(*(data[name][whole] for name in inputs), *args)
    np.testing.assert_array_equal(with_holes[whole], without)
    for t in np.flatnonzero(~whole)[2:] if cls is not SessionVWAP else []:  # that one may begin anew with a hole
        np.testing.assert_array_equal(with_holes[t], with_holes[t - 1])


@pytest.mark.parametrize(("cls", "inputs", "args"), CASES, ids=IDS)
def test_state_is_bytes(cls: Any, inputs: str, args: tuple[float, ...]) -> None:
    """Law 3: copy the bytes at any sample, continue on the copy: same values, same bytes."""
    data = nasty()
    rows = list(zip(*(data[name][:400].tolist() for name in inputs), strict=True))
    for cut in (0, 1, 19, 20, 33, 377):
        first = cls.new()
        for row in rows[:cut]:
            first.update(*row, *args)
        memory = np.frombuffer(first.tobytes(), cls.dtype).copy()
        second = cls.view(memory)
        for row in rows[cut:]:
            assert repr(first.update(*row, *args)) == repr(second.update(*row, *args))
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(("cls", "inputs", "args"), CASES, ids=IDS)
def test_ready_tells_when_values_exist(cls: Any, inputs: str, args: tuple[float, ...]) -> None:
    """Not ready: nothing but nan. Ready: the value is there, and was not before."""
    if cls is Window:
        pytest.skip("a Window has no warm-up")
    data = {**bars(320), "x": bars(320)["c"]}
    record = cls.new()
    assert not record.ready
    final = cls.outputs[-1] if cls is MACD else None  # its line comes before its signal
    for row in zip(*(data[name].tolist() for name in inputs), strict=True):
        value = record.update(*row, *args)
        value = getattr(record, final) if final else value
        undefined = cls is Deviation and args == (1,)
        assert math.isnan(value) is not record.ready or undefined
    assert record.ready


LENGTHS = [case for case in CASES if case[2] and isinstance(case[2][0], int) and case[0] is not Window]


@pytest.mark.parametrize(("cls", "inputs", "args"), LENGTHS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_changed_length_starts_anew(cls: Any, inputs: str, args: tuple[int, ...]) -> None:
    data = {**bars(150), "x": bars(150)["c"]}
    rows = list(zip(*(data[name].tolist() for name in inputs), strict=True))
    other = (args[0] + 1, *args[1:])
    record, fresh = cls.new(), cls.new()
    for row in rows[:70]:
        record.update(*row, *args)
    if other[0] > cls.capacity:
        pytest.skip("this one is as long as it may be")
    for row in rows[70:]:
        assert repr(record.update(*row, *other)) == repr(fresh.update(*row, *other))


@pytest.mark.parametrize(("cls", "inputs", "args"), LENGTHS, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize("length", [0, -1])
def test_a_length_below_one_is_refused(cls: Any, inputs: str, args: tuple[int, ...], length: int) -> None:
    row = (1.0,) * len(inputs)
    for warm in (False, True):
        record = cls.new()
        if warm:
            record.update(*row, *args)
        with pytest.raises(ValueError, match=r"at least 1|0 < fast"):
            record.update(*row, length, *args[1:])


# Those that keep a window, with the longest that a capacity of 8 holds and one more.
BOUNDED = [(Mean, 1), (WMA, 1), (Slope, 1), (Deviation, 1), (ZScore, 1), (Highest, 1), (Lowest, 1), (Donchian, 2),
           (RateOfChange, 1), (RollingVWAP, 2)]  # fmt: skip


@pytest.mark.parametrize(("cls", "inputs"), BOUNDED, ids=lambda x: getattr(x, "__name__", ""))
def test_a_length_beyond_the_capacity_is_refused(cls: Any, inputs: int) -> None:
    samples = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0])
    row = (samples,) * inputs
    assert np.array_equal(cls[8].scan(*row, 8), cls.scan(*row, 8), equal_nan=True)
    with pytest.raises(IndexError, match="capacity"):
        cls[8].scan(*row, 9)


def test_macd_wants_fast_below_slow() -> None:
    for args in ((26, 12, 9), (12, 12, 9), (12, 26, 0)):
        with pytest.raises(ValueError, match="MACD needs"):
            MACD.new().update(1.0, *args)


def test_decay_wants_alpha_in_range() -> None:
    for alpha in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            Decay.new().update(1.0, alpha)


def test_nothing_is_known_before_the_first_sample() -> None:
    """Zeroed memory is not mistaken for a channel at 0: a breakout above `upper` waits."""
    channel, bands, macd = Donchian.new(), Bollinger.new(), MACD.new()
    values = [channel.upper, channel.lower, channel.middle, macd.line, macd.signal, macd.histogram]
    values += [bands.middle, bands.upper, bands.lower, bands.percent_b, bands.bandwidth]
    values += [cls.new().latest for cls in (Mean, EMA, WMA, Slope, Highest, RSI, ATR, VWAP, RateOfChange)]
    assert all(math.isnan(x) for x in values)


def test_rsi_at_its_ends() -> None:
    assert RSI.scan([1.0, 2.0, 3.0], 2)[-1] == 100.0
    assert RSI.scan([3.0, 2.0, 1.0], 2)[-1] == 0.0
    assert RSI.scan([2.0, 2.0, 2.0], 2)[-1] == 50.0


def test_bollinger_percent_b_and_bandwidth() -> None:
    bands = Bollinger.new()
    for x in (1.0, 3.0):
        bands.update(x, 2, 2.0)
    assert (bands.percent_b, bands.bandwidth) == (0.75, 2.0)


def test_vwap_keeps_small_volumes_after_large_ones() -> None:
    """A window of volume 0 has no average, whatever passed before; a long sum loses nothing to rounding."""
    assert math.isnan(RollingVWAP.scan([1.0, 2.0, 3.0, 4.0], [1e17, 0.1, 0.0, 0.0], 2)[-1])
    volumes = np.r_[1e16, np.ones(1000)]
    average = VWAP.scan(np.r_[1.0, np.full(1000, 2.0)], volumes)[-1]
    assert average == pytest.approx(1.0 + 1000 / (1e16 + 1000), rel=1e-15)
    record = VWAP.new()
    for volume in volumes:
        record.update(1.0, volume)
    assert record.volume - record.volume_lost == 1e16 + 1000
    record.reset()
    assert not record.ready and record.update(5.0, 2.0) == 5.0


def test_window_reaches_back_as_far_as_it_is_long() -> None:
    window = Window[4].new()
    for x in range(10):
        window.push(float(x))
    assert [window.value(k) for k in range(4)] == [9.0, 8.0, 7.0, 6.0]
    for k in (-1, 4):
        with pytest.raises(IndexError, match="no sample that far back"):
            window.value(k)


def test_scan_names_arrays_that_do_not_fit() -> None:
    for inputs in ((20,), (np.ones((3, 2)), 20)):
        with pytest.raises(ConfigError, match="arrays of one dimension"):
            Mean.scan(*inputs)
    with pytest.raises(ConfigError, match=r"got \(3,\), \(2,\)"):
        VWAP.scan([1.0, 2.0, 3.0], [1.0, 2.0])


def test_indicators_chain_through_warm_up() -> None:
    """The nan of one indicator is no sample for the next: its window fills from the first value on."""
    x = bars(100)["c"]
    chained = Mean.scan(RSI.scan(x, 14), 5)
    assert np.isnan(chained[:18]).all()
    np.testing.assert_allclose(chained[18:], rolling(talib.RSI(x, 14)[14:], 5).mean()[4:], rtol=1e-12)


def test_an_own_indicator_scans() -> None:
    class Gap(Indicator):
        outputs = ("gap", "last")
        last: float

        def update(self, x: float) -> float:
            gap = x - self.last
            self.last = x
            return gap

    assert Gap.scan([1.0, 4.0]).tolist() == [[1.0, 1.0], [3.0, 4.0]]
