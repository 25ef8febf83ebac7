"""The session: one kernel driven from one feed to one venue. A pure function of its events, and it has no clock.

A *moment* is the market data of one drain: events of equal `recv`. When it is over the slice is closed: universe
strategies act, losses are watched. It is over when a later event comes, when the caller says so (he drains what is
there, and his next drain is later), or at a SLICE marker, which stands on the tape where a moment was closed although
more of the same `recv` followed. Reports, commands and corrections belong to no moment and close none.

Law 1: events are journalled before the kernel sees them, orders before they are handed over.
Law 2: any partition of the tape into pieces gives the same bytes; so does a replay.
Law 3: this and `backtest.loop` drive the same `step`; law 6 welds them together.
"""

import ctypes
from typing import Any

import numpy as np

from engine.errors import KernelHalted, StrategyError
from engine.journal import JournalWriter, snapshots
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.machine import Machine
from engine.kernel.records import Order, Refusal, slots
from engine.kernel.strategy import Strategy
from engine.session_loop import Pace, SessionLoop, program

OPAQUE = np.dtype((np.void, 64))  # rows copied whole
BUFFER = 4096  # orders and refusals between two drains of the compiled driver, beyond what one event may bring
NEVER = -(1 << 62)
Rows = np.ndarray[Any, Any]
NO_ORDERS, NO_REFUSALS = np.zeros(0, Order.dtype), np.zeros(0, Refusal.dtype)


