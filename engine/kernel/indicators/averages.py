"""Moving averages and the line through a window."""

import math

from engine.kernel.indicators.base import Floats, Indicator, Windowed, check
from engine.kernel.primitives import hot

NO_SIGN = (1 << 31) - 1  # of a cursor: compiled code need not ask whether the index counts from the end


class Mean(Windowed):
    """Simple moving average: the mean of the last `length` samples; nan before there are as many. O(1).

    The sum carries its rounding error along (error-free sums, Knuth 1969), so that two averages of one price are equal
    whatever their lengths, and a cross is never decided by rounding.

    >>> Mean.scan([1.0, 2.0, 6.0, 4.0], 3).tolist()
    [nan, nan, 3.0, 4.0]
    """

    total: float
    error: float  # what rounding has taken from `total` so far: together they are the exact sum, near enough
    window: Floats

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, len(self.window))
        self.length = length
        self.n = 0  # counts up to `length` only
        self.cursor = 0
        self.total = 0.0
        self.error = 0.0
        for i in range(length):
            self.window[i] = 0.0

    @hot
    def update(self, x: float, length: int) -> float:
        """Take a sample; the mean, or nan."""
        last = len(self.window) - 1
        slot = self.cursor & (NO_SIGN if last & (last + 1) else last)  # a power of two needs no other bound
        old = self.window[slot]  # 0 until the window is full
        change, sum_ = x - old, self.total
        total = sum_ + change
        # Within a factor of two a difference is exact (Sterbenz 1974), and what a sum loses of its smaller summand is
        # had with two operations (Dekker 1971): the same means as below, as a price comes that is near the oldest one.
        if self.n == length == self.length and 0.5 * old <= x <= 2.0 * old and abs(change) < sum_:
            error = self.error + (change - (total - sum_))
        else:
            if not math.isfinite(x):
                return self.latest
            if length != self.length:
                self.restart(length)
                slot, old, change, sum_, total = 0, 0.0, x, 0.0, x
            part = x - change
            error = (part - old) + (x - (change + part))
            part = total - sum_
            error += self.error + ((sum_ - (total - part)) + (change - part))
        self.window[slot] = x
        slot += 1
        if slot == length:
            slot = 0
            if not math.isfinite(error):  # a sum beyond the range of a float: back to the samples themselves
                total = 0.0
                error = 0.0
                for i in range(length):
                    total += self.window[i]
        self.cursor = slot
        self.error = error
        self.total = total
        if self.n < length:
            self.n += 1
            if self.n < length:
                return math.nan
        if length < 1:
            check(length, last)
        return (total + error) / length

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return (self.total + self.error) / self.length if self.ready else math.nan


class Smoothing(Windowed):
    """Abstract: `level += alpha * (x - level)`, seeded by the mean of the first `length` samples (as TA-Lib does)."""

    alpha: float
    level: float

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, 1 << 31)  # no window is kept, so any length will do
        self.length = length
        self.n = 0
        self.level = 0.0

    def smooth(self, x: float, length: int) -> float:
        """One step, with the `alpha` that is set."""
        self.n += 1
        if self.n > length:
            self.level += self.alpha * (x - self.level)
            return self.level
        self.level += x  # a plain sum until there are enough for the seed
        if self.n < length:
            return math.nan
        self.level /= length
        return self.level

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.level if self.ready else math.nan


