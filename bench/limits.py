"""The hand-written limit of each case: one numba loop that knows the strategy, the data and nothing else.

It is no backtester: no orders, no risk, no events, no other strategy. It keeps what a user looks at (equity
curve, fills, drawdown), so that the ratio to it says what generality costs.
"""

from typing import Any

import numba as nb
import numpy as np

from bench import cases, data, measure
from bench.limits_sweep import sweep


@nb.njit(nogil=True)
def crossing(opens, closes, fast, slow, fee, cash, qty, equity, fill_bar, fill_price, fill_qty):
    """SMA cross on one series; returns final equity, trades, drawdown and the moments of returns."""
    quick = total = 0.0
    for i in range(slow):
        total += closes[i]
        quick += closes[i] if i >= slow - fast else 0.0
        equity[i] = cash
    scale = slow / fast
    above = quick * scale > total
    held = 0.0
    wish = trades = fills = 0
    before = peak = cash
    drawdown = first = second = 0.0
    for i in range(slow, closes.size):
        if wish != 0:
            cash -= wish * qty * opens[i] + qty * opens[i] * fee
            held += wish * qty
            trades += wish > 0
            fill_bar[fills], fill_price[fills], fill_qty[fills] = i, opens[i], wish * qty
            fills += 1
            wish = 0
        worth = cash + held * closes[i]
        equity[i] = worth
        change = worth / before - 1.0
        first += change
        second += change * change
        before = worth
        peak = max(peak, worth)
        drawdown = max(drawdown, 1.0 - worth / peak)
        quick += closes[i] - closes[i - fast]
        total += closes[i] - closes[i - slow]
        now = quick * scale > total
        if now != above:
            above = now
            if now:
                wish = 1
            elif held > 0.0:
                wish = -1
    return before, trades, drawdown, first, second


@nb.njit(nogil=True)
def panel_crossing(opens, closes, fast, slow, fee, cash, qty, equity, fill_day, fill_of, fill_price, fill_qty):
    """SMA cross on each column of (days, instruments), one account; returns final equity, trades, drawdown."""
    days, width = closes.shape
    quick, total, held = np.zeros(width), np.zeros(width), np.zeros(width)
    above, wish = np.zeros(width, np.bool_), np.zeros(width, np.int8)
    scale = slow / fast
    trades = fills = 0
    peak = cash
    drawdown = 0.0
    for d in range(days):
        worth = 0.0
        for j in range(width):
            if wish[j] != 0:
                price = opens[d, j]
                cash -= wish[j] * qty * price + qty * price * fee
                held[j] += wish[j] * qty
                trades += wish[j] > 0
                fill_day[fills], fill_of[fills], fill_price[fills], fill_qty[fills] = d, j, price, wish[j] * qty
                fills += 1
                wish[j] = 0
            close = closes[d, j]
            worth += held[j] * close
            quick[j] += close - (closes[d - fast, j] if d >= fast else 0.0)
            total[j] += close - (closes[d - slow, j] if d >= slow else 0.0)
            if d >= slow - 1:
                now = quick[j] * scale > total[j]
                if d >= slow and now != above[j]:
                    wish[j] = 1 if now else (-1 if held[j] > 0.0 else 0)
                above[j] = now
        equity[d] = cash + worth
        peak = max(peak, equity[d])
        drawdown = max(drawdown, 1.0 - equity[d] / peak)
    return equity[days - 1], trades, drawdown


@nb.njit(nogil=True)
def momentum(
    opens, closes, decides, long, skip, best, invested, fee, cash, equity, fill_day, fill_of, fill_price, fill_qty
):
    """12-1 momentum, decided at a close, filled at the next open; returns final equity, orders, drawdown."""
    days, width = closes.shape
    held, target = np.zeros(width), np.zeros(width)
    due = False
    fills = 0
    peak = cash
    drawdown = 0.0
    for d in range(days):
        if due:
            for j in range(width):
                change = target[j] - held[j]
                if change != 0.0:
                    price = opens[d, j]
                    cash -= change * price + abs(change) * price * fee
                    held[j] = target[j]
                    fill_day[fills], fill_of[fills], fill_price[fills], fill_qty[fills] = d, j, price, change
                    fills += 1
            due = False
        worth = cash
        for j in range(width):
            worth += held[j] * closes[d, j]
        equity[d] = worth
        peak = max(peak, worth)
        drawdown = max(drawdown, 1.0 - worth / peak)
        if decides[d] and d >= long:
            target[:] = 0.0
            for j in np.argsort(-(closes[d - skip] / closes[d - long]))[:best]:
                target[j] = worth * invested / best / closes[d, j]
            due = True
    return equity[days - 1], fills, drawdown


