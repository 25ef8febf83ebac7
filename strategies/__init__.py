"""The built-in strategies: one literal table. What is in it is tested, configured and listed in the README."""

from engine.kernel.strategy import Strategy
from strategies.momentum import Momentum

BUILT_IN: dict[str, type[Strategy]] = {
    "momentum": Momentum,
}

__all__ = ["BUILT_IN", "Momentum"]
