"""Round trips: against a queue written out by hand, and against the account's own money."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.trades import Fills, round_trips, trade_metrics
from engine.kernel import codes

FILLS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 1), st.integers(-9, 9).filter(bool), st.integers(1, 50), st.integers(0, 3)
    ),
    max_size=40,
)


def columns(rows: list[tuple[int, int, int, int, int]], one_order: bool = False) -> Fills:
    """Fills out of (instrument, strategy, lots, price, fee)."""
    n = len(rows)
    table = np.array(rows, "i8").reshape(n, 5)
    orders = np.ones(n, "i8") if one_order else np.arange(1, n + 1)
    return Fills(
        np.arange(n), table[:, 0], table[:, 1], table[:, 2], table[:, 3] * 1.0, table[:, 4] * 1.0, orders, np.arange(n)
    )


def by_hand(rows: list[tuple[int, int, int, int, int]]) -> list[tuple[Any, ...]]:
    """The same with one queue of open pieces for each strategy and instrument."""
    queues: dict[tuple[int, int], deque[list[int]]] = {}
    done = []
    for i, (instrument, strategy, lots, _, _) in enumerate(rows):
        queue = queues.setdefault((strategy, instrument), deque())
        rest = lots
        while rest and queue and queue[0][1] * rest < 0:
            entry, held = queue[0]
            size = min(abs(held), abs(rest))
            done.append((strategy, instrument, entry, i, size, 1 if held > 0 else -1))
            queue[0][1] -= size if held > 0 else -size
            rest -= size if rest > 0 else -size
            if queue[0][1] == 0:
                queue.popleft()
        if rest:
            queue.append([i, rest])
    for (strategy, instrument), queue in queues.items():
        done += [(strategy, instrument, entry, -1, abs(held), 1 if held > 0 else -1) for entry, held in queue]
    return sorted(done)


@given(FILLS)
def test_first_in_first_out(rows: list[tuple[int, int, int, int, int]]) -> None:
    fills = columns(rows)
    trips = round_trips(fills, np.ones(3), np.ones(3), np.full(3, 7.0), 99)
    leave = np.where(trips.open, -1, trips.exit_ts)
    found = zip(trips.strategy, trips.instrument, trips.entry_ts, leave, trips.qty, trips.side, strict=True)
    assert sorted(tuple(int(v) for v in trip) for trip in found) == by_hand(rows)


@given(FILLS)
def test_profits_are_the_change_of_money(rows: list[tuple[int, int, int, int, int]]) -> None:
    fills = columns(rows)
    last = np.array([3.0, 5.0, 7.0])
    worth = np.array([1.0, 10.0, 0.5])
    lot = np.array([1.0, 0.1, 100.0])
    trips = round_trips(fills, lot, worth, last, 99)
    unit = (lot * worth)[fills.instrument]
    cash = -(fills.lots * fills.price * unit).sum() - fills.fee.sum()
    held = (fills.lots * unit * last[fills.instrument]).sum()
    assert trips.pnl.sum() == pytest.approx(cash + held, abs=1e-7)
    assert trips.fees.sum() == pytest.approx(fills.fee.sum(), abs=1e-9)


@given(FILLS)
def test_one_order_is_one_trade(rows: list[tuple[int, int, int, int, int]]) -> None:
    """However a venue cuts two orders into pieces, a buy and a sell are one trade at average prices."""
    sizes = [(abs(lots), price, fee) for _, _, lots, price, fee in rows]
    if not sizes:
        return
    total = sum(s for s, _, _ in sizes)
    fills = columns([(0, 0, s, p, f) for s, p, f in sizes] + [(0, 0, -total, 20, 2)])
    fills = fills._replace(order_id=np.array([1] * len(sizes) + [2]))
    trips = round_trips(fills, np.ones(1), np.ones(1), np.ones(1), 99)
    assert len(trips.pnl) == 1
    assert trips.qty[0] == total
    assert trips.entry_price[0] == pytest.approx(sum(s * p for s, p, _ in sizes) / total)


def test_reversal_closes_and_opens(book: Any) -> None:
    tape = book["tape"]([[10.0], [12.0], [11.0], [9.0]])
    Fill = book["fill"]
    result = book["run"](tape, [Fill(0, 0, 5, 10.0, 1.0), Fill(1, 0, -8, 12.0, 1.6), Fill(3, 0, 3, 9.0)])
    trades = result.trades
    assert trades["side"].to_list() == ["long", "short"]
    assert trades["qty"].to_list() == [5.0, 3.0]
    assert trades["fees"].to_list() == pytest.approx([2.0, 0.6])
    assert trades["pnl"].to_list() == pytest.approx([8.0, 8.4])
    assert trades["return"].to_list() == pytest.approx([8.0 / 50, 8.4 / 36])
    assert trades["bars"].to_list() == [1, 2]
    assert trades["open"].to_list() == [False, False]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-7, 7).filter(bool), st.integers(0, 1)), max_size=12),
    st.dictionaries(st.integers(1, 9), st.sampled_from([2.0, 1.5, 0.1, 1 / 3]), max_size=2),
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 2.0)), max_size=3),
)
def test_money_is_conserved_through_splits_and_dividends(book: Any, trades: Any, splits: Any, dividends: Any) -> None:
    prices = 50.0 + np.arange(10.0)
    for row, ratio in splits.items():
        prices[row:] /= ratio
    actions = [(row, 0, codes.SPLIT, ratio) for row, ratio in splits.items()]
    actions += [(row, 0, codes.DIVIDEND, cash) for row, cash in dividends if row not in splits]
    tape = book["tape"](prices, actions=actions)
    fills = [book["fill"](row, 0, lots, float(prices[row]), 0.5, strategy) for row, lots, strategy in sorted(trades)]
    result = book["run"](tape, fills, strategies=("a", "b"))
    change = float(result.raw["curve"]["equity"][-1]) - 10_000.0
    assert result.trips.pnl.sum() == pytest.approx(change, abs=1e-6)
    held = result.positions["qty"].to_list()
    gross = float(result.raw["curve"]["gross"][-1])
    if len({s for _, _, s in trades}) == 1:
        assert abs(held[-1]) * prices[-1] == pytest.approx(gross, abs=1e-6)


def test_figures_of_trades() -> None:
    rows = [(0, 0, lots, price, 0) for out in (14, 4, 15) for lots, price in ((1, 10), (-1, out))]
    trips = round_trips(columns([*rows, (0, 0, 2, 10, 0)]), np.ones(1), np.ones(1), np.ones(1), 9)
    found = trade_metrics(trips, 0.0)
    expected = {"trades": 3, "open_trades": 1, "win_rate": 2 / 3, "profit_factor": 1.5, "expectancy": 1.0,
                "average_win": 4.5, "average_loss": -6.0, "best_trade": 0.5, "worst_trade": -0.6, "average_trade": 0.1,
                "sqn": 3**0.5 * 1.0 / np.std([4, -6, 5], ddof=1)}  # fmt: skip
    assert {k: found[k] for k in expected} == pytest.approx(expected)


def test_no_trades() -> None:
    found = trade_metrics(round_trips(columns([]), np.ones(1), np.ones(1), np.ones(1), 9), 0.0)
    assert found["trades"] == 0
    assert np.isnan([found[k] for k in ("win_rate", "profit_factor", "expectancy", "sqn", "best_trade")]).all()