def single(n: int) -> tuple[measure.Run, int]:
    """bars-single over the first n bars."""
    columns = data.load(data.SINGLE, n)
    opens, closes = columns["open"], columns["close"]

    def run() -> dict[str, Any]:
        equity = np.empty(closes.size)
        fills = np.empty(closes.size // 8, np.int64), np.empty(closes.size // 8), np.empty(closes.size // 8)
        rules = cases.FAST, cases.SLOW, cases.FEE, cases.CASH, cases.QTY
        final, trades, *_ = crossing(opens, closes, *rules, equity, *fills)
        return {"final_equity": final, "trades": trades}

    return run, closes.size


def fill_table(rows: int) -> tuple[Any, ...]:
    """Day, instrument, price and qty of the fills to come."""
    return np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows), np.empty(rows)


def portfolio(n: int) -> tuple[measure.Run, int]:
    """bars-portfolio over the first n instruments."""
    panel = data.load_panel(n)
    opens, closes = panel["open"], panel["close"]

    def run() -> dict[str, Any]:
        rules = cases.FAST, cases.SLOW, cases.FEE, cases.CASH, cases.QTY
        final, trades, _ = panel_crossing(opens, closes, *rules, np.empty(len(closes)), *fill_table(closes.size // 8))
        return {"final_equity": final, "trades": trades}

    return run, closes.size


def ranked(n: int) -> tuple[measure.Run, int]:
    """bars-momentum over the first n instruments; the first day of a month decides."""
    panel = data.load_panel(n)
    opens, closes = panel["open"], panel["close"]

    def run() -> dict[str, Any]:
        months = panel["time"].astype("M8[M]").astype("i8")
        first = np.append(True, months[1:] != months[:-1])
        rules = cases.LONG_DAYS, cases.SKIP_DAYS, cases.HELD, cases.INVESTED, cases.FEE, cases.CASH
        table = fill_table(closes.size // 8)
        final, orders, _ = momentum(opens, closes, first, *rules, np.empty(len(closes)), *table)
        return {"final_equity": final, "orders": orders}

    return run, closes.size


@nb.njit(nogil=True)
def maker(ts, kind, bid, ask, bid_volume, ask_volume, side, volume, every, feed, delay, most, skew, half, fee, qty):
    """One order a side: prices in ticks, 0 = none. A new pair of prices arrives `delay` + `feed` after its quote."""
    prices, ahead, wanted = np.zeros(2, np.int64), np.zeros(2), np.zeros(2, np.int64)
    held = cash = 0.0
    fills = 0
    due, wake = np.int64(9223372036854775807), np.int64(0)
    for i in range(ts.size):
        now = ts[i]
        if now >= due:
            due = np.int64(9223372036854775807)
            if wanted[0] != prices[0]:
                prices[0] = wanted[0] if wanted[0] < ask[i] else 0
                ahead[0] = bid_volume[i] if prices[0] == bid[i] else (0.0 if prices[0] > bid[i] else 1e18)
            if wanted[1] != prices[1]:
                prices[1] = wanted[1] if wanted[1] > bid[i] else 0
                ahead[1] = ask_volume[i] if prices[1] == ask[i] else (0.0 if prices[1] < ask[i] else 1e18)
        for s in range(2):
            if prices[s] == 0:
                continue
            hit = False
            if kind[i] == 1:
                price = ask[i] if side[i] > 0 else bid[i]
                if (side[i] < 0) == (s == 0):
                    if price == prices[s]:
                        ahead[s] -= volume[i]
                        hit = ahead[s] < 0.0
                    else:
                        hit = price < prices[s] if s == 0 else price > prices[s]
            elif s == 0:
                hit = ask[i] <= prices[0]
                ahead[0] = min(ahead[0], bid_volume[i]) if bid[i] == prices[0] else ahead[0]
                ahead[0] = 0.0 if bid[i] < prices[0] else ahead[0]
            else:
                hit = bid[i] >= prices[1]
                ahead[1] = min(ahead[1], ask_volume[i]) if ask[i] == prices[1] else ahead[1]
                ahead[1] = 0.0 if ask[i] > prices[1] else ahead[1]
            if hit:
                sign = 1.0 if s == 0 else -1.0
                held += sign * qty
                cash -= sign * qty * prices[s] * 0.01 + qty * prices[s] * 0.01 * fee
                prices[s] = 0
                fills += 1
        if kind[i] == 0 and now + feed >= wake and due == 9223372036854775807:
            if every > 0:
                wake = ((now + feed) // every + 1) * every
            fair = 0.5 * (bid[i] + ask[i]) - skew * held
            wanted[0] = min(bid[i], np.int64(np.floor(fair - half))) if held < most else 0
            wanted[1] = max(ask[i], np.int64(np.ceil(fair + half))) if held > -most else 0
            if wanted[0] != prices[0] or wanted[1] != prices[1]:
                due = now + feed + delay
    last = ts.size - 1
    return cash + held * 0.005 * (bid[last] + ask[last]), fills


def making(every_ns: int) -> Any:
    """ticks-mm over the first n events."""

    def prepared(n: int) -> tuple[measure.Run, int]:
        columns = data.load(data.QUOTES, n)
        names = ("ts", "kind", "bid", "ask", "bid_volume", "ask_volume", "side", "volume")

        def run() -> dict[str, Any]:
            rules = (
                every_ns,
                cases.FEED_NS,
                cases.LATENCY_NS,
                cases.MOST,
                cases.SKEW,
                cases.HALF,
                cases.MAKER,
                cases.QTY,
            )
            worth, fills = maker(*(columns[name] for name in names), *rules)
            return {"final_equity": cases.CASH + worth, "fills": fills}

        return run, columns["ts"].size

    return prepared


@nb.njit(nogil=True)
def book_maker(ts, kind, side, price, volume, last, every, feed, delay, most, skew, half, fee, value, low, sides):
    """A book over a range of prices (`sides`: 2 x ticks), one order a side: prices in ticks of that range, 0 = none."""
    top = sides.shape[1] - 1
    sides[:] = 0.0
    best, prices, ahead, wanted = np.array([0, top]), np.zeros(2, np.int64), np.zeros(2), np.zeros(2, np.int64)
    hit = np.zeros(2, np.bool_)
    held = cash = 0.0
    fills = 0
    fresh = False
    due, wake = np.int64(9223372036854775807), np.int64(0)
    for i in range(ts.size):
        if ts[i] >= due:
            due = np.int64(9223372036854775807)
            for s in range(2):
                if wanted[s] != prices[s]:
                    crossing = wanted[s] >= best[1] if s == 0 else wanted[s] <= best[0]
                    prices[s] = 0 if crossing else wanted[s]
                    ahead[s] = sides[s, prices[s]]
        p = price[i]
        hit[:] = False
        if kind[i] == 1:
            s = 0 if side[i] < 0 else 1
            if p == prices[s]:
                ahead[s] -= volume[i]
                hit[s] = ahead[s] < 0.0
            else:
                hit[s] = p < prices[s] if s == 0 else p > prices[s]
        elif 0 < p < top:
            if kind[i] == 2 and not fresh:
                sides[:] = 0.0
                best[0], best[1] = 0, top
            s = 0 if side[i] > 0 else 1
            sides[s, p] = volume[i]
            if prices[s] == p:
                ahead[s] = min(ahead[s], volume[i])
            if s == 0:
                best[0] = max(best[0], p) if volume[i] > 0.0 else best[0]
                while best[0] > 0 and sides[0, best[0]] == 0.0:
                    best[0] -= 1
            else:
                best[1] = min(best[1], p) if volume[i] > 0.0 else best[1]
                while best[1] < top and sides[1, best[1]] == 0.0:
                    best[1] += 1
        fresh = kind[i] == 2
        for s in range(2):
            came = last[i] and prices[s] > 0 and (best[1] <= prices[0] if s == 0 else best[0] >= prices[1])
            if prices[s] > 0 and (came or hit[s]):
                sign = 1.0 if s == 0 else -1.0
                held += sign
                cash -= (sign + fee) * (prices[s] + low) * value
                prices[s] = 0
                fills += 1
        if last[i] and kind[i] != 1 and ts[i] + feed >= wake and due == 9223372036854775807 and best[0] < best[1]:
            wake = ((ts[i] + feed) // every + 1) * every
            fair = 0.5 * (best[0] + best[1]) - skew * held
            wanted[0] = min(best[0], np.int64(np.floor(fair - half))) if held < most else 0
            wanted[1] = max(best[1], np.int64(np.ceil(fair + half))) if held > -most else 0
            if wanted[0] != prices[0] or wanted[1] != prices[1]:
                due = ts[i] + feed + delay
    return cash + held * value * (0.5 * (best[0] + best[1]) + low), fills


def booked(n: int) -> tuple[measure.Run, int]:
    """depth over the first n rows."""
    columns = data.looped(n)
    names, middle = ("ts", "kind", "side", "price", "volume", "last"), int(np.median(columns["price"]))
    low = middle * 4 // 5
    columns["price"] -= low
    sides = np.zeros((2, middle * 2 // 5))
    rules = (cases.SECOND_NS, cases.FEED_NS, cases.LATENCY_NS, cases.MOST, cases.SKEW, cases.HALF, cases.MAKER,
             cases.DEPTH_QTY * cases.DEPTH_TICK, low)  # fmt: skip

    def run() -> dict[str, Any]:
        worth, fills = book_maker(*(columns[name] for name in names), *rules, sides)
        return {"final_equity": cases.CASH + worth, "fills": fills}

    return run, columns["ts"].size


LIMITS = {"depth": booked, "bars-sweep": sweep(1_000), "bars-sweep-10k": sweep(10_000), "bars-single": single,
          "bars-portfolio": portfolio, "bars-momentum": ranked, "ticks-mm": making(cases.SECOND_NS),
          "ticks-mm-every": making(0), "ticks-sweep": making(cases.SECOND_NS)}  # fmt: skip

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*LIMITS[said.case](said.n), f"numba {nb.__version__}", said.warm)
