"""Standard deviation of a window and what is built on it.

The window is the tail of the last block and the head of this one. Each part has a mean and a sum of squared
deviations, of sums about its own first sample, and the two are joined without subtraction:
T. Chan, G. Golub, R. LeVeque, Algorithms for Computing the Sample Variance, The American Statistician 37(3), 1983.
So the variance is never negative, is exactly 0 for equal samples, and a huge sample leaves no trace once it has left.
"""

import math

from engine.kernel.indicators.base import Floats, Windowed, check


class Moments(Windowed):
    """Abstract: `center` and `squares`, the mean of the window and the sum of squared deviations from it.

    `window` holds the samples of this block up to the cursor, and from there the means of the last block's tails.
    """

    newest: float
    pivot: float
    first: float  # sums of this block about its pivot
    second: float
    center: float
    squares: float
    window: Floats
    tails: Floats  # sums of squared deviations of the last block's tails

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
            self.pivot = x
            self.first = 0.0
            self.second = 0.0
        d = x - self.pivot
        self.newest = x
        self.first += d
        self.second += d * d
        self.window[slot] = x
        self.n += 1
        slot += 1
        shift = self.first / slot
        center = self.pivot + shift
        squares = max(0.0, self.second - self.first * shift)
        if slot == length:
            slot = 0
            self.fold(length)
        elif self.n > length:  # join the tail of the last block
            apart = center - self.window[slot]
            share = slot / length
            center = self.window[slot] + apart * share
            squares += self.tails[slot] + apart * apart * share * (length - slot)
        self.cursor = slot
        self.center = center
        self.squares = squares

    def fold(self, length: int) -> None:
        """Turn the block just filled into its tails; amortised over the block this is O(1) a sample."""
        slot = length - 1
        pivot = self.window[slot]
        first = 0.0
        second = 0.0
        while slot > 0:  # the whole block is never a tail: slot 0 is not needed
            d = self.window[slot] - pivot
            first += d
            second += d * d
            shift = first / (length - slot)
            self.window[slot] = pivot + shift
            self.tails[slot] = max(0.0, second - first * shift)
            slot -= 1

    @property
    def population(self) -> float:
        """Standard deviation of the window, divisor `length`; nan before it is full."""
        return math.sqrt(self.squares / self.length) if self.ready else math.nan

    @property
    def sample(self) -> float:
        """Standard deviation, divisor `length - 1`; nan before the window is full and for a length of 1."""
        return math.sqrt(self.squares / (self.length - 1)) if self.ready and self.length > 1 else math.nan


class Deviation(Moments):
    """Rolling standard deviation: of the population (TA-Lib STDDEV), and as `sample` with divisor length - 1 (pandas).

    >>> Deviation.scan([1.0, 3.0, 5.0, 3.0], 2).round(6).tolist()
    [[nan, nan], [1.0, 1.414214], [1.0, 1.414214], [1.0, 1.414214]]
    """

    outputs = ("population", "sample")

    def update(self, x: float, length: int) -> float:
        """Take a sample; the population's standard deviation, or nan."""
        if math.isfinite(x):
            self.push(x, length)
        return self.population


class ZScore(Moments):
    """Distance of the newest sample from the mean of the window, in standard deviations of the population.

    nan before the window is full, and where all its samples are equal (0 / 0).

    >>> ZScore.scan([1.0, 3.0, 5.0, 3.0, 3.0], 2).tolist()
    [nan, 1.0, 1.0, -1.0, nan]
    """

    def update(self, x: float, length: int) -> float:
        """Take a sample; its score, or nan."""
        if math.isfinite(x):
            self.push(x, length)
        return self.latest

    @property
    def latest(self) -> float:
        """What the last update returned."""
        if not self.ready or self.squares <= 0.0:
            return math.nan
        return (self.newest - self.center) / self.population


class Bollinger(Moments):
    """Bollinger bands: the mean of the window, and `width` standard deviations of the population above and below it.

    Source: J. Bollinger, Bollinger on Bollinger Bands, 2001; usual: length 20, width 2.

    >>> Bollinger.scan([1.0, 3.0, 5.0], 2, 2.0).tolist()
    [[nan, nan, nan], [2.0, 4.0, 0.0], [4.0, 6.0, 2.0]]
    """

    outputs = ("middle", "upper", "lower")
    width: float

    def update(self, x: float, length: int, width: float) -> float:
        """Take a sample; the middle band, or nan."""
        if math.isfinite(x):
            self.width = width
            self.push(x, length)
        return self.middle

    @property
    def middle(self) -> float:
        """The mean of the window."""
        return self.center if self.ready else math.nan

    @property
    def upper(self) -> float:
        """The band above."""
        return self.middle + self.width * self.population

    @property
    def lower(self) -> float:
        """The band below."""
        return self.middle - self.width * self.population

    @property
    def percent_b(self) -> float:
        """Where the newest sample lies: 0 on the lower band, 1 on the upper; nan where the bands meet."""
        reach = 2.0 * self.width * self.population
        return (self.newest - self.lower) / reach if reach > 0.0 else math.nan

    @property
    def bandwidth(self) -> float:
        """(upper - lower) / middle; nan where the middle is 0."""
        return (self.upper - self.lower) / self.middle if self.middle != 0.0 else math.nan
