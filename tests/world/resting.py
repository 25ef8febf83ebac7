"""Scripted orders on quotes and trades, and one page of plain Python that says what becomes of each.

The page is neither engine: it is what both say they do. The rules in which they differ are switches (`RULES`), each
as hftbacktest has it when it is on, and as Tandem has it when it is off.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Quote, Trade
from engine.kernel.layout import Array
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.tape import Events

ROOM = 8192
KINDS = ("gtc", "post", "ioc", "fok", "market")
RULES = {
    "whole": "a fill is always of the whole order; here it is of what was traded, or is shown",
    "behind": "behind the touch an order joins behind what was last shown there; here behind all that is shown next",
}


@dataclass(frozen=True)
class Asked:
    """One order of a script: sent at event `sent`, cancelled at event `ended`; price in ticks, qty in lots."""

    sent: int
    ended: int
    side: int
    kind: str
    price: int
    qty: int


@dataclass(frozen=True)
class Market:
    """Columns of a tape as plain lists: prices in ticks, volumes in lots; a trade has them under bid. `top` is the
    place of the latest quote."""

    ts: list[int]
    recv: list[int]
    trade: list[bool]
    bid: list[int]
    ask: list[int]
    bid_volume: list[int]
    ask_volume: list[int]
    side: list[int]
    top: list[int]


def market(events: Events, tick: float, lot: float) -> Market:
    """A tape of quotes and trades as plain columns."""
    trade = events["kind"] == codes.TRADE
    whole = {"bid": tick, "ask": tick, "bid_volume": lot, "ask_volume": lot}
    found = {}
    for name, step in whole.items():
        other = {"bid": "price", "bid_volume": "traded"}.get(name)
        values = np.where(trade, events[other] if other else 0.0, events[name]) / step
        found[name] = np.rint(values).astype("i8").tolist()
        assert np.abs(values - found[name]).max() < 1e-3
    top = np.maximum.accumulate(np.where(trade, 0, np.arange(len(events))))
    side = np.where(trade, events["side"], 0)
    return Market(events["ts"].tolist(), events["recv"].tolist(), trade.tolist(), side=side.tolist(), top=top.tolist(),
                  **found)  # fmt: skip


def script(m: Market, seed: int, plain: bool, answer_ns: int) -> list[Asked]:
    """Orders one after another, each where the market stands: at the touch, inside it, behind it, across it.

    None is cancelled within `answer_ns`: hftbacktest cannot cancel what is not acknowledged, and we can.
    `plain`: of one lot, never behind the touch, never more than is shown: nothing in which the engines differ.
    """
    rng = np.random.default_rng(seed)
    found: list[Asked] = []
    at = 10
    while at < len(m.ts) - 2000 and len(found) < ROOM // 2 - 2:
        quote = m.top[at]
        side, spread = int(rng.choice((-1, 1))), m.ask[quote] - m.bid[quote]
        own = m.bid[quote] if side > 0 else m.ask[quote]
        kind = str(rng.choice(KINDS, p=(0.45, 0.3, 0.1, 0.05, 0.1)))
        away = int(rng.choice((0, 1, spread, -1, -2, -3), p=(0.5, 0.15, 0.15, 0.1, 0.05, 0.05)))
        if plain:
            away, qty = max(0, away), 1
        else:
            qty = 1 + int(rng.pareto(0.7) * 3) % 2000
        ended = max(at + int(rng.integers(1, 300)), bisect_right(m.recv, m.recv[at] + answer_ns))
        found.append(Asked(at, ended, side, kind, own + side * away, qty))
        at = ended + int(rng.integers(2, 20))
    return found


class Scripted(Strategy):
    """Sends and cancels what its tables say, each at its event. The tables are filled before the run."""

    due: Array[int, ROOM]
    side: Array[int, ROOM]  # 0: cancel
    kind: Array[int, ROOM]
    price: Array[float, ROOM]
    qty: Array[float, ROOM]
    ids: Array[int, ROOM]
    row: int
    seen: int

    def act(self, ctx: Ctx) -> None:
        while self.due[self.row] == self.seen and self.due[self.row] > 0:
            k, side = self.row, self.side[self.row]
            self.row = k + 1
            if side == 0:
                ctx.cancel(self.ids[k - 1])
                continue
            kind, price = self.kind[k], self.price[k]
            tif = codes.IOC if kind == 2 else codes.FOK if kind == 3 else codes.GTC
            mask = codes.POST_ONLY if kind == 1 else 0
            limit = 0.0 if kind == 4 else price
            if side > 0:
                self.ids[k] = ctx.buy(self.qty[k], limit, 0.0, tif, mask)
            else:
                self.ids[k] = ctx.sell(self.qty[k], limit, 0.0, tif, mask)
        self.seen += 1

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.act(ctx)

    def on_trade(self, trade: Trade, ctx: Ctx) -> None:
        self.act(ctx)


def fill_tables(strategy: Any, asked: list[Asked], tick: float, lot: float) -> None:
    """The script into the state of a strategy."""
    for n, one in enumerate(asked):
        k = 2 * n
        strategy.due[k], strategy.due[k + 1] = one.sent, one.ended
        strategy.side[k], strategy.kind[k] = one.side, KINDS.index(one.kind)
        strategy.price[k], strategy.qty[k] = one.price * tick, one.qty * lot


Fill = tuple[int, int, int, bool]  # time at the venue, price in ticks, lots, maker


def last_shown(m: Market, before: int, side: int, price: int) -> int:
    """The volume that was last shown at a price behind the touch, 0 when the market has been beyond it since."""
    own, volume = (m.bid, m.bid_volume) if side > 0 else (m.ask, m.ask_volume)
    for i in range(before, -1, -1):
        if m.trade[i]:
            continue
        if own[i] == price:
            return volume[i]
        if (own[i] - price) * side < 0:
            return 0
    return 0


def becomes(o: Asked, m: Market, order_ns: int, theirs: frozenset[str]) -> list[Fill]:
    """The fills of one order."""
    arrives, goes = m.recv[o.sent] + order_ns, m.recv[o.ended] + order_ns
    own, own_volume = (m.bid, m.bid_volume) if o.side > 0 else (m.ask, m.ask_volume)
    other, other_volume = (m.ask, m.ask_volume) if o.side > 0 else (m.bid, m.bid_volume)
    first = bisect_right(m.ts, arrives)
    q, left, found = m.top[first - 1], o.qty, []

    def fill(ts: int, price: int, lots: int, maker: bool) -> int:
        lots = left if "whole" in theirs and lots > 0 else min(left, lots)
        if lots > 0:
            found.append((ts, price, lots, maker))
        return left - max(0, lots)

    ahead: float = 0.0
    taking = o.kind == "market" or (o.price - other[q]) * o.side >= 0
    if taking and o.kind != "post" and ("whole" in theirs or o.kind != "fok" or o.qty <= other_volume[q]):
        left = fill(arrives, other[q], other_volume[q], False)
    elif not taking and o.price == own[q]:
        ahead = own_volume[q]
    elif not taking and (o.price - own[q]) * o.side < 0:
        ahead = last_shown(m, first - 1, o.side, o.price) if "behind" in theirs else math.inf
    if o.kind in ("ioc", "fok") or (taking and o.kind == "post"):
        return found
    for i in range(first, len(m.ts)):
        ts, maker = m.ts[i], o.kind != "market"
        if ts > goes or left == 0:
            break
        if not m.trade[i]:
            if not maker:
                left = fill(ts, other[i], other_volume[i], False)
                continue
            worse = (own[i] - o.price) * o.side
            ahead = min(ahead, own_volume[i]) if worse == 0 else 0.0 if worse < 0 else ahead
            if (o.price - other[i]) * o.side >= 0:
                left = fill(ts, o.price, other_volume[i], True)
        elif maker and m.side[i] == -o.side and (o.price - m.bid[i]) * o.side >= 0:
            traded = m.bid_volume[i]
            if o.price != m.bid[i]:
                left, ahead = fill(ts, o.price, traded, True), 0.0
                continue
            left = fill(ts, o.price, int(traded - ahead) if ahead < traded else 0, True)
            ahead = max(0.0, ahead - traded)
    return found


def by_time(fills: list[Fill]) -> dict[int, int]:
    """Lots by time: several at one moment are one."""
    found: dict[int, int] = {}
    for ts, _, lots, _ in fills:
        found[ts] = found.get(ts, 0) + lots
    return found
