"""Scalping: follow a burst of order flow, leave passively, get out when it fades.

Thesis: over seconds the price moves by what comes to one side of the book and goes from the other, in proportion to
that flow over the depth it has to move. An entry waits until the price has begun to follow; what has not paid within
seconds is closed, for the flow is forgotten by then.

Source: Cont, Kukanov & Stoikov 2014, "The price impact of order book events": the flow of a quote (the indicator
OrderFlow) and `expected_move`, their model of a book that is equally deep at each price.
"""

import math

from engine.kernel import codes
from engine.kernel.events import Quote, Report
from engine.kernel.indicators import OrderFlow
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


def expected_move(flow: float, depth: float) -> float:
    """The move of the mid that a flow of orders brings about, in ticks: flow / (2 * depth); 0 without any depth.

    >>> expected_move(flow=60.0, depth=20.0)
    1.5
    """
    return flow / (2.0 * depth) if depth > 0.0 else 0.0


class Scalping(Strategy):
    """Enter at the touch when flow and trend agree; leave by a resting limit, by a stop, or after `hold_s`.

    Flow, depth and mean price fade within `memory_s`. An entry needs an expected move and a distance from the mean
    price of so many of their usual sizes, which fade within `scale_s`; the usual distance is the unit of the exits too,
    so that the same parameters fit any tick. An entry takes what the touch shows and no more; exits only reduce.

    >>> Scalping(gain=3.0).values["hold_s"]
    30.0
    """

    qty: float = param(1.0, gt=0, doc="units of one entry")
    memory_s: float = param(2.0, gt=0, doc="seconds after which a third of the flow is left")
    scale_s: float = param(60.0, gt=0, doc="the same of the usual sizes; no entry before they are known so long")
    entry: float = param(2.5, gt=0, doc="least expected move, in usual ones")
    trend: float = param(1.0, ge=0, doc="least distance from the mean price, in usual ones")
    spread: float = param(1.0, gt=0, doc="largest spread, in usual distances (one tick always will do)")
    gain: float = param(2.0, gt=0, doc="how far beyond the entry the exit rests, in usual distances, at least a tick")
    loss: float = param(4.0, gt=0, doc="how far behind it the stop waits")
    trail: bool = param(False, doc="whether the stop trails the price")
    hold_s: float = param(30.0, gt=0, doc="leave at the market after so long")
    pause_s: float = param(1.0, ge=0, doc="no entry for so long after one")

    flows: OrderFlow
    flow: float
    depth: float
    usual: float  # mid
    move: float  # expected, ticks
    moves: float  # mean square
    off: float  # distance of the mid from the usual one
    offs: float
    started: int
    now: int
    entered: int
    unit: float  # of the exits
    entry_id: int
    take_id: int
    stop_id: int
    out_id: int

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        if not (quote.bid > 0.0 and quote.ask > quote.bid):
            return  # one side is missing, or the book is crossed or locked: nothing to learn
        self.observe(quote, ctx)
        age = (ctx.now - self.entered) * 1e-9
        if ctx.position != 0.0:
            if age > self.hold_s and not ctx.is_open(self.out_id):
                ctx.cancel_all()
                self.out_id = self.reduce(ctx, 0.0, 0.0, 0.0)
            return
        busy = ctx.is_open(self.entry_id) or ctx.is_open(self.out_id) or ctx.is_open(self.take_id)
        if busy or ctx.is_open(self.stop_id) or (self.entered > 0 and age < self.pause_s):
            return
        self.unit = max(math.sqrt(self.offs), ctx.tick)
        wide = quote.ask - quote.bid > max(self.spread * self.unit, 1.000001 * ctx.tick)
        if wide or (ctx.now - self.started) * 1e-9 < self.scale_s:
            return
        least, far = self.entry * math.sqrt(self.moves), self.trend * math.sqrt(self.offs)
        if self.move > least and self.off > far:
            self.entry_id = ctx.buy(self.qty, limit=quote.ask, tif=codes.IOC)
            self.entered = ctx.now
        elif self.move < -least and self.off < -far:
            self.entry_id = ctx.sell(self.qty, limit=quote.bid, tif=codes.IOC)
            self.entered = ctx.now

    def observe(self, quote: Quote, ctx: Ctx) -> None:
        """What this quote says of flow, depth and price, and of their usual sizes."""
        mid, depth = 0.5 * (quote.bid + quote.ask), 0.5 * (quote.bid_volume + quote.ask_volume)
        flow = self.flows.update(quote.bid, quote.ask, quote.bid_volume, quote.ask_volume)
        if not self.flows.ready:
            self.started = ctx.now
            self.depth = depth
            self.usual = mid
        else:
            passed = (ctx.now - self.now) * 1e-9
            kept, long = math.exp(-passed / self.memory_s), math.exp(-passed / self.scale_s)
            self.flow = self.flow * kept + flow
            self.depth = self.depth * kept + depth * (1.0 - kept)
            self.usual = self.usual * kept + mid * (1.0 - kept)
            self.move = expected_move(self.flow, self.depth)
            self.off = mid - self.usual
            self.moves = self.moves * long + self.move * self.move * (1.0 - long)
            self.offs = self.offs * long + self.off * self.off * (1.0 - long)
        self.now = ctx.now

    def reduce(self, ctx: Ctx, limit: float, stop: float, trail: float) -> int:
        """An order for the whole position that can only reduce it."""
        held = ctx.position
        if held > 0.0:
            return ctx.sell(held, limit, stop, mask=codes.REDUCE_ONLY, trail=trail)
        return ctx.buy(-held, limit, stop, mask=codes.REDUCE_ONLY, trail=trail)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if report.code == codes.ACK or ctx.is_open(self.entry_id):
            return
        if ctx.position == 0.0:
            ctx.cancel_all()
        elif report.order_id == self.entry_id:
            side, stop = (1.0 if ctx.position > 0.0 else -1.0), self.loss * self.unit
            self.take_id = self.reduce(ctx, ctx.entry_price + side * self.gain * self.unit, 0.0, 0.0)
            self.stop_id = self.reduce(ctx, 0.0, ctx.entry_price - side * stop, stop if self.trail else 0.0)
