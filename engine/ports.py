"""The borders: what brings events, what takes orders, and what a venue says when it is asked.

Law 1: a port has at most three methods; the fake of a test is shorter than fifty lines.
Law 2: an order is unknown to a venue only when the venue says so; whatever it did not answer stays in doubt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from engine.kernel.events import Event

Events = np.ndarray[Any, Any]  # rows of Event.dtype
Orders = np.ndarray[Any, Any]  # rows of Order.dtype


class Feed(Protocol):
    """An ordered source of events: market data, execution reports, timers."""

    async def start(self, wake: Callable[[], None]) -> None:
        """Connect and begin to receive; `wake` is called, on the loop, whenever there is something to drain."""

    def drain(self) -> Events:
        """The events received since the last call, in order of arrival. Never blocks; `recv` is the engine's to set."""

    async def stop(self) -> None:
        """Receive no more."""


@dataclass(frozen=True)
class Standing:
    """An order as the venue has it: lots, prices, and its state (codes.WORKING, or one of codes.DONE_…)."""

    id: int
    instrument: int
    side: int
    qty: int
    filled: int
    price: float
    stop: float
    state: int


@dataclass(frozen=True)
class VenueView:
    """What a venue says about us, as of its report `last_exec`.

    `orders`: of the ids asked for, what it has; None = it says that it never had the order; an id that is not here
    was not answered. `working`: every open order of ours. `reports`: execution reports in order, from `since` on:
    all with `exec_id > since`; `recv` of a fill: see `engine.live.messages`. `positions`: net lots by instrument, None
    when it does not say.
    """

    orders: Mapping[int, Standing | None] = field(default_factory=dict)
    working: Sequence[Standing] = ()
    reports: Events = field(default_factory=lambda: np.zeros(0, Event.dtype))
    since: int = 0
    last_exec: int = 0
    positions: np.ndarray[Any, Any] | None = None
