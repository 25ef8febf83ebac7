"""hftbacktest, Rust with strategies in numba: quotes become rows of its own feed, outside the timed part.

A change of a quote is up to four rows: the new level first, then the old one at zero. Its clock stands still between
two calls, so the rule runs once a second or after each feed event, as the case says.
"""

from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EXCH_EVENT,
    GTX,
    LIMIT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
    ROIVectorMarketDepthBacktest,
)
from hftbacktest.types import event_dtype
from numba import njit

from bench import cases, data, measure

BOTH = EXCH_EVENT | LOCAL_EVENT
TICK, QTY, MOST, SKEW, HALF = cases.TICK, cases.QTY, cases.MOST, cases.SKEW, cases.HALF
DEPTH_TICK, DEPTH_QTY = cases.DEPTH_TICK, cases.DEPTH_QTY


@njit
def put(rows, k, what, ts, price, volume, feed):
    """One row; the number of the next."""
    rows[k].ev = BOTH | what
    rows[k].exch_ts = ts
    rows[k].local_ts = ts + feed
    rows[k].px = price * TICK
    rows[k].qty = volume
    return k + 1


@njit
def side_rows(rows, k, what, ts, price, volume, old_price, old_volume, feed):
    """The rows that bring one side of the book from the old top to the new one."""
    if price == old_price and volume == old_volume:
        return k
    k = put(rows, k, DEPTH_EVENT | what, ts, price, volume, feed)
    if price != old_price and old_price > 0:
        k = put(rows, k, DEPTH_EVENT | what, ts, old_price, 0.0, feed)
    return k


@njit
def convert(ts, kind, bid, ask, bid_volume, ask_volume, side, volume, feed, rows):
    """Quotes and trades as feed rows; the side that makes room goes first, so that the book never crosses."""
    k = 0
    b = a = 0
    bv = av = 0.0
    for i in range(ts.size):
        if kind[i] == 1:
            what = TRADE_EVENT | (BUY_EVENT if side[i] > 0 else SELL_EVENT)
            k = put(rows, k, what, ts[i], ask[i] if side[i] > 0 else bid[i], volume[i], feed)
            continue
        if ask[i] > a:
            k = side_rows(rows, k, SELL_EVENT, ts[i], ask[i], ask_volume[i], a, av, feed)
            k = side_rows(rows, k, BUY_EVENT, ts[i], bid[i], bid_volume[i], b, bv, feed)
        else:
            k = side_rows(rows, k, BUY_EVENT, ts[i], bid[i], bid_volume[i], b, bv, feed)
            k = side_rows(rows, k, SELL_EVENT, ts[i], ask[i], ask_volume[i], a, av, feed)
        b, a, bv, av = bid[i], ask[i], bid_volume[i], ask_volume[i]
    return k


@njit
def keep(hbt, mine, s, price):
    """One side: `mine` holds [last id, buy id, buy price, sell id, sell price], prices in ticks, 0 = none."""
    at = 1 + 2 * s
    if mine[at] > 0 and mine[at] not in hbt.orders(0):
        mine[at] = 0
        mine[at + 1] = 0
    if price == mine[at + 1]:
        return
    if mine[at] > 0 and hbt.orders(0).get(mine[at]).cancellable:
        hbt.cancel(0, mine[at], False)
    mine[at] = 0
    mine[at + 1] = 0
    if price > 0:
        mine[0] += 1
        if s == 0:
            hbt.submit_buy_order(0, mine[0], price * TICK, QTY, GTX, LIMIT, False)
        else:
            hbt.submit_sell_order(0, mine[0], price * TICK, QTY, GTX, LIMIT, False)
        mine[at] = mine[0]
        mine[at + 1] = price


@njit
def quote(hbt, mine):
    """The rule of the case."""
    depth = hbt.depth(0)
    bid, ask = depth.best_bid_tick, depth.best_ask_tick
    if bid <= 0 or bid >= ask or ask > 1_000_000_000:
        return
    held = hbt.position(0)
    fair = 0.5 * (bid + ask) - SKEW * held
    hbt.clear_inactive_orders(0)
    keep(hbt, mine, 0, min(bid, np.int64(np.floor(fair - HALF))) if held < MOST else 0)
    keep(hbt, mine, 1, max(ask, np.int64(np.ceil(fair + HALF))) if held > -MOST else 0)


@njit
def each_second(hbt):
    """Once a second."""
    mine = np.zeros(5, np.int64)
    while hbt.elapse(1_000_000_000) == 0:
        quote(hbt, mine)


@njit
def each_event(hbt):
    """After each event of the feed."""
    mine = np.zeros(5, np.int64)
    while True:
        status = hbt.wait_next_feed(False, 10_000_000_000)
        if status != 0 and status != 2:
            break
        quote(hbt, mine)


