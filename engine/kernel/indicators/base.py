"""What every indicator has in common.

Law 1: zeroed memory is the initial state. No constructor runs, so snapshot = bytes holds from the first event.
Law 2: a value is nan until the window is full. A comparison with nan is False, so a strategy that only compares waits.
Law 3: a sample that is not finite (nan, inf) is no sample: state and value stay. So indicators chain through warm-up:
       `self.smooth.update(self.rsi.update(bar.close, 14), 5)` counts from the first RSI that exists.
Law 4: lengths are arguments of `update`; a changed length starts the window anew.
Law 5: nothing drifts. A sum that slides carries its rounding error along (Mean) or is replaced, once per window, by
       one that was summed afresh; where cancellation would hurt (deviations, volumes) nothing is ever subtracted.

How law 5 costs nothing: the ring has exactly `length` slots, so each time its cursor returns to 0 the window is the
block just written. A second sum that starts at 0 with each block is then the exact sum of the window. Without
subtraction, a window is the tail of the last block and the head of this one; tails are computed once per block.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from engine.errors import ConfigError
from engine.kernel.layout import Array, Capacity, Record

if TYPE_CHECKING:
    Floats = list[float]  # what the methods may do with it: index it and ask its length
else:
    Floats = Array[float, Capacity]


class Indicator(Record):
    """Base of all indicators: a record with `update(...)`. Subclass it for one of your own.

    `outputs` names what `scan` records: the first is what `update` returns, the others are attributes.

    >>> class Range(Indicator):
    ...     def update(self, high, low):
    ...         return high - low
    >>> Range.scan([3.0, 5.0], [1.0, 4.5]).tolist()
    [2.0, 0.5]
    """

    outputs: ClassVar[tuple[str, ...]] = ("latest",)

    @classmethod
    def scan(cls, *inputs: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """The indicator over arrays, for research: `Mean.scan(close, 20)`, `ATR.scan(high, low, close, 14)`.

        Inputs as `update` takes them, with an array (numpy, polars, pandas, list; shape (n,)) for each sample.
        Returns (n,), or (n, len(outputs)) when there are several. ConfigError when the arrays do not fit.
        """
        from engine.kernel.scan import scan  # compiles on first use; a strategy does not need it

        arrays = tuple(np.ascontiguousarray(x, np.float64) for x in inputs if hasattr(x, "__len__"))
        if not arrays or {a.shape for a in arrays} != {(arrays[0].size,)}:
            shapes = ", ".join(str(a.shape) for a in arrays) or "none"
            raise ConfigError(f"{cls.__name__}.scan needs arrays of one dimension and one length, got {shapes}.")
        return scan(cls, arrays, tuple(x for x in inputs if not hasattr(x, "__len__")))


class Windowed(Indicator):
    """Abstract: an indicator over the last `length` samples; `n` counts samples, `cursor` is the slot of the next."""

    n: int
    length: int
    cursor: int

    @property
    def ready(self) -> bool:
        """Whether the window is full."""
        return self.n > 0 and self.n >= self.length


def check(length: int, capacity: int) -> None:
    """ValueError or IndexError for a length that an indicator of this capacity cannot have."""
    if length < 1:
        raise ValueError("the length of an indicator must be at least 1")
    if length > capacity:
        raise IndexError("the length is beyond the capacity of the indicator: declare more, such as Mean[4096]")
