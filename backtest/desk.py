"""The paper venue: the simulated venue of the backtest as something that one talks to.

Market events go in and reports come out; orders go in and reports come out; what is open, held, or was reported can be
asked at any time. Behind the gRPC service this is paper trading; beside a session in one process it is law 6.

Law 1: it matches with the functions of the loops, so the same feed and the same orders give the same reports.
Law 2: an instruction that is repeated (same id, action and cause) has no effect and gets the reports it got before.
Law 3: exec ids count the reports from 1, without a gap; the latest `keep` of them can be had again.
"""

import ctypes
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backtest import paper
from backtest.drive import SimulatedVenue
from backtest.records import Loop, VenueOrder
from backtest.spool import joined
from engine.config import VenueModel
from engine.kernel import build, codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.ports import Events, Orders, Standing, VenueView
from engine.store.tape import ROW

PROGRAM: tuple[str, dict[str, Callable[[int], None]]] = ("venue", {
    "bars_meet": paper.bars_meet, "bars_close": paper.bars_close, "bars_order": paper.bars_order,
    "ticks_meet": paper.ticks_meet, "ticks_order": paper.ticks_order,
    "ticks_expire": paper.ticks_expire,
})  # fmt: skip
ENDS = {codes.REJECT: codes.DONE_REJECTED, codes.CANCELLED: codes.DONE_CANCELLED, codes.EXPIRED: codes.DONE_EXPIRED}
Instruction = tuple[int, int, int]  # id, action, seq of the event that caused it


def entries(compiled: bool = True) -> dict[str, Callable[[int], None]]:
    """The entry points of the paper venue's program, or the same in plain Python."""
    if not compiled:
        return PROGRAM[1]
    addresses = build.program(*PROGRAM).addresses
    return {name: ctypes.CFUNCTYPE(None, ctypes.c_int64)(address) for name, address in addresses.items()}


