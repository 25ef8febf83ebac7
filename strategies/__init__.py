"""The built-in strategies: one literal table. What is in it is tested, configured and listed in the README."""

from engine.kernel.strategy import Strategy
from strategies.cross_momentum import CrossMomentum
from strategies.market_making import MarketMaking
from strategies.momentum import Momentum
from strategies.rsi_reversion import RsiReversion
from strategies.scalping import Scalping

BUILT_IN: dict[str, type[Strategy]] = {
    "momentum": Momentum,
    "rsi_reversion": RsiReversion,
    "cross_momentum": CrossMomentum,
    "market_making": MarketMaking,
    "scalping": Scalping,
}

__all__ = ["BUILT_IN", "CrossMomentum", "MarketMaking", "Momentum", "RsiReversion", "Scalping"]
