"""The hand-written limit of the sweeps: the loop of bars-single for many lanes, a thread for each core."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba as nb
import numpy as np

from bench import cases, data, measure


@nb.njit(nogil=True)
def crossings(opens, closes, fasts, slows, fee, cash, qty, low, high, out):
    """Lanes low to high, without curves and fills: final equity, trades, drawdown and moments of each into `out`."""
    for lane in range(low, high):
        fast, slow = fasts[lane], slows[lane]
        quick = total = 0.0
        for i in range(slow):
            total += closes[i]
            quick += closes[i] if i >= slow - fast else 0.0
        scale = slow / fast
        above = quick * scale > total
        held = first = second = drawdown = 0.0
        wish = trades = 0
        before = peak = money = cash
        for i in range(slow, closes.size):
            if wish != 0:
                money -= wish * qty * opens[i] + qty * opens[i] * fee
                held += wish * qty
                trades += wish > 0
                wish = 0
            worth = money + held * closes[i]
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
                wish = 1 if now else (-1 if held > 0.0 else 0)
        out[lane, 0], out[lane, 1], out[lane, 2], out[lane, 3], out[lane, 4] = before, trades, drawdown, first, second


def sweep(lanes: int) -> Any:
    """bars-sweep: a range of the lanes for each of two threads."""

    def prepared(n: int) -> tuple[measure.Run, int]:
        columns = data.load(data.SINGLE, cases.SWEEP_BARS)
        fasts, slows = (np.array(column) for column in zip(*cases.grid(lanes), strict=True))
        rules = columns["open"], columns["close"], fasts, slows, cases.FEE, cases.CASH, cases.QTY

        def run() -> dict[str, Any]:
            out = np.empty((lanes, 5))
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda half: crossings(*rules, half * lanes // 2, (half + 1) * lanes // 2, out), (0, 1)))
            return {"final_equity": out[:, 0].sum(), "trades": out[:, 1].sum()}

        return run, lanes * cases.SWEEP_BARS

    return prepared
