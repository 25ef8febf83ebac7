"""The hand-written limit of each case: one numba loop that knows the strategy, the data and nothing else.

It is no backtester: no orders, no risk, no events, no other strategy. It keeps what a user looks at (equity
curve, fills, drawdown), so that the ratio to it says what generality costs.
"""

from typing import Any

import numba as nb
import numpy as np

from bench import cases, data, measure


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


LIMITS = {"bars-single": single, "bars-portfolio": portfolio, "bars-momentum": ranked}

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*LIMITS[said.case](said.n), f"numba {nb.__version__}", said.warm)
