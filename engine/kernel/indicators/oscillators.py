"""Oscillators: how fast and which way."""

import math

from engine.kernel.indicators.averages import EMA
from engine.kernel.indicators.base import Floats, Indicator, Windowed, check


class RSI(Windowed):
    """Relative strength index: 100 * up / (up + down) of Wilder's smoothed gains and losses; needs length + 1 samples.

    50 while nothing has moved at all (TA-Lib says 0 there, which reads as oversold).
    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978; usual length 14.

    >>> RSI.scan([1.0, 2.0, 1.5, 2.5], 2).round(4).tolist()
    [nan, nan, 66.6667, 85.7143]
    """

    alpha: float
    last: float
    up: float
    down: float

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, 1 << 31)  # no window is kept, so any length will do
        self.length = length
        self.alpha = 1.0 / length
        self.n = 0
        self.up = 0.0
        self.down = 0.0

    def update(self, x: float, length: int) -> float:
        """Take a sample; the index from 0 to 100, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
        change = x - self.last if self.n > 0 else 0.0
        gain = max(change, 0.0)
        loss = max(-change, 0.0)
        self.last = x
        self.n += 1
        if self.n > length + 1:
            self.up += self.alpha * (gain - self.up)
            self.down += self.alpha * (loss - self.down)
            return self.latest
        self.up += gain  # plain sums until there are enough changes for the seed
        self.down += loss
        if self.n <= length:
            return math.nan
        self.up /= length
        self.down /= length
        return self.latest

    @property
    def ready(self) -> bool:
        """Whether there are `length` changes."""
        return self.n > 0 and self.n > self.length

    @property
    def latest(self) -> float:
        """What the last update returned."""
        if not self.ready:
            return math.nan
        both = self.up + self.down
        return 100.0 * (self.up / both) if both > 0.0 else 50.0


class MACD(Indicator):
    """Moving average convergence divergence: EMA(fast) - EMA(slow), its EMA(signal), and the difference.

    Both averages start at the same sample, the fast one seeded by the last `fast` of the first `slow`, as in TA-Lib.
    Source: G. Appel, The Moving Average Convergence-Divergence Trading Method, 1979; usual 12, 26, 9.

    >>> MACD.scan([1.0, 2.0, 4.0, 7.0], 1, 2, 2).round(4).tolist()
    [[nan, nan, nan], [0.5, nan, nan], [0.8333, 0.6667, 0.1667], [1.2778, 1.0741, 0.2037]]
    """

    outputs = ("line", "signal", "histogram")
    n: int
    short: int
    long: int
    quick: EMA
    calm: EMA
    trigger: EMA

    def restart(self, fast: int, slow: int, signal: int) -> None:
        """Forget all samples."""
        if not 0 < fast < slow or signal < 1:
            raise ValueError("MACD needs 0 < fast < slow and a signal of at least 1")
        self.n = 0
        self.short = fast
        self.long = slow
        self.quick.n = 0
        self.calm.n = 0
        self.trigger.n = 0
        self.quick.length = 0  # of no average: its next update restarts it
        self.calm.length = 0
        self.trigger.length = 0

    def update(self, x: float, fast: int, slow: int, signal: int) -> float:
        """Take a sample; the line, or nan."""
        if not math.isfinite(x):
            return self.line
        if fast != self.short or slow != self.long:
            self.restart(fast, slow, signal)
        self.n += 1
        self.calm.update(x, slow)
        if self.n > slow - fast:
            self.quick.update(x, fast)
        self.trigger.update(self.line, signal)  # no line is no sample
        return self.line

    @property
    def ready(self) -> bool:
        """Whether the signal exists; the line exists from sample `slow` on."""
        return self.trigger.ready

    @property
    def line(self) -> float:
        """EMA(fast) - EMA(slow)."""
        return self.quick.latest - self.calm.latest

    @property
    def signal(self) -> float:
        """EMA of the line."""
        return self.trigger.latest

    @property
    def histogram(self) -> float:
        """line - signal."""
        return self.line - self.signal


class RateOfChange(Windowed):
    """Return over `length` samples as a fraction: x / x[length ago] - 1; needs length + 1 samples.

    nan where the old sample was 0.

    >>> RateOfChange.scan([1.0, 2.0, 3.0], 2).tolist()
    [nan, nan, 2.0]
    """

    level: float
    window: Floats

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, len(self.window))
        self.length = length
        self.n = 0
        self.cursor = 0

    def update(self, x: float, length: int) -> float:
        """Take a sample; the return, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        old = self.window[slot]
        self.window[slot] = x
        self.n += 1
        slot += 1
        self.cursor = 0 if slot == length else slot
        self.level = x / old - 1.0 if self.n > length and old != 0.0 else math.nan
        return self.level

    @property
    def ready(self) -> bool:
        """Whether there is a sample `length` ago."""
        return self.n > 0 and self.n > self.length

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.level if self.ready else math.nan


class Window(Indicator):
    """The last samples themselves, as many as the capacity holds: `push(x)`, then `value(k)`, 0 being the newest.

    Keeps what it is given, nan and inf too. `n` counts all samples ever pushed.

    >>> closes = Window[3].new()
    >>> for x in (1.0, 2.0, 3.0, 4.0): closes.push(x)
    >>> closes.value(0), closes.value(2), closes.n
    (4.0, 2.0, 4)
    """

    n: int
    cursor: int
    window: Floats

    def push(self, x: float) -> None:
        """Keep a sample; the oldest goes when the window is full."""
        self.window[self.cursor] = x
        self.n += 1
        self.cursor += 1
        if self.cursor == len(self.window):
            self.cursor = 0

    def value(self, k: int) -> float:
        """The sample `k` before the newest. IndexError where there is none."""
        if k < 0 or k >= self.n or k >= len(self.window):
            raise IndexError("a Window has no sample that far back")
        slot = self.cursor - 1 - k
        return self.window[slot + len(self.window) if slot < 0 else slot]

    def update(self, x: float, lag: int) -> float:
        """Keep a sample; the one `lag` before it, or nan."""
        self.push(x)
        return self.value(lag) if 0 <= lag < self.n else math.nan
