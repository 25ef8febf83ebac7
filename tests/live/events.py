"""Events for the tests of the wires: hand-made rows and a hypothesis strategy over everything that can be sent."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live.codec import Names

NAMES = Names(("AAPL", "IBM", "MSFT"))
BASE = 1_700_000_000_000_000_000
PRICES = st.floats(0.01, 1e6)
VOLUMES = st.floats(0.0, 1e9)
BITS = st.sampled_from([0, 1])
SIDES = st.sampled_from([-1, 0, 1])
FIELDS: dict[int, dict[str, Any]] = {
    codes.QUOTE: {"bid": PRICES, "ask": PRICES, "bid_volume": VOLUMES, "ask_volume": VOLUMES},
    codes.TRADE: {"price": PRICES, "traded": VOLUMES, "side": SIDES},
    codes.DEPTH: {"price": PRICES, "traded": VOLUMES, "side": st.sampled_from([-1, 1]), "last": BITS},
    codes.BAR: {"open": PRICES, "high": PRICES, "low": PRICES, "close": PRICES, "volume": VOLUMES},
    codes.FUNDING: {"amount": st.floats(-0.1, 0.1)}, codes.SPLIT: {"amount": st.floats(0.1, 20.0)},
    codes.DIVIDEND: {"amount": st.floats(0.0, 10.0)},
}  # fmt: skip


@st.composite
def events(draw: Any, most: int = 20) -> Any:
    """Rows of market data, times growing."""
    rows = np.zeros(draw(st.integers(0, most)), Event.dtype)
    for n, row in enumerate(rows):
        kind = draw(st.sampled_from(sorted(FIELDS)))
        row["ts"], row["kind"], row["source"] = BASE + n, kind, 7
        row["instrument"] = draw(st.integers(0, 2))
        row["code"] = draw(st.integers(0, 1)) if kind == codes.DEPTH else 0
        for name, values in FIELDS[kind].items():
            row[name] = draw(values)
    return rows


def quote(ts: int = 0, instrument: int = 0, bid: float = 10.0, ask: float = 10.1) -> Any:
    """One quote."""
    rows = np.zeros(1, Event.dtype)
    row = rows[0]
    row["ts"], row["kind"], row["instrument"] = BASE + ts, codes.QUOTE, instrument
    row["bid"], row["ask"], row["bid_volume"], row["ask_volume"] = bid, ask, 100.0, 100.0
    return rows


def quotes(count: int, start: int = 0) -> Any:
    """Quotes of the first instrument, one ns apart; `bid_volume` is their number."""
    rows = np.repeat(quote().view("V64"), count).view(Event.dtype)
    rows["ts"] = BASE + start + np.arange(count)
    rows["bid_volume"] = start + np.arange(count)
    return rows


def order(number: int, action: int = codes.NEW, instrument: int = 0, qty: int = 5, price: float = 10.0) -> Any:
    """One limit order to buy."""
    rows = np.zeros(1, Order.dtype)
    small = number % 10**9
    rows[0] = (number, small * 10, BASE + small, qty, price, 0.0, instrument, 0, action, codes.BUY, codes.LIMIT,
               codes.GTC, codes.POST_ONLY, 0, 0)  # fmt: skip
    return rows


def report(exec_id: int, order_id: int = 1, code: int = codes.ACK, qty: int = 0, price: float = 0.0,
           fee: float = 0.0) -> Any:  # fmt: skip
    """One execution report."""
    rows = np.zeros(1, Event.dtype)
    row = rows[0]
    row["ts"], row["kind"], row["code"], row["order_id"] = BASE + exec_id, codes.REPORT, code, order_id
    row["exec_id"], row["qty"], row["price"], row["fee"] = exec_id, qty, price, fee
    return rows


def same(a: Any, b: Any) -> bool:
    """Whether rows have the same bytes, but for the receiver's time."""
    a, b = a.view("V64").copy().view(a.dtype), b.view("V64").copy().view(b.dtype)
    if a.dtype == Event.dtype:
        a["recv"] = b["recv"] = 0
    return bool(a.tobytes() == b.tobytes())
