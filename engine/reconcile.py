"""Reconciliation: what the kernel believes, what the venue says, and the events that make them agree.

A pure function; whoever calls it sends the events through the session, so that they are journalled and replayed.

Law 1: reports come first and with the venue's exec ids; only what no report explains becomes a report of our own (exec
       id 0) or a CORRECTION, and each of these has a sentence for the operator.
Law 2: an order is unknown to the venue only when the venue says so. One that it did not answer stays in doubt, and what
       an order in doubt may explain is not corrected.
Law 3: whatever the venue says, the events bring the kernel to it: reconciling again finds nothing more.
Law 4: a position is taken over at a market price, so that equity stays what it was; without one it waits (`unpriced`).
Law 5: of a fill enters what the venue's own count of the order (`recv` of the report) has and we have not: one that was
       entered here and is told later, under whatever exec id, enters with 0 lots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.errors import JournalError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.machine import Machine
from engine.kernel.records import Order
from engine.ports import Events, Orders, Standing, VenueView

ENDS = {codes.DONE_CANCELLED: codes.CANCELLED, codes.DONE_REJECTED: codes.REJECT, codes.DONE_EXPIRED: codes.EXPIRED}
OPEN = (codes.SENT, codes.WORKING, codes.CANCELLING, codes.REPLACING)


@dataclass
class Known:
    """An order as the kernel has it."""

    id: int
    instrument: int
    strategy: int
    side: int
    qty: int
    filled: int
    price: float
    stop: float
    state: int


@dataclass
class KernelView:
    """What a kernel believes. `orders`: all it still knows; `net`: lots by instrument; `holders`: whose they are;
    `times`: when each of `marks` was shown, ns, 0 for one that is of now."""

    session: int
    next_order: int
    last_exec: int
    orders: dict[int, Known]
    net: list[int]
    marks: list[float]
    holders: "np.ndarray[Any, Any]"  # lots by strategy and instrument
    times: list[int]

    @classmethod
    def of(cls, machine: Machine) -> "KernelView":
        """A copy of what the kernel has now."""
        k, rows, markets = machine.kernel, machine.table("open_at"), machine.table("markets_at")
        orders = {}
        for row in rows[rows["state"] >= codes.SENT]:
            names = ("id", "instrument", "strategy", "side", "qty", "filled", "price", "stop", "state")
            known = Known(*(row[name].item() for name in names))
            orders[known.id] = known
        holders = machine.table("positions_at")["qty"].reshape(k.strategies, k.instruments).copy()
        return cls(k.session, k.next_order, k.last_exec, orders, markets["net"].tolist(), markets["mark"].tolist(),
                   holders, markets["ts"].tolist())  # fmt: skip

    def in_doubt(self) -> list[int]:
        """The orders whose latest instruction was not answered: what a venue has to be asked."""
        return [one.id for one in self.orders.values() if one.state in OPEN and one.state != codes.WORKING]

    def open(self) -> list[int]:
        """All orders that the venue may still fill."""
        return [one.id for one in self.orders.values() if one.state in OPEN]


@dataclass
class Reconciled:
    """What is to be done: `events` for the session, in order; `resend`: instructions that never arrived and may still
    be sent as they are; `doubt`: orders that the venue did not answer; `findings`: one sentence for each finding;
    `unpriced`: instruments to correct as soon as `KernelView.marks` has a price of them."""

    events: Events
    resend: Orders
    doubt: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    unpriced: list[int] = field(default_factory=list)


def reconcile(kernel: KernelView, venue: VenueView, recv: int, *, names: Sequence[str] = (), resend_ns: int = 0,
              instructions: Mapping[int, Orders] | None = None) -> Reconciled:  # fmt: skip
    """Events with time `recv` that bring the kernel to what the venue says.

    `names` of the instruments, for the findings. `instructions`: the latest instruction about an order, as journalled;
    one that never arrived is sent again when it is no older than `resend_ns`, a cancel always. Raises JournalError when
    the venue knows orders of this session that the journal does not have: their ids must not be used again.
    """
    return Work(kernel, venue, recv, names, resend_ns, instructions or {}).done()


def cut(reports: Events, n: int, filled: int) -> int:
    """Cut fill `n` to the lots that are new to who has `filled` of its order; how many were not."""
    lots, said = int(reports["qty"][n]), int(reports["recv"][n])
    known = max(0, abs(lots) - max(0, said - filled)) if said else 0
    reports["qty"][n] = lots - known if lots > 0 else lots + known
    return known


def cut_known(machine: Machine, reports: Events) -> list[str]:
    """Cut all fills among reports, which come next, to what is new to the kernel; a sentence for each that is not."""
    filled, table, found = dict[int, int](), machine.table("open_at"), list[str]()
    for n in np.flatnonzero((reports["code"] == codes.FILL) & (reports["recv"] != 0)).tolist():
        order = int(reports["order_id"][n])
        row = table[order & machine.kernel.order_mask]
        if int(row["id"]) == order and int(reports["exec_id"][n]) > machine.kernel.last_exec:
            have = filled.get(order, int(row["filled"]))
            if known := cut(reports, n, have):
                found.append(f"fill of order {order} (exec id {reports['exec_id'][n]}) tells {known} lots again")
            filled[order] = have + abs(int(reports["qty"][n]))
    return found


class Work:
    """One reconciliation under way; the orders of `kernel` change as the events will change them."""

    def __init__(self, kernel: KernelView, venue: VenueView, recv: int, names: Sequence[str], resend_ns: int,
                 instructions: Mapping[int, Orders]) -> None:  # fmt: skip
        self.kernel, self.venue, self.recv, self.names = kernel, venue, recv, names
        self.resend_ns, self.instructions = resend_ns, instructions
        self.rows: list[Events] = []
        self.again: list[Orders] = []
        self.doubt: list[int] = []
        self.findings: list[str] = []
        self.unpriced: list[int] = []

    def done(self) -> Reconciled:
        """Reports, then orders, then positions."""
        self.beyond()
        for report in self.venue.reports[self.venue.reports["exec_id"] > self.kernel.last_exec]:
            self.report(report)
        for order_id in self.kernel.open():
            self.order(self.kernel.orders[order_id])
        self.strangers()
        self.positions()
        events = np.concatenate([np.zeros(0, "V64"), *(row.view("V64") for row in self.rows)]).view(Event.dtype)
        events["recv"] = self.recv
        resend = np.concatenate([np.zeros(0, "V64"), *(row.view("V64") for row in self.again)]).view(Order.dtype)
        return Reconciled(events, resend, self.doubt, self.findings, self.unpriced)

    def beyond(self) -> None:
        """Raise for an order of this session at the venue that the kernel has not sent yet."""
        ids = [*(int(i) for i in self.venue.reports["order_id"]), *(one.id for one in self.venue.working)]
        latest = max((i for i in ids if i >> 40 == self.kernel.session), default=0)
        if latest & ((1 << 40) - 1) >= self.kernel.next_order and latest:
            raise JournalError(f"The venue knows order {latest} of session {self.kernel.session}, the journal ends "
                               "before it: its last blocks were lost. Ids must not be used twice: start a new journal "
                               "with another session number, and cancel at the venue what is open there.")  # fmt: skip

    def report(self, found: Any) -> None:
        """A report that the kernel has not seen, with the venue's exec id."""
        self.rows.append(row := np.array([found.tobytes()], "V64").view(Event.dtype))
        order, code, exec_id = (int(row[name][0]) for name in ("order_id", "code", "exec_id"))
        one, word = self.kernel.orders.get(order), codes.NAMES["report"].get(code, "report")
        known = one is not None and code == codes.FILL and cut(row, 0, one.filled)
        self.findings.append(f"{word} of order {order} (exec id {exec_id}) had not come"
                             + (f"; {known} lots of it are known" if known else ""))  # fmt: skip
        if one is not None:
            self.apply(one, code, int(row["qty"][0]), float(row["price"][0]), float(row["fee"][0]))

    def apply(self, one: Known, code: int, qty: int, price: float, fee: float) -> None:
        """What the kernel will make of a report."""
        if code == codes.FILL and qty * one.side > 0:
            self.kernel.net[one.instrument] += qty
            self.kernel.holders[one.strategy, one.instrument] += qty
            if one.state in OPEN:
                one.filled = min(one.filled + abs(qty), one.qty)
                one.state = codes.DONE_FILLED if one.filled == one.qty else max(one.state, codes.WORKING)
        elif one.state not in OPEN:
            return
        elif code in ENDS.values():
            one.state = next(state for state, end in ENDS.items() if end == code)
        elif code == codes.REPLACED and one.state in (codes.CANCELLING, codes.REPLACING):
            one.qty, one.price, one.stop = abs(qty), price, fee
            one.state = codes.WORKING if one.state == codes.REPLACING else one.state
        elif code == codes.ACK:
            one.state = codes.WORKING if one.state == codes.SENT else one.state
        elif code == codes.CANCEL_REJECT and one.state in (codes.CANCELLING, codes.REPLACING):
            one.state = codes.WORKING

    def say(self, one: Known, code: int, why: str, qty: int = 0, price: float = 0.0, fee: float = 0.0) -> None:
        """A report of our own."""
        row = np.zeros(1, Event.dtype)
        row["kind"], row["code"], row["ts"], row["instrument"] = codes.REPORT, code, self.recv, one.instrument
        row["order_id"], row["qty"], row["price"], row["fee"] = one.id, qty, price, fee
        self.rows.append(row)
        self.findings.append(f"order {one.id}: {why}; entered as {codes.NAMES['report'][code]}")
        self.apply(one, code, qty, price, fee)

    def order(self, one: Known) -> None:
        """One order that the kernel takes for open."""
        if one.id not in self.venue.orders:
            working = next((w for w in self.venue.working if w.id == one.id), None)
            if working is None:
                self.doubt.append(one.id)
                self.findings.append(f"order {one.id} is in doubt: the venue did not answer for it")
                return
            standing: Standing | None = working
        else:
            standing = self.venue.orders[one.id]
        if standing is None:
            self.absent(one)
            return
        missing = standing.filled - one.filled
        if missing > 0:
            price = standing.price or one.price or self.kernel.marks[one.instrument]
            self.say(one, codes.FILL, f"the venue has filled {missing} lots more than it reported",
                     missing * one.side, price)  # fmt: skip
        if one.state in OPEN and standing.state == codes.WORKING:
            self.working(one, standing)
        elif one.state in OPEN:
            end = ENDS.get(standing.state, codes.CANCELLED)  # filled: to the smaller quantity of a replace
            self.say(one, end, f"the venue has {codes.NAMES['state'][standing.state]} for it")

    def instruction(self, one: Known, action: int) -> Orders | None:
        """The latest instruction about an order, when it is of that action and may be sent again."""
        order = self.instructions.get(one.id)
        if order is None or order["action"][0] != action:
            return None
        young = self.recv - int(order["ts"][0]) <= self.resend_ns
        return order if young or action == codes.CANCEL else None

    def send_again(self, order: Orders) -> None:
        """An instruction that never arrived, as it was."""
        self.again.append(order)
        word = codes.NAMES["action"][int(order["action"][0])]
        self.findings.append(f"order {order['id'][0]}: its {word} never reached the venue; it is sent again")

    def absent(self, one: Known) -> None:
        """The venue says that it never had the order."""
        order = self.instruction(one, codes.NEW)
        if one.state == codes.SENT and order is not None:
            self.send_again(order)
        elif one.state == codes.WORKING:
            self.say(one, codes.CANCELLED, "the venue does not have it, though it has answered for it")
        else:
            self.say(one, codes.REJECT, "it never reached the venue, and is too old to be sent now",
                     fee=float(codes.EXPIRED_SIGNAL))  # fmt: skip

    def working(self, one: Known, standing: Standing) -> None:
        """The venue has it open; whether it has answered the latest instruction."""
        if one.state == codes.SENT:
            self.say(one, codes.ACK, "the venue has it")
        if (standing.qty, standing.price, standing.stop) != (one.qty, one.price, one.stop):
            if one.state == codes.WORKING:
                self.findings.append(f"order {one.id}: the venue has another quantity or price than we asked for")
            else:
                self.say(one, codes.REPLACED, "the venue has changed it", standing.qty, standing.price, standing.stop)
        action = {codes.CANCELLING: codes.CANCEL, codes.REPLACING: codes.REPLACE}.get(one.state, 0)
        order = self.instruction(one, action) if action else None
        if order is not None:
            self.send_again(order)
        elif action:
            self.say(one, codes.CANCEL_REJECT, "the venue has not changed it, and the request is too old")

    def strangers(self) -> None:
        """Open orders that are not ours to manage."""
        for one in self.venue.working:
            mine = self.kernel.orders.get(one.id)
            if mine is None or mine.state not in OPEN:
                self.findings.append(f"order {one.id} is open at the venue, and nobody here knows it; cancel it there")

    def positions(self) -> None:
        """What no report explains."""
        if self.venue.positions is None:
            return
        whole = self.venue.last_exec <= max([self.kernel.last_exec, *self.venue.reports["exec_id"].tolist()])
        unsettled = {self.kernel.orders[order_id].instrument for order_id in self.doubt}
        for i, lots in enumerate(self.venue.positions.tolist()):
            missing = lots - self.kernel.net[i]
            name = self.names[i] if i < len(self.names) else f"instrument {i}"
            if missing and (i in unsettled or not whole):
                why = "an order in doubt may explain it" if i in unsettled else "its reports have not all come"
                self.findings.append(f"{name}: the venue holds {lots} lots, we {self.kernel.net[i]}; {why}")
            elif missing and self.kernel.marks[i] == 0.0:
                self.unpriced.append(i)
                self.findings.append(f"{name}: the venue holds {lots} lots, we {self.kernel.net[i]}; corrected as soon "
                                     "as the market shows a price")  # fmt: skip
            elif missing:
                holders = self.kernel.holders[:, i]
                strategy = int(np.argmax(np.abs(holders)))
                row = np.zeros(1, Event.dtype)
                row["kind"], row["ts"], row["instrument"], row["qty"] = codes.CORRECTION, self.recv, i, missing
                row["order_id"], row["price"] = strategy, self.kernel.marks[i]
                self.rows.append(row)
                self.findings.append(f"{name}: the venue holds {lots} lots, we {self.kernel.net[i]}, and no report "
                                   f"explains it; corrected by {missing} lots at {self.kernel.marks[i]}, for "
                                   f"strategy {strategy}; that price is "
                                   + (f"of {np.datetime64(ts, 's')}Z" if (ts := self.kernel.times[i] // 10**9)
                                      else "of now"))  # fmt: skip
                self.kernel.net[i] = lots
