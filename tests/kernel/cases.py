"""Every indicator with arguments to test it with, on samples made to hurt."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from engine.kernel.indicators import (
    ATR,
    EMA,
    MACD,
    RSI,
    VWAP,
    WMA,
    Bollinger,
    Decay,
    Deviation,
    Donchian,
    Highest,
    Lowest,
    Mean,
    OrderFlow,
    RateOfChange,
    RollingVWAP,
    SessionVWAP,
    Slope,
    Wilder,
    Window,
    ZScore,
)

# class, one letter for each input (see `nasty`), arguments
CASES: list[tuple[Any, str, tuple[float, ...]]] = [
    (Mean, "x", (20,)), (Mean, "x", (1,)), (Mean[300], "x", (300,)), (EMA, "x", (20,)), (EMA, "x", (1,)),
    (Wilder, "x", (14,)), (Decay, "x", (0.1,)), (WMA, "x", (30,)), (Slope, "x", (20,)), (Slope, "x", (1,)),
    (Deviation, "x", (20,)), (Deviation, "x", (1,)), (ZScore, "x", (20,)), (Bollinger, "x", (20, 2.0)),
    (RSI, "x", (14,)), (RSI, "x", (1,)), (MACD, "x", (12, 26, 9)),
    (RateOfChange, "x", (10,)), (Window, "x", (3,)), (ATR, "hlx", (14,)), (Donchian, "xl", (20,)),
    (Highest, "x", (20,)), (Lowest, "x", (20,)), (Highest, "x", (64,)), (Lowest, "x", (1,)), (VWAP, "xv", ()),
    (RollingVWAP, "xv", (20,)), (SessionVWAP, "xvd", ()), (OrderFlow, "xhvd", ()),
]  # fmt: skip
IDS = [f"{cls.__name__}{args}" for cls, _, args in CASES]


def bars(count: int, seed: int = 0) -> dict[str, Any]:
    """A random walk as bars: h, l, c, v and a session number d."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, count)))
    spread = close * rng.uniform(0.0, 0.01, (2, count))
    return {"c": close, "h": close + spread[0], "l": close - spread[1], "v": np.floor(rng.lognormal(10.0, 1.0, count)),
            "d": np.floor(np.arange(count) / 5)}  # fmt: skip


def nasty() -> dict[str, Any]:
    """Bars, and `x`: closes with holes, infinities, both zeros, equal stretches and steps over 300 decades."""
    data = bars(1500, 7)
    x = np.where(np.random.default_rng(1).random(1500) < 0.02, np.nan, data["c"])
    x[5], x[6] = np.inf, -np.inf
    x[300:360] = 100.1
    x[500] = 1e15
    x[600:700] = 0.0
    x[650] = -0.0
    x[800] = 1e-300
    data["v"][900:950] = 0.0
    return {**data, "x": x}


def recorded(folder: Path) -> dict[str, Any]:
    """Real daily bars: h, l, c, v."""
    with (folder / "yahoo" / "GOOG.csv").open() as file:
        rows = np.array([[float(x) for x in row[1:]] for row in list(csv.reader(file))[1:]])
    return dict(zip("ohlcv", np.ascontiguousarray(rows.T), strict=True))
