"""Market making: quote both sides around a fair value, lean against the inventory.

Thesis: whoever offers immediacy earns the spread and pays for it with adverse selection and inventory risk. The
reservation price leans against what is held, the spread pays for risk and for being picked off.

Sources: Avellaneda & Stoikov 2008, "High-frequency trading in a limit order book"; Guéant, Lehalle &
Fernandez-Tapia 2013, "Dealing with the inventory risk" (the closed form for a long horizon, GLFT below).
"""

import math

from engine.kernel import codes
from engine.kernel.events import Depth, Quote, Report, Trade
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

    fair = microprice - skew * position / qty; bid and ask `half` away from it, neither inside the touch. With `gamma`
    half and skew are those of the closed form, from the volatility of the mid as it is measured.

    >>> MarketMaking(half_ticks=1.0).values["limit"]
    20.0
    """

    qty: float = param(1.0, gt=0, doc="units on each side")
    limit: float = param(20.0, gt=0, doc="largest inventory, units; the side that would exceed it is not quoted")
    half_ticks: float = param(0.5, ge=0, doc="half spread around the fair value, ticks")
    skew_ticks: float = param(0.25, ge=0, doc="ticks that the fair value moves for one `qty` of inventory")
    gamma: float = param(0.0, ge=0, doc="risk aversion of the closed form, 1/tick (0: half_ticks and skew_ticks)")
    decline: float = param(1.0, gt=0, doc="k of the closed form, 1/tick: orders fill at a rate of")
    intensity: float = param(1.0, gt=0, doc="intensity * exp(-decline * ticks from the mid) per second")
    widen: float = param(0.0, ge=0, doc="half spread added for each tick of mean absolute move")
    memory: float = param(0.02, gt=0, le=1, doc="weight of the newest move in that mean")
    move_ticks: float = param(0.0, ge=0, doc="requote only when the fair value has moved by so many ticks")
    fast: float = param(0.0, ge=0, doc="no quotes while moves are so many times their usual size (0: always)")
    stale_ms: int = param(0, ge=0, doc="no quotes on data older than so many milliseconds (0: always)")
    life_ms: int = param(0, ge=0, doc="an order that is not moved for so long ends (0: never)")

    moves: Decay  # of the microprice, ticks
    usual: Decay
    squares: Decay  # of the moves of the mid, ticks
    pauses: Decay  # between quotes, s
    micro: float
    mid: float
    seen: int
    quoted: float
    held: float

    def validate(self) -> None:
        if self.limit < self.qty:
            raise ValueError(f"limit must be at least qty, got limit={self.limit}, qty={self.qty}")

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.requote(quote.ts, ctx)

    def on_depth(self, depth: Depth, ctx: Ctx) -> None:
        self.requote(depth.ts, ctx)

    def requote(self, told: int, ctx: Ctx) -> None:
        """Both sides anew, around what the best prices say now; `told` is when the market said so."""
        best_bid, best_ask = ctx.bid, ctx.ask
        if not (best_bid > 0.0 and best_ask > best_bid):
            self.pull(ctx)  # one side is missing, or the book is crossed or locked
            return
        self.observe(ctx)
        wild = self.fast > 0.0 and self.moves.level > self.fast * self.usual.level
        if wild or (self.stale_ms > 0 and ctx.now - told > self.stale_ms * 1_000_000):
            self.pull(ctx)
            return
        tick, position = ctx.tick, ctx.position
        half, skew = self.half_ticks, self.skew_ticks
        if self.gamma > 0.0:
            half, skew = glft(self.gamma, self.sigma, self.decline, self.intensity)
        fair = self.micro - skew * tick * position / self.qty
        if abs(fair - self.quoted) < self.move_ticks * tick and position == self.held:
            return
        self.quoted = fair
        self.held = position
        half = (half + self.widen * self.moves.level) * tick
        room = self.limit - self.qty + 1e-9 * self.limit
        bid = min(best_bid, math.floor((fair - half) / tick + 1e-9) * tick) if position <= room else 0.0
        ask = max(best_ask, math.ceil((fair + half) / tick - 1e-9) * tick) if position >= -room else 0.0
        ctx.quote(bid, ask, self.qty, life_ms=self.life_ms)

    def observe(self, ctx: Ctx) -> None:
        """How much and how fast the market moves."""
        micro, mid = ctx.microprice, ctx.mid
        if self.seen > 0:
            moved = (mid - self.mid) / ctx.tick
            self.moves.update(abs(micro - self.micro) / ctx.tick, self.memory)
            self.usual.update(self.moves.level, 0.01 * self.memory)
            self.squares.update(moved * moved, self.memory)
            self.pauses.update((ctx.now - self.seen) * 1e-9, self.memory)
        self.micro, self.mid, self.seen = micro, mid, ctx.now

    @property
    def sigma(self) -> float:
        """Volatility of the mid, ticks per root second; 0 while no time has passed."""
        return math.sqrt(self.squares.level / self.pauses.level) if self.pauses.level > 0.0 else 0.0

    def pull(self, ctx: Ctx) -> None:
        """No quotes until the next good one."""
        ctx.quote(0.0, 0.0, self.qty)
        self.quoted = 0.0

    def on_trade(self, trade: Trade, ctx: Ctx) -> None:
        if self.stale_ms > 0 and ctx.now - self.seen > self.stale_ms * 1_000_000:
            self.pull(ctx)  # trades come, quotes do not

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if report.code == codes.REJECT or report.code == codes.EXPIRED:
            self.quoted = 0.0  # one side is missing: quote again, however little has moved
