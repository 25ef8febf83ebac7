"""A desk in forty lines: it acknowledges everything and fills what is open at the next trade of its instrument."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.ports import Standing, VenueView
from tests.live.events import report

ANSWER = {codes.NEW: codes.ACK, codes.CANCEL: codes.CANCELLED, codes.REPLACE: codes.REPLACED}


class SmallDesk:
    """See `engine.live.service.Desk`."""

    def __init__(self) -> None:
        self.now, self.rows, self.placed, self.done = 1, list[Any](), dict[int, Any](), dict[int, int]()
        self.known: set[tuple[int, int, int]] = set()
        self.net = np.zeros(3, np.int64)

    @property
    def last_exec(self) -> int:
        return len(self.rows)

    def _say(self, order_id: int, code: int, qty: int = 0, price: float = 0.0) -> None:
        row = report(self.last_exec + 1, order_id, code, qty, price)
        row["instrument"] = self.placed[order_id]["instrument"]
        self.rows.append(row)

    def market(self, events: Any) -> Any:
        before = self.last_exec
        for event in events[events["kind"] == codes.TRADE]:
            for i, row in self.placed.items():
                if i not in self.done and row["instrument"] == event["instrument"]:
                    self.done[i] = codes.DONE_FILLED
                    lots = int(row["qty"] * row["side"])
                    self.net[int(row["instrument"])] += lots
                    self._say(i, codes.FILL, lots, float(event["price"]))
        return self.reports(before)

    def orders(self, orders: Any, now: int | None = None) -> Any:
        before = self.last_exec
        for row in orders:
            i, action = int(row["id"]), int(row["action"])
            assert not self.knows(i, action, int(row["seq"])), "the service lets nothing through twice"
            self.known.add((i, action, int(row["seq"])))
            if action == codes.NEW:
                self.placed[i] = row.copy()
            elif action == codes.CANCEL:
                self.done[i] = codes.DONE_CANCELLED
            self._say(i, ANSWER[action])
        return self.reports(before)

    def knows(self, order_id: int, action: int, cause: int) -> bool:
        return (order_id, action, cause) in self.known

    def reports(self, after: int) -> Any:
        return np.concatenate([np.zeros(0, "V64"), *(r.view("V64") for r in self.rows[after:])]).view(Event.dtype)

    def positions(self) -> Any:
        return self.net

    def _standing(self, i: int) -> Standing:
        row, state = self.placed[i], self.done.get(i, codes.WORKING)
        filled = int(row["qty"]) if state == codes.DONE_FILLED else 0
        return Standing(
            i, int(row["instrument"]), int(row["side"]), int(row["qty"]), filled, float(row["price"]), 0.0, state
        )

    def view(self, ids: Sequence[int] = (), since: int = 0) -> VenueView:
        orders = {i: self._standing(i) if i in self.placed else None for i in ids}
        working = [self._standing(i) for i in self.placed if i not in self.done]
        return VenueView(orders, working, self.reports(since), since, self.last_exec, self.net)