class VenueDesk:
    """One account at a simulated venue. `ticks`: its market is quotes, trades and depth, else bars; `depth`: of which
    instruments depth is told.

    `instruments` as for the kernel (records of Instrument), `cash` and `leverage` of the account, `orders`: how many it
    holds at most, `sessions`: the hours of each instrument, as SimulatedVenue has them. Times are ns, quantities lots.
    """

    def __init__(
        self, instruments: "np.ndarray[Any, Any]", cash: float, model: VenueModel, *, leverage: float = 1.0,
        orders: int = 1024, ticks: bool = False, compiled: bool = True, keep: int = 1 << 20,
        depth: Sequence[int] = (), sessions: "Sequence[np.ndarray[Any, Any]]" = (),
    ) -> None:  # fmt: skip
        self.venue = SimulatedVenue(instruments, cash, model, leverage, orders, ticks, depth, sessions)
        self.ticks, self.keep = ticks, keep
        self._run, self._first = entries(compiled), len(instruments)
        self._tape = np.zeros(self._first + 1024, Event.dtype)
        self._reports = np.zeros(4 * (orders + 2) + 1024 + self.venue.header.levels, Event.dtype)
        self._history: list[Events] = []  # the reports of each call that had any
        self._dropped = 0  # exec id of the latest report that is no longer kept
        self._answers: dict[Instruction, tuple[int, int]] = {}  # its reports: after this exec id, up to that one
        self._placed: dict[int, Orders] = {}  # id -> the new order
        self._forgotten: dict[int, tuple[int, int]] = {}  # session -> latest cause and id that are no longer kept
        lp = self.loop = Loop.new()
        lp.venue, lp.reports, lp.reports_cap = self.venue.header._address, self._reports.ctypes.data, len(self._reports)

    @property
    def now(self) -> int:
        """The venue's clock: the time of the latest thing that it has seen, ns."""
        return int(self.venue.header.ts)

    @property
    def last_exec(self) -> int:
        """The number of the latest report."""
        return int(self.venue.header.next_exec)

    def market(self, events: Events) -> Events:
        """Market events in order of time; the reports that they bring about. Bars of one time are matched together."""
        found: list[Events] = []
        if self.ticks:
            while len(events):
                done, reports = self.until_report(events)
                found.append(reports)
                events = events[done:]
        elif len(events := events[events["kind"] != codes.GAP]):
            for part in np.split(events, np.flatnonzero(np.diff(events["ts"])) + 1):
                found += [self.meet(part), self.close(part)]
        return together(found)

    def until_report(self, events: Events) -> tuple[int, Events]:
        """Quotes and trades up to the first that brings about reports: how many were taken, and the reports."""
        begin = self._load(events)
        reports = self._call("ticks_meet")
        return self.loop.index - begin, reports

    def meet(self, events: Events) -> Events:
        """The first half of a timestamp of bars: they meet the held orders. `close` with the same events follows."""
        self._load(events)
        return self._call("bars_meet")

    def close(self, events: Events) -> Events:
        """The second half: last prices and corporate actions."""
        self._load(events)
        return self._call("bars_close")

    def expire(self) -> Events:
        """The next order whose time is up ends, at `venue.header.next_expiry`."""
        return self._call("ticks_expire")

    def orders(self, orders: Orders, now: int | None = None) -> Events:
        """Instructions arrive; the reports that they bring about, or brought about when they came before.

        `now`: when they arrive, such as `desk.now` where they really had a way to go (default: the latency of the
        model after they were sent). An order that arrives after one bar meets the next.
        """
        found, entry, session = [], "ticks_order" if self.ticks else "bars_order", 0
        for row in orders.view(ROW).reshape(-1, 1).copy():
            order = row.view(Order.dtype)
            key = (int(order["id"][0]), int(order["action"][0]), int(order["seq"][0]))
            session = key[0] >> 40
            if key in self._answers:
                after, upto = self._answers[key]
                found.append(self.reports(after, upto))
                continue
            if key[2] <= self._forgotten.get(session, (-1, 0))[0]:
                continue  # a repetition of what is no longer kept
            if now is not None and not self.ticks:
                order["ts"] = now
            after = self.last_exec
            lp = self.loop
            lp.orders, lp.arrived, lp.orders_n, lp.stop = order.ctypes.data, 0, 1, now or 0
            found.append(self._call(entry))
            self._answers[key] = (after, self.last_exec)
            if key[1] == codes.NEW:
                self._placed[key[0]] = order
        self._forget()
        return together(found)

    def begin_after(self, exec_id: int) -> None:
        """Number the reports of a new desk from the next one on: it goes on for another whose book is lost."""
        self.venue.header.next_exec = self._dropped = exec_id

    def knows(self, order_id: int, action: int, cause: int) -> bool:
        """Whether an instruction came before: a repetition has no effect."""
        return (order_id, action, cause) in self._answers or cause <= self._forgotten.get(order_id >> 40, (-1, 0))[0]

    def reports(self, after: int, upto: int | None = None) -> Events:
        """The reports with exec ids above `after`, up to and including `upto`, as far as they are kept."""
        every = self._kept()
        return every[max(0, after - self._dropped) : None if upto is None else max(0, upto - self._dropped)]

    def open_orders(self) -> "np.ndarray[Any, Any]":
        """The orders that are held, as VenueOrder rows, in order of arrival within an instrument."""
        v = self.venue.header
        rows = self.venue.memory[v.orders_at :][: v.orders_cap * VenueOrder.dtype.itemsize].view(VenueOrder.dtype)
        found = []
        for row in self.venue.markets["head"].tolist():
            while row >= 0:
                found.append(row)
                row = int(rows["next"][row])
        return rows[found]

    def positions(self) -> "np.ndarray[Any, Any]":
        """Net lots by instrument."""
        return self.venue.markets["net"].copy()

    def lookup(self, order_id: int) -> Standing | None:
        """What has become of an order; None when it never came. Raises KeyError for one that is no longer kept."""
        placed = self._placed.get(order_id)
        if placed is None:
            if order_id <= self._forgotten.get(order_id >> 40, (0, 0))[1]:
                raise KeyError(order_id)
            return None
        every = self._kept()
        mine = every[every["order_id"] == order_id]
        filled, state = int(np.abs(mine["qty"][mine["code"] == codes.FILL]).sum()), codes.WORKING
        qty, price, stop = (placed[name][0].item() for name in ("qty", "price", "stop"))
        for report in mine[np.isin(mine["code"], (codes.REPLACED, *ENDS))]:
            if report["code"] == codes.REPLACED:
                qty, price, stop = abs(int(report["qty"])), float(report["price"]), float(report["fee"])
            else:
                state = ENDS[int(report["code"])]
        if state == codes.WORKING and filled == qty:
            state = codes.DONE_FILLED
        return Standing(order_id, int(placed["instrument"][0]), int(placed["side"][0]), qty, filled, price, stop, state)

    def view(self, ids: Sequence[int] = (), since: int = 0) -> VenueView:
        """Everything at once, as of now: the orders asked for, the open ones, reports after `since`, positions."""
        held, found = {int(row["id"]): row for row in self.open_orders()}, dict[int, Standing | None]()
        for order_id in dict.fromkeys([*ids, *held]):
            try:
                found[order_id] = self.lookup(order_id)
            except KeyError:  # no longer kept: it is not answered, unless the book has it
                if order_id in held:
                    found[order_id] = resting(held[order_id])
        working = [one for order_id in held if (one := found[order_id])]
        asked = {order_id: found[order_id] for order_id in ids if order_id in found}
        return VenueView(asked, working, self.reports(since), max(since, self._dropped), self.last_exec,
                         self.positions())  # fmt: skip

    def snapshot(self) -> bytes:
        """Everything that a desk of the same settings needs to go on where this one is."""
        out = io.BytesIO()
        answers = [[*key, *value] for key, value in self._answers.items()]
        forgotten = [[session, *pair] for session, pair in self._forgotten.items()]
        np.savez(out, venue=self.venue.memory, latest=self._tape[: self._first].view(np.uint8),
                 history=self._kept().view(np.uint8), dropped=np.int64(self._dropped),
                 answers=np.array(answers, np.int64).reshape(-1, 5),
                 placed=np.concatenate([np.zeros(0, np.uint8), *(o.view(np.uint8) for o in self._placed.values())]),
                 forgotten=np.array(forgotten, np.int64).reshape(-1, 3))  # fmt: skip
        return out.getvalue()

    def restore(self, state: bytes) -> None:
        """Back to a snapshot of a desk with the same settings. Raises ValueError when they differ."""
        with np.load(io.BytesIO(state)) as kept:
            self.venue.memory[:] = kept["venue"]
            self._tape[: self._first].view(np.uint8)[:] = kept["latest"]
            self._history, self._dropped = [kept["history"].view(Event.dtype)], int(kept["dropped"])
            self._answers = {(a, b, c): (d, e) for a, b, c, d, e in kept["answers"].tolist()}
            placed = kept["placed"].view(Order.dtype)
            self._placed = {int(placed["id"][n]): placed[n : n + 1] for n in range(len(placed))}
            self._forgotten = {session: (seq, highest) for session, seq, highest in kept["forgotten"].tolist()}

    def _kept(self) -> Events:
        self._history = [together(self._history)]
        return self._history[0]

    def _load(self, events: Events) -> int:
        """Put events behind the latest bars; where they begin."""
        first, n = self._first, len(events)
        if first + n > len(self._tape):
            self._tape = np.concatenate([self._tape.view(ROW), np.zeros(n, ROW)]).view(Event.dtype)
        self._tape.view(ROW)[first : first + n] = events.view(ROW)
        lp = self.loop
        lp.tape, lp.index, lp.length = self._tape.ctypes.data, first, first + n
        return first

    def _call(self, entry: str) -> Events:
        lp, found = self.loop, []
        while True:
            self._run[entry](lp._address)
            if lp.reports_n:
                found.append(self._reports[: lp.reports_n].view(ROW).copy().view(Event.dtype))
                lp.reports_n = 0
            if lp.status != codes.DRAIN:
                break
        self._history += found
        return together(found)

    def _forget(self) -> None:
        """Keep what is kept within its bound."""
        while len(self._answers) > self.keep:
            order_id, action, seq = key = next(iter(self._answers))
            session = order_id >> 40
            before = self._forgotten.get(session, (-1, 0))
            self._forgotten[session] = (max(before[0], seq), max(before[1], order_id))
            del self._answers[key]
            if action == codes.NEW:
                del self._placed[order_id]
        while self._history and self.last_exec - self._dropped - len(self._history[0]) >= self.keep:
            self._dropped += len(self._history.pop(0))


def resting(row: Any) -> Standing:
    """An order that is held, as the book alone has it."""
    order_id, instrument, side, qty, left = (int(row[name]) for name in ("id", "instrument", "side", "qty", "left"))
    return Standing(order_id, instrument, side, qty, qty - left, float(row["price"]), float(row["stop"]), codes.WORKING)


def together(parts: list[Events]) -> Events:
    """Events end to end."""
    parts = [part for part in parts if len(part)]
    return joined(parts) if len(parts) > 1 else parts[0] if parts else np.zeros(0, Event.dtype)
