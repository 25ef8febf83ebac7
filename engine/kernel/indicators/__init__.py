"""Indicators: O(1) records that a strategy nests in its state, and `scan` over arrays for research.

A window holds 1024 samples unless declared otherwise: `slow_mean: Mean[4096]`.
"""

from engine.kernel.indicators.averages import EMA, WMA, Decay, Mean, Slope, Wilder
from engine.kernel.indicators.base import Indicator
from engine.kernel.indicators.deviations import Bollinger, Deviation, ZScore
from engine.kernel.indicators.oscillators import MACD, RSI, RateOfChange, Window
from engine.kernel.indicators.ranges import ATR, Donchian, Highest, Lowest
from engine.kernel.indicators.volumes import VWAP, OrderFlow, RollingVWAP, SessionVWAP

__all__ = [
    "ATR", "EMA", "MACD", "RSI", "VWAP", "WMA", "Bollinger", "Decay", "Deviation", "Donchian", "Highest", "Indicator",
    "Lowest", "Mean", "OrderFlow", "RateOfChange", "RollingVWAP", "SessionVWAP", "Slope", "Wilder", "Window", "ZScore",
]  # fmt: skip
