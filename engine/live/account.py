"""What the reports of an account add up to: lots filled by order, and the average price of what is held.

Law: it says nothing rather than something that is not so: 0 for the lots of an order that is no longer kept, 0.0 for
the average of a position that these reports do not explain (a split, reports from before its time).
"""

import numpy as np

from engine.kernel import codes
from engine.ports import Events

KEEP = 1 << 17  # orders with fills that are kept


class Account:
    """Reports go in once, in order, by `add`."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep, self._filled = keep, dict[int, int]()
        self._forgotten = -1  # the highest id of an order that is no longer kept
        self._held: dict[int, tuple[int, float]] = {}  # instrument -> lots, average

    def add(self, reports: Events) -> None:
        """Count new reports, and put into `recv` of each fill how many lots of its order are filled with it."""
        for n in np.flatnonzero(reports["code"] == codes.FILL).tolist():
            order, lots, price = (reports[name][n].item() for name in ("order_id", "qty", "price"))
            known = self._filled.pop(order, None if order <= self._forgotten else 0)
            reports["recv"][n] = 0
            if known is not None:
                reports["recv"][n] = self._filled[order] = known + abs(lots)
            i = int(reports["instrument"][n])
            self._held[i] = added(*self._held.get(i, (0, 0.0)), lots, price)
        while len(self._filled) > self._keep:
            oldest = next(iter(self._filled))
            del self._filled[oldest]
            self.forget(oldest)

    def forget(self, order: int) -> None:
        """Of orders up to this id nothing is known but what is kept."""
        self._forgotten = max(self._forgotten, order)

    def recount(self, reports: Events) -> None:
        """Put the same into reports that were added before, the latest of all among them."""
        later: dict[int, int] = {}
        for n in np.flatnonzero(reports["code"] == codes.FILL)[::-1].tolist():
            order = int(reports["order_id"][n])
            reports["recv"][n] = max(0, self._filled.get(order, 0) - later.get(order, 0))
            later[order] = later.get(order, 0) + abs(int(reports["qty"][n]))

    def average(self, instrument: int, lots: int) -> float:
        """The price at which a position of so many lots was opened."""
        known, price = self._held.get(instrument, (0, 0.0))
        return price if known == lots else 0.0


def added(lots: int, average: float, more: int, price: float) -> tuple[int, float]:
    """A position and its average price after a fill of `more` lots, signed."""
    now = lots + more
    if lots * more >= 0:
        return now, (average * abs(lots) + price * abs(more)) / max(abs(now), 1)
    return now, 0.0 if now == 0 else average if lots * now > 0 else price