class EMA(Smoothing):
    """Exponential moving average, alpha = 2 / (length + 1), seeded by the mean of the first `length` samples.

    The seed is TA-Lib's; `Decay` is seeded by the first sample, as pandas `ewm(adjust=False)`; `Wilder` has
    alpha = 1 / length.

    >>> EMA.scan([1.0, 2.0, 6.0, 4.0, 8.0], 3).tolist()
    [nan, nan, 3.0, 3.5, 5.75]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; the average, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
            self.alpha = 2.0 / (length + 1)
        return self.smooth(x, length)


class Wilder(Smoothing):
    """Wilder's smoothing (RMA, SMMA), alpha = 1 / length, seeded by the mean of the first `length` samples.

    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978.

    >>> Wilder.scan([1.0, 2.0, 6.0, 4.0, 8.0], 2).tolist()
    [nan, 1.5, 3.75, 3.875, 5.9375]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; the average, or nan."""
        if not math.isfinite(x):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
            self.alpha = 1.0 / length
        return self.smooth(x, length)


class Decay(Indicator):
    """Exponential average with a free `alpha` in (0, 1], seeded by the first sample: pandas `ewm(adjust=False)`.

    For a half-life of h samples, alpha = 1 - 0.5 ** (1 / h).

    >>> Decay.scan([1.0, 2.0, 6.0], 0.5).tolist()
    [1.0, 1.5, 3.75]
    """

    n: int
    level: float

    def update(self, x: float, alpha: float) -> float:
        """Take a sample; the average, which exists from the first sample on."""
        if not math.isfinite(x):
            return self.latest
        if not 0.0 < alpha <= 1.0:
            raise ValueError("the alpha of a Decay must be above 0 and at most 1")
        self.level = self.level + alpha * (x - self.level) if self.n > 0 else x
        self.n += 1
        return self.level

    @property
    def ready(self) -> bool:
        """Whether there was a sample."""
        return self.n > 0

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.level if self.n > 0 else math.nan


class Weighted(Windowed):
    """Abstract: total = sum of x - pivot, moment = sum of k * (x - pivot); k = 1 is the oldest, k = length the newest.

    The pivot is the first sample of a block: it keeps the sums small, so a slope is not lost under a high price.
    """

    pivot: float
    total: float
    moment: float
    fresh_pivot: float
    fresh_total: float
    fresh_moment: float
    window: Floats

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, len(self.window))
        self.length = length
        self.n = 0
        self.cursor = 0

    def push(self, x: float, length: int) -> None:
        """Take a sample."""
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        if slot == 0:
            self.fresh_pivot = x
            self.fresh_total = 0.0
            self.fresh_moment = 0.0
        self.moment += length * (x - self.pivot) - self.total
        self.total += x - self.window[slot]
        self.window[slot] = x
        self.n += 1
        slot += 1
        self.fresh_total += x - self.fresh_pivot
        self.fresh_moment += slot * (x - self.fresh_pivot)
        if slot == length:  # what slid, and what it was during warm-up, gives way to the exact sums
            slot = 0
            self.pivot = self.fresh_pivot
            self.total = self.fresh_total
            self.moment = self.fresh_moment
        self.cursor = slot


class WMA(Weighted):
    """Linearly weighted moving average: weight `length` for the newest sample down to 1 for the oldest. O(1).

    >>> WMA.scan([3.0, 0.0, 3.0, 6.0], 3).tolist()
    [nan, nan, 2.0, 4.0]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; the average, or nan."""
        if math.isfinite(x):
            self.push(x, length)
        return self.latest

    @property
    def latest(self) -> float:
        """What the last update returned."""
        if not self.ready:
            return math.nan
        return self.pivot + self.moment / (0.5 * self.length * (self.length + 1))


class Slope(Weighted):
    """Least-squares line through the last `length` samples: its slope per sample; nan before there are as many. O(1).

    `fitted` is the line at the newest sample (TA-Lib LINEARREG), `intercept` at the oldest (LINEARREG_INTERCEPT).

    >>> Slope.scan([1.0, 3.0, 2.0, 4.0], 3).tolist()
    [[nan, nan, nan], [nan, nan, nan], [0.5, 1.5, 2.5], [0.5, 2.5, 3.5]]
    """

    outputs = ("latest", "intercept", "fitted")

    def update(self, x: float, length: int) -> float:
        """Take a sample; the slope per sample, or nan. The line through a single sample is flat."""
        if math.isfinite(x):
            self.push(x, length)
        return self.latest

    @property
    def latest(self) -> float:
        """What the last update returned."""
        if not self.ready:
            return math.nan
        n = float(self.length)
        if n < 2.0:
            return 0.0
        return 12.0 * (self.moment - 0.5 * (n + 1.0) * self.total) / (n * (n * n - 1.0))

    @property
    def fitted(self) -> float:
        """The line at the newest sample."""
        if not self.ready:
            return math.nan
        return self.pivot + self.total / self.length + self.latest * (0.5 * (self.length - 1))

    @property
    def intercept(self) -> float:
        """The line at the oldest sample of the window."""
        if not self.ready:
            return math.nan
        return self.pivot + self.total / self.length - self.latest * (0.5 * (self.length - 1))