def making(rule: Any, engine: str, n: int) -> tuple[measure.Run, int]:
    """The maker under one rule, on one of its two books."""
    columns = data.load(data.QUOTES, n)
    size = columns["ts"].size
    rows = np.zeros(4 * size, event_dtype)
    names = ("ts", "kind", "bid", "ask", "bid_volume", "ask_volume", "side", "volume")
    rows = rows[: convert(*(columns[name] for name in names), cases.FEED_NS, rows)].copy()

    def run() -> dict[str, Any]:
        instrument = (
            BacktestAsset()
            .data(rows)
            .linear_asset(1.0)
            .constant_order_latency(cases.LATENCY_NS, cases.LATENCY_NS)
            .no_partial_fill_exchange()
            .trading_value_fee_model(cases.MAKER, cases.TAKER)
            .tick_size(TICK)
            .lot_size(1.0)
            .last_trades_capacity(0)
            .risk_adverse_queue_model()
        )
        if engine == "roi":
            hbt = ROIVectorMarketDepthBacktest([instrument.roi_lb(50.0).roi_ub(150.0)])
        else:
            hbt = HashMapMarketDepthBacktest([instrument])
        rule(hbt)
        state = hbt.state_values(0)
        middle = 0.5 * (hbt.depth(0).best_bid + hbt.depth(0).best_ask)
        done = {"final_equity": cases.CASH + state.balance - state.fee + state.position * middle,
                "fills": state.num_trades}  # fmt: skip
        hbt.close()
        return done

    return run, size


@njit
def convert_depth(ts, kind, side, price, volume, feed, rows):
    """The recorded book and its trades as feed rows; a snapshot clears both sides first."""
    k = 0
    fresh = False
    for i in range(ts.size):
        if kind[i] == 2 and not fresh:
            k = put(rows, k, DEPTH_CLEAR_EVENT | BUY_EVENT, ts[i], 0, 0.0, feed)
            k = put(rows, k, DEPTH_CLEAR_EVENT | SELL_EVENT, ts[i], 0, 0.0, feed)
            rows[k - 2].px = rows[k - 1].px = np.nan
        fresh = kind[i] == 2
        what = TRADE_EVENT if kind[i] == 1 else DEPTH_SNAPSHOT_EVENT if kind[i] == 2 else DEPTH_EVENT
        k = put(rows, k, what | (BUY_EVENT if side[i] > 0 else SELL_EVENT), ts[i], 0, volume[i], feed)
        rows[k - 1].px = price[i] / 10.0
    return k


@njit
def keep_depth(hbt, mine, s, price):
    """`keep` with the tick and the quantity of the recorded instrument."""
    at = 1 + 2 * s
    if mine[at] > 0 and mine[at] not in hbt.orders(0):
        mine[at] = 0
        mine[at + 1] = 0
    if price == mine[at + 1]:
        return
    if mine[at] > 0 and hbt.orders(0).get(mine[at]).cancellable:
        hbt.cancel(0, mine[at], False)
    mine[at] = 0
    mine[at + 1] = 0
    if price > 0:
        mine[0] += 1
        if s == 0:
            hbt.submit_buy_order(0, mine[0], price * DEPTH_TICK, DEPTH_QTY, GTX, LIMIT, False)
        else:
            hbt.submit_sell_order(0, mine[0], price * DEPTH_TICK, DEPTH_QTY, GTX, LIMIT, False)
        mine[at] = mine[0]
        mine[at + 1] = price


@njit
def each_second_depth(hbt):
    """The rule of the case, once a second."""
    mine = np.zeros(5, np.int64)
    while hbt.elapse(1_000_000_000) == 0:
        depth = hbt.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        if bid <= 0 or bid >= ask or ask > 1_000_000_000:
            continue
        held = hbt.position(0) / DEPTH_QTY
        fair = 0.5 * (bid + ask) - SKEW * held
        hbt.clear_inactive_orders(0)
        keep_depth(hbt, mine, 0, min(bid, np.int64(np.floor(fair - HALF))) if held < MOST else 0)
        keep_depth(hbt, mine, 1, max(ask, np.int64(np.ceil(fair + HALF))) if held > -MOST else 0)


@njit
def only_time(hbt):
    """The book alone."""
    while hbt.elapse(1_000_000_000) == 0:
        pass


def booked(engine: str, n: int) -> tuple[measure.Run, int]:
    """The recorded book, with the maker or alone; prices outside of the region of interest are dropped by it."""
    columns = data.looped(n)
    size = columns["ts"].size
    rows = np.zeros(size + 100_000, event_dtype)
    names = ("ts", "kind", "side", "price", "volume")
    rows = rows[: convert_depth(*(columns[name] for name in names), cases.FEED_NS, rows)].copy()
    middle = float(np.median(columns["price"])) * DEPTH_TICK

    def run() -> dict[str, Any]:
        instrument = (
            BacktestAsset()
            .data(rows)
            .linear_asset(1.0)
            .constant_order_latency(cases.LATENCY_NS, cases.LATENCY_NS)
            .no_partial_fill_exchange()
            .trading_value_fee_model(cases.MAKER, cases.TAKER)
            .tick_size(DEPTH_TICK)
            .lot_size(cases.DEPTH_LOT)
            .last_trades_capacity(0)
            .risk_adverse_queue_model()
            .roi_lb(0.8 * middle)
            .roi_ub(1.2 * middle)
        )
        hbt = ROIVectorMarketDepthBacktest([instrument])
        (only_time if engine == "roi-book" else each_second_depth)(hbt)
        state = hbt.state_values(0)
        last = 0.5 * (hbt.depth(0).best_bid + hbt.depth(0).best_ask)
        done = {"final_equity": cases.CASH + state.balance - state.fee + state.position * last,
                "fills": state.num_trades}  # fmt: skip
        hbt.close()
        return done

    return run, size


CASES = {"depth": booked, "ticks-mm": partial(making, each_second), "ticks-mm-every": partial(making, each_event),
         "ticks-sweep": partial(making, each_second)}  # fmt: skip

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*CASES[said.case](said.engine, said.n), version("hftbacktest"), said.warm)
