"""Market making: quote both sides around a fair value, lean against the inventory.

Thesis: whoever offers immediacy earns the spread and pays for it with adverse selection and inventory risk. The
reservation price leans against what is held, the spread pays for risk and for being picked off.

Sources: Avellaneda & Stoikov 2008, "High-frequency trading in a limit order book"; Guéant, Lehalle &
Fernandez-Tapia 2013, "Dealing with the inventory risk" (the closed form for a long horizon, GLFT below).
"""

import math

from engine.kernel.events import Depth, Quote
from engine.kernel.indicators import Decay
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


def glft(gamma: float, sigma: float, k: float, a: float) -> tuple[float, float]:
    """Half spread and skew for one unit of inventory, in price units, of the GLFT closed form.

    half = ln(1 + gamma/k)/gamma + skew/2, skew = sigma * sqrt(gamma/(2 k a) * (1 + gamma/k)^(1 + k/gamma)):
    gamma risk aversion (1/price), sigma volatility (price per sqrt(second)), orders filled at rate
    a*exp(-k*distance) per second.

    >>> half, skew = glft(0.1, 0.3, 1.5, 0.9)
    >>> round(half, 4), round(skew, 4)
    (0.6938, 0.0968)
    """
    skew = sigma * math.sqrt(gamma / (2.0 * k * a) * (1.0 + gamma / k) ** (1.0 + k / gamma))
    return math.log(1.0 + gamma / k) / gamma + 0.5 * skew, skew


class MarketMaking(Strategy):
    """Two-sided quotes around the microprice, skewed by inventory, wider when it moves; none on fast or stale markets.

    fair = microprice - skew * position; bid and ask `half` away from it, both at least at the touch.

    >>> MarketMaking(half_ticks=1.0)
    MarketMaking(qty=1.0, limit=20.0, half_ticks=1.0, skew_ticks=0.25, widen=0.0, memory=0.02, move_ticks=0.0, fast=0.0)
    """

    qty: float = param(1.0, gt=0, doc="units on each side")
    limit: float = param(20.0, gt=0, doc="largest inventory, units; the side that would exceed it is not quoted")
    half_ticks: float = param(0.5, ge=0, doc="half spread around the fair value, ticks")
    skew_ticks: float = param(0.25, ge=0, doc="ticks that the fair value moves for one unit of inventory")
    widen: float = param(0.0, ge=0, doc="half spread added for each tick of mean absolute move")
    memory: float = param(0.02, gt=0, le=1, doc="weight of the newest move in that mean")
    move_ticks: float = param(0.0, ge=0, doc="requote only when the fair value has moved by so many ticks")
    fast: float = param(0.0, ge=0, doc="no quotes while the mean absolute move is above so many ticks (0: always)")

    moves: Decay
    before: float
    quoted: float
    held: float

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.requote(ctx)

    def on_depth(self, depth: Depth, ctx: Ctx) -> None:
        self.requote(ctx)

    def requote(self, ctx: Ctx) -> None:
        """Both sides anew, around what the best prices say now."""
        tick, best_bid, best_ask = ctx.tick, ctx.bid, ctx.ask
        if not (best_bid > 0.0 and best_ask > best_bid):
            ctx.quote(0.0, 0.0, self.qty)  # one side is missing, or the book is crossed or locked
            self.quoted = 0.0
            return
        mid = ctx.microprice
        if self.before > 0.0:
            self.moves.update(abs(mid - self.before) / tick, self.memory)
        self.before = mid
        pace = self.moves.level
        position = ctx.position
        if self.fast > 0.0 and pace > self.fast:
            ctx.quote(0.0, 0.0, self.qty)
            self.quoted = 0.0
            return
        fair = mid - self.skew_ticks * tick * position
        if abs(fair - self.quoted) < self.move_ticks * tick and position == self.held:
            return
        self.quoted = fair
        self.held = position
        half = (self.half_ticks + self.widen * pace) * tick
        bid = min(best_bid, math.floor((fair - half) / tick + 1e-9) * tick) if position < self.limit else 0.0
        ask = max(best_ask, math.ceil((fair + half) / tick - 1e-9) * tick) if position > -self.limit else 0.0
        ctx.quote(bid, ask, self.qty)
