"""hftbacktest's side of the comparison: `python peer_hftbacktest.py JOB.json OUT.json`, in its own environment.

Nothing of Tandem is imported here. It has no quotes, only levels of a book: a quote becomes the rows that bring the
book from the top before to the new one. Levels behind the touch stay as they were last shown; levels better than the
new top go. Orders are sent as scripted, each at the local time of an event.
"""

import json
import sys
from importlib.metadata import version

import numpy as np
from hftbacktest import (
    BUY_EVENT,
    DEPTH_EVENT,
    EXCH_EVENT,
    GTC,
    GTX,
    LIMIT,
    LOCAL_EVENT,
    MARKET,
    SELL_EVENT,
    TRADE_EVENT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
)
from hftbacktest.order import FOK, IOC
from hftbacktest.types import event_dtype
from numba import njit

BOTH = EXCH_EVENT | LOCAL_EVENT
KINDS = {"gtc": (GTC, LIMIT), "post": (GTX, LIMIT), "ioc": (IOC, LIMIT), "fok": (FOK, LIMIT), "market": (GTC, MARKET)}


def rows_of(events: dict, tick: float) -> np.ndarray:
    """The feed's rows. Where both sides move, the side that makes room goes first, so that no book crosses."""
    rows: list[tuple] = []
    books: list[dict[int, float]] = [{}, {}]

    def move(what: int, ts: int, recv: int, price: int, volume: float, sign: int) -> None:
        book = books[what == SELL_EVENT]
        if price and book.get(price) != volume:
            rows.append((BOTH | DEPTH_EVENT | what, ts, recv, price * tick, volume, 0, 0, 0.0))
            book[price] = volume
        for level in [p for p in book if (p - price) * sign > 0 or not price]:
            rows.append((BOTH | DEPTH_EVENT | what, ts, recv, level * tick, 0.0, 0, 0, 0.0))
            del book[level]

    names = ("ts", "recv", "trade", "bid", "ask", "bid_volume", "ask_volume", "side")
    before = 0
    for ts, recv, trade, bid, ask, bid_volume, ask_volume, side in zip(
        *(events[n].tolist() for n in names), strict=True
    ):
        if trade:
            what = BUY_EVENT if side > 0 else SELL_EVENT
            rows.append((BOTH | TRADE_EVENT | what, ts, recv, bid * tick, bid_volume, 0, 0, 0.0))
            continue
        sides = [(BUY_EVENT, bid, bid_volume, 1), (SELL_EVENT, ask, ask_volume, -1)]
        for what, price, volume, sign in sides if ask <= before else sides[::-1]:
            move(what, ts, recv, price, volume, sign)
        before = ask
    return np.array(rows, event_dtype)


@njit
def play(hbt, at, action, ids, side, price, qty, tif, kind, found):
    """Carry out the script; the number of fills found: rows of id, time at the venue, price in ticks, qty, maker."""
    k, n = 0, 0
    first, last = 1, 0  # orders that may still be filled: answers take longer than the next order
    left = np.zeros(at.size + 2)
    while True:
        status = hbt.wait_next_feed(True, 1_000_000_000_000)
        for live in range(first, last + 1):
            order = hbt.orders(0).get(live)
            if order is not None and order.leaves_qty < left[live]:
                found[n, 0], found[n, 1], found[n, 2] = live, order.exch_timestamp, order.exec_price_tick
                found[n, 3], found[n, 4] = round((left[live] - order.leaves_qty) * 1e8), order.arr[0].maker
                n, left[live] = n + 1, order.leaves_qty
        first = max(first, last - 20)
        if status == 1:
            return n
        if status != 2 and status != 3:
            return -1
        while k < at.size and at[k] <= hbt.current_timestamp:
            if at[k] != hbt.current_timestamp:
                return -2
            if action[k] == 0:
                # To cancel what it knows to be filled would book the fill once more.
                if ids[k] in hbt.orders(0) and hbt.orders(0).get(ids[k]).cancellable:
                    hbt.cancel(0, ids[k], False)
            else:
                last, left[ids[k]] = ids[k], qty[k]
                if side[k] > 0:
                    hbt.submit_buy_order(0, ids[k], price[k], qty[k], tif[k], kind[k], False)
                else:
                    hbt.submit_sell_order(0, ids[k], price[k], qty[k], tif[k], kind[k], False)
            k += 1


def run(job: dict) -> dict:
    """One case: all fills, and the account at the end."""
    events, script = (dict(np.load(job[name])) for name in ("events", "script"))
    kinds = [KINDS[name] for name in job["kinds"]]
    rows = rows_of(events, job["tick"])  # the engine keeps an address only
    instrument = (
        BacktestAsset()
        .data(rows)
        .linear_asset(1.0)
        .constant_order_latency(job["order_ns"], job["report_ns"])
        .no_partial_fill_exchange()
        .trading_value_fee_model(job["maker"], job["taker"])
        .tick_size(job["tick"])
        .lot_size(job["lot"])
        .last_trades_capacity(0)
        .risk_adverse_queue_model()
    )
    hbt = HashMapMarketDepthBacktest([instrument])
    found = np.zeros((4 * script["at"].size + 10, 5), np.int64)
    tif, kind = (np.array([kinds[k][i] for k in script["kind"]], np.int64) for i in (0, 1))
    columns = (script[name] for name in ("at", "action", "id", "side", "price", "qty"))
    n = play(hbt, *columns, tif, kind, found)
    if n < 0:
        raise SystemExit(f"the script went astray ({n})")
    state = hbt.state_values(0)
    account = {name: float(state[name] if isinstance(state, np.void) else getattr(state, name))
               for name in ("position", "balance", "fee")}  # fmt: skip
    hbt.close()
    return {"fills": found[:n].tolist(), **account}


def main(job: str, out: str) -> None:
    """Run all cases of a job."""
    with open(job) as file:
        told = json.load(file)
    cases = {name: run(case) for name, case in told.items()}
    with open(out, "w") as file:
        json.dump({"version": version("hftbacktest"), "cases": cases}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
