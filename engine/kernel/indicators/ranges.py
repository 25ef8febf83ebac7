"""Extremes and ranges of a window.

A rolling extreme joins the tail of the last block and the head of this one (M. van Herk, Pattern Recognition
Letters 13, 1992; J. Gil, M. Werman, IEEE PAMI 15, 1993): exact, amortised O(1), and less to branch on than a deque.
"""

import math

from engine.kernel.indicators.averages import Smoothing
from engine.kernel.indicators.base import Floats, Windowed, check


class Extreme(Windowed):
    """Abstract: `head` is the extreme of this block, `level` of the window; `window` holds tails from the cursor on."""

    head: float
    level: float
    window: Floats

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, len(self.window))
        self.length = length
        self.n = 0
        self.cursor = 0

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.level if self.ready else math.nan


class Highest(Extreme):
    """The highest of the last `length` samples; nan before there are as many.

    >>> Highest.scan([1.0, 4.0, 2.0, 3.0], 2).tolist()
    [nan, 4.0, 4.0, 3.0]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; the highest, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        head = x if slot == 0 else max(self.head, x)
        self.head = head
        self.window[slot] = x
        self.n += 1
        slot += 1
        if slot == length:
            raise_tails(self.window, length)
            self.cursor = 0
            self.level = head
            return head
        self.cursor = slot
        if self.n < length:
            return math.nan
        self.level = max(head, self.window[slot])
        return self.level


class Lowest(Extreme):
    """The lowest of the last `length` samples; nan before there are as many.

    >>> Lowest.scan([1.0, 4.0, 2.0, 3.0], 2).tolist()
    [nan, 1.0, 2.0, 2.0]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; the lowest, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        head = x if slot == 0 else min(self.head, x)
        self.head = head
        self.window[slot] = x
        self.n += 1
        slot += 1
        if slot == length:
            lower_tails(self.window, length)
            self.cursor = 0
            self.level = head
            return head
        self.cursor = slot
        if self.n < length:
            return math.nan
        self.level = min(head, self.window[slot])
        return self.level


class Donchian(Windowed):
    """Donchian channel: the highest high and the lowest low of the last `length` bars, and the middle between.

    The newest bar is part of the channel: for a breakout compare with `upper` *before* the update.
    Source: R. Donchian, High Finance in Copper, Financial Analysts Journal 16(6), 1960.

    >>> Donchian.scan([2.0, 5.0, 3.0], [1.0, 3.0, 2.0], 2).tolist()
    [[nan, nan, nan], [3.0, 5.0, 1.0], [3.5, 5.0, 2.0]]
    """

    outputs = ("middle", "upper", "lower")
    high_head: float
    low_head: float
    top: float
    bottom: float
    highs: Floats
    lows: Floats

    def restart(self, length: int) -> None:
        """Forget all bars."""
        check(length, len(self.highs))
        self.length = length
        self.n = 0
        self.cursor = 0

    def update(self, high: float, low: float, length: int) -> float:
        """Take a bar; the middle of the channel, or nan."""
        if not (math.isfinite(high) and math.isfinite(low)):
            return self.middle
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        top = high if slot == 0 else max(self.high_head, high)
        bottom = low if slot == 0 else min(self.low_head, low)
        self.high_head = top
        self.low_head = bottom
        self.highs[slot] = high
        self.lows[slot] = low
        self.n += 1
        slot += 1
        if slot == length:
            slot = 0
            raise_tails(self.highs, length)
            lower_tails(self.lows, length)
        elif self.n > length:
            top = max(top, self.highs[slot])
            bottom = min(bottom, self.lows[slot])
        self.cursor = slot
        self.top = top
        self.bottom = bottom
        return self.middle

    @property
    def upper(self) -> float:
        """The highest high."""
        return self.top if self.ready else math.nan

    @property
    def lower(self) -> float:
        """The lowest low."""
        return self.bottom if self.ready else math.nan

    @property
    def middle(self) -> float:
        """Half way between."""
        return 0.5 * (self.upper + self.lower)


class ATR(Smoothing):
    """Average true range: Wilder's smoothing of max(high - low, |high - last close|, |low - last close|).

    The first bar has no last close and gives no range, as in TA-Lib: nan for the first `length` bars.
    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978; usual length 14.

    >>> ATR.scan([2.0, 4.0, 5.0], [1.0, 2.0, 4.5], [1.5, 3.0, 5.0], 1).tolist()
    [nan, 2.5, 2.0]
    """

    bars: int
    last: float

    def update(self, high: float, low: float, close: float, length: int) -> float:
        """Take a bar; the average range in price, or nan."""
        if not (math.isfinite(high) and math.isfinite(low) and math.isfinite(close)):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
            self.alpha = 1.0 / length
            self.bars = 0
        last = self.last
        self.last = close
        self.bars += 1
        if self.bars == 1:
            return math.nan
        return self.smooth(max(high - low, max(abs(high - last), abs(low - last))), length)


def raise_tails(window: Floats, length: int) -> None:
    """Each slot becomes the highest from there to the end of the block."""
    for slot in range(length - 2, -1, -1):
        window[slot] = max(window[slot], window[slot + 1])


def lower_tails(window: Floats, length: int) -> None:
    """Each slot becomes the lowest from there to the end of the block."""
    for slot in range(length - 2, -1, -1):
        window[slot] = min(window[slot], window[slot + 1])