class Session:
    """Drives a machine; what goes in and what comes out goes through the journal, if there is one.

    `faults`: (strategy, number of the event) of those that a fault has stopped. `refused`: what risk refused during the
    latest call. Commands are events: each takes the time of its receipt, as a drain of its own.
    """

    def __init__(self, machine: Machine, journal: JournalWriter | None = None, *, compiled: bool = True,
                 snapshot_every: int = 0) -> None:  # fmt: skip
        self.machine, self.journal, self.snapshot_every = machine, journal, snapshot_every
        self.run, self._address = program(compiled), 0
        self.faults: list[tuple[int, int]] = []
        self.reloads: dict[int, dict[str, Any]] = {}  # strategy -> what its latest reload has put in place
        self.classes: dict[int, type[Strategy]] = {}
        self.refused: Rows = np.zeros(0, Refusal.dtype)
        z = machine.sizes
        self._orders = np.empty(z.outbox + BUFFER, Order.dtype)
        self._refusals = np.empty(z.refusals + BUFFER, Refusal.dtype)
        s = self.loop = SessionLoop.new()
        self._address = s._address
        s.kernel, s.ctx = machine.kernel._address, machine.ctx._address
        s.orders, s.orders_cap = self._orders.ctypes.data, len(self._orders)
        s.refusals, s.refusals_cap = self._refusals.ctypes.data, len(self._refusals)
        self._marked = s.pace.moment = NEVER
        self._snapped = journal.written if journal else 0
        k = machine.kernel
        self._tape, self._index, self._length, self._closing = map(s.cell, ("tape", "index", "length", "closing"))
        self._orders_n, self._refusals_n, self._status = map(s.cell, ("orders_n", "refusals_n", "status"))
        self._halt, self._faulted = k.cell("halt"), k.cell("faulted")
        self._opened, self._moment = s.pace.cell("opened"), s.pace.cell("moment")

    @property
    def halted(self) -> int:
        """Why the kernel has halted, 0 while it runs."""
        return int(self._halt.value)

    def advance(self, events: Rows, closing: bool = True) -> Rows:
        """Drive on over what was drained; the orders to send, in order.

        `closing`: the moment ends with these events, what comes next is later. Raises KernelHalted when the kernel had
        halted before; JournalError when the journal does not take the events (the kernel has not seen them then) or
        the orders (nothing may be sent then, and the session cannot go on).
        """
        if self._halt.value:
            raise halt_error(self.machine)
        self.snapshot_if_due()
        if not self._opened.value and len(events):
            moment = self._moment.value
            if self._marked != moment == events["recv"][0]:
                self._marked = moment
                self._drive(event(codes.SLICE, moment), False)
        return self._drive(events, closing)

    def _drive(self, events: Rows, closing: bool) -> Rows:
        journal, count, faulted = self.journal, len(events), self._faulted.value
        if journal is not None and count:
            journal.events(events)
        self._tape.value, self._index.value = events.ctypes.data, 0
        self._length.value, self._closing.value = count, closing
        orders, refused = NO_ORDERS, NO_REFUSALS
        while True:
            self.run(self._address)
            if len(found := self._orders[: self._orders_n.value]):
                orders = together([orders, found], Order.dtype) if len(orders) else copied(found)
            if len(found := self._refusals[: self._refusals_n.value]):
                refused = together([refused, found], Refusal.dtype) if len(refused) else copied(found)
            self._orders_n.value = self._refusals_n.value = 0
            if self._status.value != codes.DRAIN:
                break
        self.refused = refused
        if journal is not None:
            for told, rows in ((journal.refusals, refused), (journal.orders, orders)):
                if len(rows):
                    told(rows)
        if self._faulted.value != faulted:
            k = self.machine.kernel
            known = {strategy for strategy, _ in self.faults}
            stopped = ((n, slots(k, n)) for n in range(k.strategies) if n not in known)
            self.faults += [(n, int(slot.fault_seq)) for n, slot in stopped if slot.fault]
        return orders

    def state(self) -> bytes:
        """Kernel and pace."""
        return self.machine.snapshot() + self.loop.pace.tobytes()

    def restore(self, state: bytes) -> None:
        """Back to a state of a session of the same shape. Raises ConfigError when it is of another."""
        size = Pace.dtype.itemsize
        self.machine.restore(state[:-size])
        ctypes.memmove(self.loop.pace._address, state[-size:], size)
        rows = ((n, slots(self.machine.kernel, n)) for n in range(self.machine.kernel.strategies))
        self.faults = [(n, int(slot.fault_seq)) for n, slot in rows if slot.fault]

    def go_on(self, journal: JournalWriter, snapshot_every: int = 0) -> None:
        """Write to a journal from now on."""
        self.journal, self.snapshot_every, self._snapped = journal, snapshot_every, journal.written

    def snapshot_if_due(self) -> None:
        """Save the state after every so many events. Raises JournalError when the system refuses."""
        if self.snapshot_every and self.journal and self.journal.written - self._snapped >= self.snapshot_every:
            self.snapshot()

    def snapshot(self) -> None:
        """Save the state beside the journal, for a restart. Raises JournalError when the system refuses."""
        if self.journal is not None:
            self.journal.sync()  # a snapshot is never ahead of its journal
            words = {"reloads": {str(n): words for n, words in self.reloads.items()}}
            snapshots.save(self.journal.folder, snapshots.Snapshot(self.journal.place, words, self.state()))
            self._snapped = self.journal.written

    def kill(self, recv: int, flatten: bool = False) -> Rows:
        """Cancel everything and refuse every order from now on, across restarts, until it is cleared."""
        return self.advance(event(codes.COMMAND, recv, code=codes.KILL, amount=float(flatten)))

    def clear_kill(self, recv: int) -> Rows:
        """Let orders pass again."""
        return self.advance(event(codes.COMMAND, recv, code=codes.CLEAR_KILL))

    def trading(self, recv: int, level: int) -> Rows:
        """codes.LIVE, codes.SIMULATION (signals and verdicts, no orders) or codes.OBSERVATION (no signals)."""
        return self.advance(event(codes.COMMAND, recv, code=codes.TRADING, amount=float(level)))

    def pause(self, recv: int, strategy: int) -> Rows:
        """Let a strategy see nothing; its orders stay."""
        return self.advance(event(codes.COMMAND, recv, code=codes.PAUSE, strategy=strategy))

    def resume(self, recv: int, strategy: int) -> Rows:
        """Let a strategy run again; one that failed needs other code first."""
        return self.advance(event(codes.COMMAND, recv, code=codes.RESUME, strategy=strategy))

    def reload(self, recv: int, strategy: int, fresh: Strategy, addresses: dict[str, int], *, name: str,
               image: str) -> Rows:  # fmt: skip
        """Other code or other parameters for a strategy, between two events; its state stays.

        `name`, `image`: how its class is found and the digest of its code, for a replay. Raises StrategyError when the
        state of the new class has another layout.
        """
        check_layout(self.machine, strategy, type(fresh))
        self.snapshot_if_due()  # not between what the journal is told now and the command
        number = self.journal.place.reloads if self.journal else 0
        words = {"strategy": strategy, "name": name, "image": image, "params": fresh.values}
        if self.journal is not None:
            self.journal.reload(words)
        orders = self.advance(event(codes.COMMAND, recv, code=codes.RELOAD, strategy=strategy, order_id=number))
        self.swap(strategy, fresh, addresses, words)
        return orders

    def running(self, strategy: int) -> Strategy:
        """The strategy as it is now: its class, its parameters and state."""
        kind = self.classes.get(strategy, type(self.machine.placed[strategy].strategy))
        return kind.at(self.machine.state(strategy)._address)

    def swap(self, strategy: int, fresh: Strategy, addresses: dict[str, int], words: dict[str, Any]) -> None:
        """What the command RELOAD stands for."""
        check_layout(self.machine, strategy, type(fresh))
        self.machine.reload(strategy, fresh, addresses)
        self.reloads[strategy], self.classes[strategy] = words, type(fresh)
        self.faults = [one for one in self.faults if one[0] != strategy]


