"""The fold of trades and quotes into bars: by hand, against polars, against vendors, and against itself."""

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.errors import ConfigError, DataError
from engine.kernel import codes
from engine.kernel.fold import Fold
from engine.kernel.folding import fold_rows
from engine.store.bars import SOURCES, BarRule, fold_bars, fold_tape
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen

OHLCV = ("open", "high", "low", "close", "volume")


def by_hand(rule: BarRule, rows: list[tuple[int, float, float]], until: int | None = None) -> list[tuple[Any, ...]]:
    """(opened, ts, open, high, low, close, volume, trades) of the bars that trades (ts, price, volume) close."""
    fold, found = Fold.view(rule.record()), []

    def drain() -> None:
        while fold.take():
            b = fold.bar
            found.append((b.opened, b.ts, b.open, b.high, b.low, b.close, b.volume, b.trades))

    for ts, price, volume in rows:
        fold.add(price, volume, 1, ts, ts)
        drain()
    if until is not None:
        fold.advance(until)
        drain()
    return found


TRADES = [(3, 5.0, 1.0), (9, 7.0, 2.0), (10, 6.0, 1.0), (19, 4.0, 1.0), (45, 5.0, 3.0), (50, 8.0, 1.0)]
BARS_OF_TEN = [(0, 10, 5.0, 7.0, 5.0, 7.0, 3.0, 2), (10, 20, 6.0, 6.0, 4.0, 4.0, 2.0, 2),
               (40, 50, 5.0, 5.0, 5.0, 5.0, 3.0, 1)]  # fmt: skip
FLAT = [(20, 30, 4.0, 4.0, 4.0, 4.0, 0.0, 0), (30, 40, 4.0, 4.0, 4.0, 4.0, 0.0, 0)]


def test_time_bars_by_hand() -> None:
    assert by_hand(BarRule(interval=10), TRADES) == BARS_OF_TEN
    assert by_hand(BarRule(interval=10, empty="flat"), TRADES) == [*BARS_OF_TEN[:2], *FLAT, BARS_OF_TEN[2]]


def test_a_bar_closes_when_its_time_has_come_and_not_before() -> None:
    assert by_hand(BarRule(interval=10), TRADES[:2], until=9) == []
    assert by_hand(BarRule(interval=10), TRADES[:2], until=10) == BARS_OF_TEN[:1]
    assert by_hand(BarRule(interval=10, empty="flat"), TRADES[:4], until=40) == [*BARS_OF_TEN[:2], *FLAT]
    assert by_hand(BarRule(interval=10, empty="flat"), [], until=40) == []


def test_the_grid_has_an_offset_and_goes_below_zero() -> None:
    rows = [(-7, 1.0, 1.0), (2, 2.0, 1.0), (3, 3.0, 1.0), (13, 4.0, 1.0)]
    opened = [bar[:2] for bar in by_hand(BarRule(interval=10, offset=3), rows)]
    assert opened == [(-7, 3), (3, 13)]


def test_late_trades_go_into_the_open_bar_and_are_counted() -> None:
    fold = Fold.view(BarRule(interval=10).record())
    closed = []
    for ts, price in ((5, 1.0), (12, 2.0), (8, 9.0), (20, 3.0)):
        fold.add(price, 1.0, 1, ts, ts + 1)
        while fold.take():
            closed.append((fold.bar.ts, fold.bar.recv, fold.bar.high, fold.bar.volume))
    assert closed == [(10, 10, 1.0, 1.0), (20, 20, 9.0, 2.0)]
    assert fold.late == 1


def test_tick_volume_and_dollar_bars_by_hand() -> None:
    assert by_hand(BarRule("tick", size=2), TRADES) == [
        (3, 9, 5.0, 7.0, 5.0, 7.0, 3.0, 2), (10, 19, 6.0, 6.0, 4.0, 4.0, 2.0, 2), (45, 50, 5.0, 8.0, 5.0, 8.0, 4.0, 2),
    ]  # fmt: skip
    assert by_hand(BarRule("volume", size=2), TRADES) == [
        (3, 9, 5.0, 7.0, 5.0, 7.0, 2.0, 2),
        (9, 10, 7.0, 7.0, 6.0, 6.0, 2.0, 2),
        (19, 45, 4.0, 5.0, 4.0, 5.0, 2.0, 2),
        (45, 45, 5.0, 5.0, 5.0, 5.0, 2.0, 1),
    ]
    assert by_hand(BarRule("dollar", size=12), [(1, 4.0, 2.0), (2, 2.0, 2.0), (3, 6.0, 5.0), (4, 1.0, 6.0)]) == [
        (1, 2, 4.0, 4.0, 2.0, 2.0, 4.0, 2), (3, 3, 6.0, 6.0, 6.0, 6.0, 2.0, 1), (3, 3, 6.0, 6.0, 6.0, 6.0, 2.0, 1),
        (3, 4, 6.0, 6.0, 1.0, 1.0, 7.0, 2),
    ]  # fmt: skip


