"""Times of receipt and timers: the only clock that a session's events know."""

from collections.abc import Callable

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.session import Rows, event

NONE = np.zeros(0, Event.dtype)


class Clock:
    """`now`: ns. `last`: the latest time of receipt so far. `timer_ms`: between two TIMER events, 0 = none."""

    def __init__(self, now: Callable[[], int], last: int, timer_ms: int) -> None:
        self.now, self.latest, self._step = now, last, timer_ms * 1_000_000
        self._number = 0

    def receipt(self) -> int:
        """The time of receipt of a drain: the clock, but always later than the one before."""
        self.latest = max(self.now(), self.latest + 1)
        return self.latest

    def due(self) -> Rows:
        """A TIMER event when one is due; what was missed is not made up for."""
        if not self._step:
            return NONE
        now = self.now()
        number = now // self._step
        if number <= self._number:
            return NONE
        first, self._number = not self._number, number
        return event(codes.TIMER, now)[: 0 if first else 1]

    def wait_s(self, most: float) -> float:
        """Seconds until the next timer, `most` at most."""
        return min(most, (self._step - self.now() % self._step) / 1e9 + 1e-4) if self._step else most