def check_layout(machine: Machine, strategy: int, fresh: type[Strategy]) -> None:
    """Raise StrategyError unless a class keeps its state as the one that runs does."""
    if not 0 <= strategy < len(machine.placed):
        raise StrategyError(f"There is no strategy {strategy}; the session has {len(machine.placed)}, from 0 on.")
    running = type(machine.placed[strategy].strategy)
    if fresh.dtype != running.dtype or fresh.universe != running.universe or list(fresh.params) != list(running.params):
        raise StrategyError(f"{fresh.__qualname__} cannot take over: its parameters and state are laid out differently "
                            f"from those of {running.__qualname__}, which runs. Restart the session with it, or keep "
                            "the fields as they are.")  # fmt: skip


def event(kind: int, recv: int, **fields: Any) -> Rows:
    """One event of the engine's own."""
    row = np.zeros(1, Event.dtype)
    row["kind"], row["ts"], row["recv"] = kind, recv, recv
    for name, value in fields.items():
        row[name] = value
    return row


def copied(rows: Rows) -> Rows:
    """Rows of their own, whole."""
    return rows.view(OPAQUE).copy().view(rows.dtype)


def together(parts: list[Rows], dtype: "np.dtype[Any]") -> Rows:
    """Rows end to end; numpy's own concatenate would copy overlapping fields one by one."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.zeros(0, OPAQUE), *(part.view(OPAQUE) for part in parts)]).view(dtype)


def halt_error(machine: Machine) -> KernelHalted:
    """The exception that a halted kernel becomes."""
    code = machine.kernel.halt
    word = codes.NAMES["halt"].get(code, str(code))
    cures = {
        codes.HALT_RISK: "a risk limit asked for it; see the refusals",
        codes.HALT_OVERFLOW: "more orders in one event than sizes.outbox holds; raise it",
        codes.HALT_CLOCK: "an event is older than the one before it; sort the tape by time",
        codes.HALT_INSTRUMENT: "an event names an instrument that the kernel does not have",
    }
    return KernelHalted(
        f"The kernel halted ({word}) at event {machine.kernel.seq}, {machine.kernel.ts} ns: "
        f"{cures.get(code, 'a broken invariant')}.",
        code,
    )