def test_rounding_splits_nothing() -> None:
    tenths = [(t, float(t), 0.1) for t in range(30)]
    assert [bar[:2] for bar in by_hand(BarRule("volume", size=1), tenths)] == [(0, 9), (10, 19), (20, 29)]


def test_what_is_no_number_is_ignored_and_told() -> None:
    bad = {"ts": [1, 2, 3, 20], "price": [1.0, np.nan, 2.0, 3.0], "volume": [1.0, 1.0, -1.0, 1.0]}
    with pytest.raises(DataError, match="2 trades"):
        fold_bars(bad, interval=10)
    with pytest.raises(DataError, match="source=trades"):
        fold_bars({"ts": [1], "price": [1.0], "volume": [1.0]}, source="quotes")
    fold = Fold.view(BarRule(interval=10).record())
    fold.add(1.0, 1.0, 1, 1, 1)
    with pytest.raises(ValueError, match="take"):
        fold.add(1.0, 1.0, 1, 2, 2)


def test_quotes_fold_their_middle() -> None:
    quotes = {"ts": [1, 4, 6, 7, 12], "bid": [9.0, 10.0, 0.0, np.nan, 1.0], "ask": [11.0, 13.0, 12.0, 50.0, 2.0],
              "bid_volume": [1.0, 2.0, 0.0, 0.0, 1.0], "ask_volume": [3.0, 4.0, 5.0, 1.0, 1.0]}  # fmt: skip
    plain = fold_bars(quotes, interval=10, source="quotes")
    assert plain.select(OHLCV).rows() == [(10.0, 11.5, 10.0, 11.5, 0.0)]
    assert fold_bars(quotes, interval=10, source="quotes", shown=True)["volume"].to_list() == [10.0]


@pytest.mark.parametrize("rule", [
    {"kind": "day"}, {"interval": 0}, {"interval": "1 minute"}, {"kind": "volume"}, {"kind": "tick", "size": 1.5},
    {"source": "bars"}, {"empty": "zero"}, {"kind": "dollar", "size": 5, "source": "quotes"},
])  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BarRule(**rule)


RULES = (BarRule(interval=50), BarRule(interval=50, empty="flat", offset=7), BarRule("tick", size=3),
         BarRule("volume", size=7), BarRule("dollar", size=333.3),
         BarRule(interval=40, source="quotes", shown=True))  # fmt: skip


