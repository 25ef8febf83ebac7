"""What a strategy sees and says: the context of a handler, and its verbs.

Law: a signal has no effect until it has passed risk, at the end of the dispatch.

In every verb:
  instrument   -1 means that of the event at hand
  priority     the higher goes first, of all wishes of an event; -128 to 127
  life_ms      milliseconds after which the wish is void, 0 = never: an order ends at its venue (good till that time),
               a cancel that reaches the venue later has no effect; at most 49 days
"""

import math

from engine.kernel import codes
from engine.kernel.books import Book, books, halves, key_of, price_of
from engine.kernel.levels import NONE, Half, below, level, volume_at
from engine.kernel.primitives import Behind, hot
from engine.kernel.records import Kernel, desks, instruments, markets, open_orders, positions
from engine.kernel.wishes import Caller, keep, queue, queue_cancel, queue_order, queue_replace, queue_target

CTX_BYTES = 64  # Ctx comes first in the arena, Kernel follows


class Ctx(Caller):
    """The second argument of every handler: what is known now, and the verbs.

    `now` is the time of the event (ns UTC), `instrument` its index, `strategy` our own.
    """

    @property
    def instruments(self) -> int:
        """How many instruments there are."""
        return kernel_of(self).instruments

    @property
    def position(self) -> float:
        """What this strategy holds of the instrument, in units, signed."""
        k = kernel_of(self)
        return positions(k, self.strategy * k.instruments + self.instrument).qty * instruments(k, self.instrument).lot

    @property
    def pending(self) -> float:
        """Units, signed, still open in orders that work towards this strategy's target."""
        k = kernel_of(self)
        return (
            positions(k, self.strategy * k.instruments + self.instrument).pending * instruments(k, self.instrument).lot
        )

    @property
    def entry_price(self) -> float:
        """Average price of the position, 0 when flat."""
        k = kernel_of(self)
        return positions(k, self.strategy * k.instruments + self.instrument).average

    @property
    def equity(self) -> float:
        """Cash plus positions at their last prices."""
        k = kernel_of(self)
        return k.cash + k.value

    @property
    def cash(self) -> float:
        """Cash of the account."""
        return kernel_of(self).cash

    def position_of(self, instrument: int) -> float:
        """What this strategy holds of any instrument, in units, signed."""
        k = kernel_of(self)
        if not 0 <= instrument < k.instruments:
            raise IndexError("position_of: no such instrument")
        return positions(k, self.strategy * k.instruments + instrument).qty * instruments(k, instrument).lot

    def mark(self, instrument: int) -> float:
        """Last price of any instrument, 0 before its first."""
        k = kernel_of(self)
        if not 0 <= instrument < k.instruments:
            raise IndexError("mark: no such instrument")
        return markets(k, instrument).mark

    @property
    def bid(self) -> float:
        """Best bid of the instrument, 0 when there is none."""
        return markets(kernel_of(self), self.instrument).bid

    @property
    def ask(self) -> float:
        """Best ask, 0 when there is none."""
        return markets(kernel_of(self), self.instrument).ask

    @property
    def bid_volume(self) -> float:
        """Volume shown at the best bid, units."""
        return markets(kernel_of(self), self.instrument).bid_volume

    @property
    def ask_volume(self) -> float:
        """Volume shown at the best ask, units."""
        return markets(kernel_of(self), self.instrument).ask_volume

    @property
    def mid(self) -> float:
        """Middle of the quote; the last price while one side is missing."""
        m = markets(kernel_of(self), self.instrument)
        return 0.5 * (m.bid + m.ask) if m.bid > 0.0 and m.ask > 0.0 else m.mark

    @property
    def spread(self) -> float:
        """Ask less bid; negative when the book is crossed, nan while one side is missing."""
        m = markets(kernel_of(self), self.instrument)
        return m.ask - m.bid if m.bid > 0.0 and m.ask > 0.0 else math.nan

    @property
    def imbalance(self) -> float:
        """(bid volume - ask volume) / their sum at the touch, in [-1, 1]; 0 while nothing is shown."""
        m = markets(kernel_of(self), self.instrument)
        total = m.bid_volume + m.ask_volume
        return (m.bid_volume - m.ask_volume) / total if total > 0.0 else 0.0

    @property
    def microprice(self) -> float:
        """Touch prices, each weighted by the volume of the other side; the mid while nothing is shown.

        Source: Gatheral & Oomen 2010, "Zero-intelligence realized variance estimation", the weighted mid price.
        """
        m = markets(kernel_of(self), self.instrument)
        total = m.bid_volume + m.ask_volume
        if not (total > 0.0 and m.bid > 0.0 and m.ask > 0.0):
            return self.mid
        return (m.bid * m.ask_volume + m.ask * m.bid_volume) / total

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask: the book is locked or crossed."""
        m = markets(kernel_of(self), self.instrument)
        return 0.0 < m.ask <= m.bid

    @property
    def stale(self) -> bool:
        """Whether the book was lost (a gap, a row that made no sense); it is empty until the next snapshot."""
        return depth_of(self) and books(kernel_of(self), self.instrument).stale != 0

    def level_price(self, side: int, k: int) -> float:
        """Price of level `k` of the book, 0 the best, on the side of the bids (1, BUY) or of the asks (-1, SELL).

        0 when the book has fewer levels, or the instrument no book: levels are known where the data have depth.
        """
        if not depth_of(self):
            return 0.0
        b = books(kernel_of(self), self.instrument)
        return price_of(b, level(half_of(self, b, side), k))

    def level_volume(self, side: int, k: int) -> float:
        """Volume of level `k`, units; 0 when there is no such level."""
        if not depth_of(self):
            return 0.0
        h = half_of(self, books(kernel_of(self), self.instrument), side)
        key = level(h, k)
        return volume_at(h, key) if key != NONE else 0.0

    def volume_at(self, side: int, price: float) -> float:
        """Volume of the book at a price, units; 0 when nothing is shown there."""
        if not depth_of(self):
            return 0.0
        b = books(kernel_of(self), self.instrument)
        key = key_of(b, price)
        return volume_at(half_of(self, b, side), key if side > 0 else -key) if key != 0 else 0.0

    def volume_of(self, side: int, levels: int) -> float:
        """Volume of the best `levels` levels of a side together, units."""
        if not depth_of(self):
            return 0.0
        h = half_of(self, books(kernel_of(self), self.instrument), side)
        total, key = 0.0, level(h, 0)
        while levels > 0 and key != NONE:
            total += volume_at(h, key)
            key = below(h, key)
            levels -= 1
        return total

    def imbalance_of(self, levels: int) -> float:
        """(bids - asks) / their sum over the volumes of the best `levels` levels, in [-1, 1]; 0 without a book."""
        bids, asks = self.volume_of(codes.BUY, levels), self.volume_of(codes.SELL, levels)
        return (bids - asks) / (bids + asks) if bids + asks > 0.0 else 0.0

    @property
    def tick(self) -> float:
        """Price step of the instrument."""
        return instruments(kernel_of(self), self.instrument).tick

    @property
    def lot(self) -> float:
        """Quantity step of the instrument."""
        return instruments(kernel_of(self), self.instrument).lot

    @hot
    def target(self, qty: float, instrument: int = -1, priority: int = 0, life_ms: int = 0) -> None:
        """Wish to hold `qty` units (signed); market orders make up the difference."""
        k = kernel_of(self)
        i = self.instrument if instrument < 0 else instrument
        if k.signals == 0 and 0 <= i < k.instruments:
            p = positions(k, self.strategy * k.instruments + i)
            if qty == (p.qty + p.pending) * instruments(k, i).lot:
                return  # already there, or on the way
        queue_target(k, self, codes.SIGNAL_TARGET, i, qty, priority, life_ms)

    def target_weight(self, weight: float, instrument: int = -1, priority: int = 0, life_ms: int = 0) -> None:
        """Wish to hold `weight` of the account's equity (0.5 = half, negative = short), at the last price."""
        i = self.instrument if instrument < 0 else instrument
        queue_target(kernel_of(self), self, codes.SIGNAL_WEIGHT, i, weight, priority, life_ms)

    def buy(self, qty: float, limit: float = 0.0, stop: float = 0.0, tif: int = codes.GTC, mask: int = 0,
            instrument: int = -1, priority: int = 0, life_ms: int = 0, trail: float = 0.0) -> int:  # fmt: skip
        """Order to buy `qty` units: market, or limit and/or stop when those prices are given.

        `trail` makes it a trailing stop: a stop that stays so far, in units of price, from the best price since it
        came (for a sale below the highest bid), and never loosens; `stop` is then where it begins at the latest.
        `tif` and `mask` are codes (IOC, REDUCE_ONLY, ...). Returns the order id, 0 when full.
        """
        i = self.instrument if instrument < 0 else instrument
        return queue_order(kernel_of(self), self, codes.BUY, qty, limit, stop, trail, tif, mask, i, priority, life_ms)

    def sell(self, qty: float, limit: float = 0.0, stop: float = 0.0, tif: int = codes.GTC, mask: int = 0,
             instrument: int = -1, priority: int = 0, life_ms: int = 0, trail: float = 0.0) -> int:  # fmt: skip
        """Order to sell `qty` units; arguments as in `buy`."""
        i = self.instrument if instrument < 0 else instrument
        return queue_order(kernel_of(self), self, codes.SELL, qty, limit, stop, trail, tif, mask, i, priority, life_ms)

    def cancel(self, order_id: int, priority: int = 0, life_ms: int = 0) -> None:
        """Ask to cancel one of our orders."""
        queue_cancel(kernel_of(self), self, order_id, self.instrument, priority, life_ms)

    def cancel_all(self, instrument: int = -1, priority: int = 0, life_ms: int = 0) -> None:
        """Ask to cancel all orders of this strategy for the instrument."""
        i = self.instrument if instrument < 0 else instrument
        queue(kernel_of(self), self, codes.SIGNAL_CANCEL_ALL, i, 0.0, priority, life_ms)

    def replace(self, order_id: int, qty: float, limit: float = 0.0, stop: float = 0.0, priority: int = 0,
                life_ms: int = 0, trail: float = 0.0) -> None:  # fmt: skip
        """Ask to change an open order: its whole quantity in units (filled part included), its prices, its life.

        What is 0 stays as it is; the life counts from now. A trailing stop whose `trail` changes begins afresh.
        """
        k = kernel_of(self)
        queue_replace(k, self, order_id, self.instrument, qty, limit, stop, trail, priority, life_ms)

    def quote(self, bid: float, ask: float, qty: float, instrument: int = -1, priority: int = 0,
              life_ms: int = 0) -> None:  # fmt: skip
        """Keep a resting buy of `qty` units at `bid` and a resting sale at `ask`; 0 keeps none on that side.

        Post-only orders. Moves only what has changed: an order at the wished price stays and keeps its place in the
        queue (and its life), one at another price is replaced; while a change is under way its side waits.
        """
        k = kernel_of(self)
        i = self.instrument if instrument < 0 else instrument
        if not 0 <= i < k.instruments:
            self.fault = codes.FAULT_QUEUE
            return
        d = desks(k, self.strategy * k.instruments + i)
        d.buy = keep(k, self, d.buy, codes.BUY, bid, qty, i, priority, life_ms)
        d.sell = keep(k, self, d.sell, codes.SELL, ask, qty, i, priority, life_ms)

    def is_open(self, order_id: int) -> bool:
        """Whether an order of ours is still on its way or working."""
        k = kernel_of(self)
        o = open_orders(k, order_id & k.order_mask)
        return o.id == order_id and codes.RESERVED <= o.state < codes.DONE_FILLED


kernel_of = Behind(Ctx, CTX_BYTES, Kernel)


def depth_of(ctx: Ctx) -> bool:
    """Whether the instrument has a book."""
    k = kernel_of(ctx)
    return k.books_at != 0 and books(k, ctx.instrument).first >= 0


def half_of(ctx: Ctx, b: Book, side: int) -> Half:
    """The bids (side 1) or the asks of a book."""
    return halves(kernel_of(ctx), b.first + (0 if side > 0 else 1))