@st.composite
def ticks(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Trades and quotes of three instruments, in the order of arrival."""
    n = draw(st.integers(1, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    events = blank(n)
    events["ts"] = np.cumsum(rng.integers(0, draw(st.sampled_from([2, 20, 200])), n))
    events["recv"] = events["ts"] + np.sort(rng.integers(0, 9, n))
    events["instrument"] = rng.integers(0, 3, n)
    events["kind"] = rng.choice([codes.TRADE, codes.QUOTE], n)
    price, volume = rng.integers(90, 110, n) / 10, rng.integers(0, 50, n) / 10
    trade = events["kind"] == codes.TRADE
    events["price"][trade], events["traded"][trade] = price[trade], volume[trade]
    events["side"][trade] = rng.choice([-1, 1], n)[trade]
    events["bid"][~trade], events["ask"][~trade] = price[~trade], price[~trade] + 0.1
    events["bid_volume"][~trade] = events["ask_volume"][~trade] = volume[~trade]
    return events


def folded(events: np.ndarray[Any, Any], rule: BarRule, cuts: list[int], **how: Any) -> tuple[bytes, bytes]:
    """The bars of events given in pieces, and the state that is left."""
    rules = np.concatenate([rule.record() for _ in range(3)])
    borders = sorted({0, len(events), *(cut % len(events) for cut in cuts)})
    pieces = [events[low:high] for low, high in pairwise(borders)]
    bars = list(fold_rows(pieces, rules, int(events["ts"][-1]) + 60, **how))
    return b"".join(part.tobytes() for part in bars), rules.tobytes()


@given(ticks(), st.sampled_from(RULES), st.lists(st.integers(0, 200), max_size=6), st.integers(1, 5))
def test_any_partition_gives_the_same_bars_compiled_or_not(
    events: np.ndarray[Any, Any], rule: BarRule, cuts: list[int], room: int
) -> None:
    whole = folded(events, rule, [])
    assert folded(events, rule, cuts, room=room) == whole
    assert folded(events, rule, cuts, room=room, compiled=False) == whole


@given(ticks(), st.sampled_from(RULES))
def test_other_instruments_change_nothing(events: np.ndarray[Any, Any], rule: BarRule) -> None:
    used = events["kind"] == SOURCES[rule.source]
    assume(used.any())
    tape = Tape(frozen(events), tuple(InstrumentInfo(name) for name in "ABC"), "d", "mixed")
    whole = _fold(tape, rule)
    for i, name in enumerate("ABC"):
        own = events[used & (events["instrument"] == i)]
        alone = _fold(Tape(frozen(own), tape.instruments, "d", "alone"), rule) if len(own) else whole.clear()
        assert whole.filter(pl.col("instrument") == name).equals(alone)


def _fold(tape: Tape, rule: BarRule) -> pl.DataFrame:
    return fold_bars(tape, rule.kind, rule.interval, **{k: v for k, v in vars(rule).items()
                                                         if k not in ("kind", "interval")})  # fmt: skip


@given(ticks(), st.sampled_from(RULES[2:5]))
def test_volume_is_conserved(events: np.ndarray[Any, Any], rule: BarRule) -> None:
    rules = np.concatenate([rule.record() for _ in range(3)])
    bars = np.concatenate([np.zeros(0), *(part["volume"] for part in fold_rows([events], rules))])
    left = rules["volume"][rules["trades"] > 0].sum()
    assert bars.sum() + left == pytest.approx(events["traded"][events["kind"] == codes.TRADE].sum())


def random_trades(n: int, seed: int = 5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({
        "ts": 1_700_000_000 * 10**9 + np.cumsum(rng.integers(0, 20 * 10**9, n)),
        "price": 100 + np.cumsum(rng.integers(-3, 4, n)) / 100, "volume": rng.integers(1, 100, n).astype(float),
        "side": rng.choice([-1, 1], n), "instrument": rng.choice(["A", "B"], n),
    })  # fmt: skip


def test_time_bars_are_those_of_polars() -> None:
    trades = random_trades(5000)
    bars = fold_bars(trades, interval="5m", until="2100-01-01")
    same = (
        trades.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC")))
        .group_by_dynamic("ts", every="5m", group_by="instrument")
        .agg(
            pl.col("price").first().alias("open"), pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"), pl.col("price").last().alias("close"), pl.col("volume").sum(),
            (pl.col("price") * pl.col("volume")).sum().alias("value"),
            pl.col("volume").filter(pl.col("side") > 0).sum().alias("bought"), pl.len().cast(pl.Int64).alias("trades"),
        )
        .rename({"ts": "opened"})
        .sort("opened", "instrument")
    )  # fmt: skip
    assert same.height > 300
    assert bars.select("instrument", "opened", *OHLCV, "bought", "trades").equals(
        same.select("instrument", "opened", *OHLCV, "bought", "trades")
    )
    assert np.allclose(bars["value"], same["value"])


def test_a_tape_of_bars_is_data_for_a_backtest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.store import bars as module

    monkeypatch.setattr(module, "PIECE", 64)  # many sorted runs, whose merge must give what one sort gives
    trades = random_trades(3000)
    frame = fold_bars(trades, interval="1m", empty="flat", until="2023-12-01")
    tape = fold_tape(trades, interval="1m", empty="flat", until="2023-12-01")
    assert len(tape) == frame.height > 5000
    for name in OHLCV:
        assert (tape.events[name] == frame[name].to_numpy()).all()
    names = np.array([info.name for info in tape.instruments])
    assert (names[tape.events["instrument"]] == frame["instrument"].to_numpy()).all()
    assert (tape.events["recv"] == frame["ts"].cast(pl.Int64).to_numpy()).all()
    assert tape.instruments[0].bar_ns == 60 * 10**9
    assert fold_tape(trades, interval="1m", empty="flat", until="2023-12-01").digest == tape.digest


def test_the_vendors_own_bars_binance(real_data: Path) -> None:
    rows = json.loads(gzip.decompress((real_data / "freqtrade/XRP_ETH-trades.json.gz").read_bytes()))
    trades = pl.DataFrame({"ts": [row[0] * 10**6 for row in rows], "price": [float(row[4]) for row in rows],
                           "volume": [float(row[5]) for row in rows]})  # fmt: skip
    for interval in ("1m", "5m"):
        vendor = pl.read_ipc(real_data / f"freqtrade/XRP_ETH-{interval}.feather")
        bars = fold_bars(trades, interval=interval, until="2019-10-13T11:20")
        assert vendor.height > 700
        assert bars["opened"].to_list() == vendor["date"].to_list()
        for name in OHLCV:
            assert np.array_equal(bars[name].round(9), vendor[name].round(9)), name


def test_the_vendors_own_bars_kraken(real_data: Path) -> None:
    """Kraken repeats the last price in minutes without a trade: flat bars."""

    def read(name: str) -> list[Any]:
        rows: list[Any] = json.loads((real_data / f"kraken/http_{name}_XBTUSDT.json").read_text())["result"]["XBTUSDT"]
        return rows

    rows = read("trades")
    trades = pl.DataFrame({"ts": [round(row[2] * 1e9) for row in rows], "price": [float(row[0]) for row in rows],
                           "volume": [float(row[1]) for row in rows]})  # fmt: skip
    bars = fold_bars(trades, empty="flat")
    vendor = {row[0]: row for row in read("ohlc")[:-1]}
    first = rows[0][2] + 60  # the minute in which the trades begin is not whole
    pairs = [(bar, vendor[at]) for bar in bars.iter_rows(named=True)
             if (at := int(bar["opened"].timestamp())) in vendor and at >= first]  # fmt: skip
    assert len(pairs) >= 272
    for bar, row in pairs:
        assert [bar[name] for name in ("open", "high", "low", "close")] == [float(text) for text in row[1:5]]
        assert round(bar["volume"], 8) == float(row[6])
        assert bar["trades"] == row[7]
