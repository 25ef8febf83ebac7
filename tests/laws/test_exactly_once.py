"""Law 9, in one process: an engine dies at any step of journal, send, ack, report, apply; after recovery the book of
the venue is what the journal says: no order twice, none lost, positions equal. A death is the loss of every object of
the engine; its files, the venue and the reports that were published stay.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.desk import VenueDesk
from engine import recovery
from engine.config import Risk, VenueModel
from engine.journal import Journal, JournalWriter, snapshots
from engine.journal.format import EVENTS, ORDERS, segment_name
from engine.kernel import codes
from engine.kernel.events import Event
from engine.plan import Plan, instrument_rows
from engine.ports import VenueView
from engine.reconcile import KernelView, Reconciled, reconcile
from engine.recovery import instructions, recover
from engine.replay import replay
from engine.session import Session
from engine.session_loop import PROGRAM
from engine.store.tape import Tape, frozen
from strategies import MarketMaking
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import MINUTE, SIZES, Fuzz, FuzzAll, decode

CLASSES = {"Fuzz": Fuzz, "FuzzAll": FuzzAll, "MarketMaking": MarketMaking}
SECOND = 1_000_000_000


class Death(Exception):
    """The process is gone."""


class Fragile:
    """A journal in whose middle the process may die, even in the middle of a write."""

    def __init__(self, journal: JournalWriter, world: "World") -> None:
        self.journal, self.world = journal, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def _write(self, name: str, rows: Any) -> None:
        self.world.step(f"before {name}")
        before = self.journal.place
        getattr(self.journal, name)(rows)
        path = self.journal.folder / segment_name(self.journal.place.segment)
        try:
            self.world.step(f"in the middle of {name}")
        except Death:
            if before.segment == self.journal.place.segment:
                whole = path.read_bytes()
                path.write_bytes(whole[: before.offset + (len(whole) - before.offset) * self.world.torn // 100])
            raise
        self.world.step(f"after {name}")

    def events(self, rows: Any) -> None:
        self._write("events", rows)

    def orders(self, rows: Any) -> None:
        self._write("orders", rows)


class World:
    """A venue, a message bus that keeps what was not acknowledged, a directory, and an engine that dies."""

    def __init__(self, folder: Path, tape: Tape, kind: type, seed: int, deaths: list[int], *, torn: int = 50,
                 resend_ns: int = SECOND, mute: int = 0) -> None:  # fmt: skip
        strategy = kind() if kind is MarketMaking else kind(seed=seed, often=40)
        rows = instrument_rows(tape.instruments, Risk(), {})
        self.plan = Plan(
            (strategy,), (kind.__name__,), tape.instruments, rows, 1e6, Risk(leverage=9.0).limits(), {}, SIZES
        )
        ticks = kind is MarketMaking
        self.desk = VenueDesk(rows, 1e6, VenueModel(), leverage=9.0, orders=SIZES.orders, ticks=ticks)
        self.folder, self.deaths, self.torn, self.resend_ns, self.mute = folder, list(deaths), torn, resend_ns, mute
        self.bus: list[np.ndarray[Any, Any]] = []
        self.clock, self.steps, self.died, self.findings = int(tape.events["recv"][0]), 0, [], []
        self.seen = list[str]()
        self.session: Any = None
        self.doubt: list[int] = []

    def step(self, what: str) -> None:
        """One step of the engine; perhaps its last."""
        self.steps += 1
        self.seen.append(what)
        if self.deaths and self.steps == self.deaths[0]:
            self.deaths.pop(0)
            self.steps = 0
            self.died.append(what)
            raise Death(what)

    def run(self, drains: list[Any]) -> None:
        """An engine, and another one whenever it has died, over all drains."""
        journal = JournalWriter(self.folder, self.plan.header(PROGRAM), sync_ms=1e9, segment_bytes=20_000)
        self.session = Session(self.plan.machine(), snapshot_every=25)
        self.session.go_on(Fragile(journal, self), 25)
        for events in [*drains, drains[0][:0]]:
            for report in self.desk.market(events):
                self.bus.append(np.array([report.tobytes()], "V64").view(Event.dtype))
            try:
                self.drain(events)
            except Death:
                self.rise()
        while self.bus:
            self.surely(lambda: self.drain(drains[0][:0]))
        self.mute = 0
        self.surely(self.settle)
        while self.bus:
            self.surely(lambda: self.drain(drains[0][:0]))

    def surely(self, act: Any) -> None:
        """Until it is done."""
        while True:
            try:
                act()
                return
            except Death:
                self.rise()

    def drain(self, market: Any) -> None:
        """Reports, then market data; one drive; acknowledge; send."""
        delivered = len(self.bus)
        events = np.concatenate([np.zeros(0, "V64"), *(r.view("V64") for r in self.bus), market.view("V64")])
        if len(events):
            self.send(self.advance(events.view(Event.dtype).copy()), delivered)

    def advance(self, events: Any) -> Any:
        self.clock = max(self.clock + 1000, int(events["ts"].max()))
        events["recv"] = self.clock
        self.step("before the drive")
        orders = self.session.advance(events)
        self.step("after the drive")
        return orders

    def send(self, orders: Any, delivered: int = 0) -> None:
        del self.bus[:delivered]
        self.step("after the ack")
        for n in range(len(orders)):
            self.step("before a send")
            reports = self.desk.orders(orders[n : n + 1].copy(), self.desk.now)
            self.bus += [reports[i : i + 1] for i in range(len(reports))]
            self.step("after a send")

    def rise(self) -> None:
        """Start again, as often as it takes."""
        while True:
            self.session.journal.close()
            try:
                found = recover(self.folder, CLASSES.__getitem__, snapshot_every=25, sync_ms=1e9, segment_bytes=20_000)
                self.session = found.session
                self.session.journal = Fragile(found.session.journal, self)
                self.settle()
                return
            except Death:
                continue

    def view(self, ids: list[int], since: int) -> VenueView:
        """The venue's answer; of every order whose number `mute` divides it says nothing."""
        whole = self.desk.view(ids, since)
        if not self.mute:
            return whole
        quiet = {i for i in ids if i % self.mute == 0}
        answered = {i: one for i, one in whole.orders.items() if i not in quiet}
        return VenueView(answered, [w for w in whole.working if w.id not in quiet], whole.reports, whole.since,
                         whole.last_exec, whole.positions)  # fmt: skip

    def settle(self) -> None:
        """Reconcile; what the kernel then wishes is sent like everything else."""
        kernel = KernelView.of(self.session.machine)
        journal, self.clock = Journal(self.folder), self.clock + 1000
        asked = kernel.in_doubt()
        found = reconcile(kernel, self.view(kernel.open(), kernel.last_exec), self.clock, resend_ns=self.resend_ns,
                          instructions=instructions(journal, asked, journal.place))  # fmt: skip
        self.findings += found.findings
        self.doubt = found.doubt
        orders = self.advance(found.events) if len(found.events) else found.resend[:0]
        self.send(found.resend)
        self.send(orders)

    def reconciled(self) -> Reconciled:
        """What there would be to reconcile now."""
        kernel = KernelView.of(self.session.machine)
        return reconcile(kernel, self.view(kernel.open(), kernel.last_exec), self.clock)

    def audit(self) -> None:
        """The venue's book is what the journal says."""
        self.session.journal.seal()
        journal = Journal(self.folder)
        orders, events = journal.rows(ORDERS), journal.rows(EVENTS)
        told = self.desk.reports(0)
        new = orders[orders["action"] == codes.NEW]
        assert len(np.unique(new["id"])) == len(new), "an id was used twice"
        first = told[np.isin(told["code"], (codes.ACK, codes.REJECT))]
        own = events[(events["kind"] == codes.REPORT) & (events["exec_id"] == 0)]
        never = own[np.isin(own["code"], (codes.REJECT, codes.CANCELLED))]  # written down: the venue never had it
        at_venue, absent = set(first["order_id"].tolist()), set(never["order_id"].tolist())
        answers = told[told["code"] == codes.ACK]
        assert len(np.unique(answers["order_id"])) == len(answers), "an order came twice"
        assert at_venue | absent == set(new["id"].tolist()), "an order is lost, or nobody wrote it down"
        assert not at_venue & absent, "an order was given up that the venue has"
        net = self.session.machine.table("markets_at")["net"]
        assert net.tolist() == self.desk.positions().tolist()
        fills = events[(events["kind"] == codes.REPORT) & (events["code"] == codes.FILL)]
        _, once = np.unique(fills["exec_id"], return_index=True)
        sums = np.bincount(fills["instrument"][once], fills["qty"][once], len(net)) if len(once) else net * 0
        assert sums.astype(int).tolist() == net.tolist(), "positions are not the sum of the fills"
        assert sorted(KernelView.of(self.session.machine).open()) == sorted(self.desk.open_orders()["id"].tolist())
        again = replay(self.folder, CLASSES.__getitem__)
        assert not again.difference, str(again)


def mortal(made: "World", patch: pytest.MonkeyPatch) -> None:
    """Steps inside of a journal and a recovery, too: a segment, a snapshot, what a recovery writes."""

    def around(owner: Any, name: str, what: str) -> None:
        plain = getattr(owner, name)

        def instead(*words: Any, **more: Any) -> Any:
            made.step(f"before {what}")
            done = plain(*words, **more)
            made.step(f"after {what}")
            return done

        patch.setattr(owner, name, instead)

    around(JournalWriter, "_open", "a segment begins")
    around(JournalWriter, "_end_segment", "a segment ends")
    around(snapshots, "save", "a snapshot")
    patch.setattr(recovery, "JournalWriter", type("Recovering", (JournalWriter,), {}))
    around(recovery.JournalWriter, "orders", "the orders of a recovery")


def world(folder: Path, kind: type, seed: int, deaths: list[int], patch: pytest.MonkeyPatch | None = None,
          **settings: Any) -> World:  # fmt: skip
    """A short market, drained a few events at a time. `patch`: the inside of journal and recovery has steps, too."""
    if kind is MarketMaking:
        tape = random_ticks(seed, 120)
    else:
        tape = decode(np.random.default_rng(seed).bytes(6 * 60), 2, MINUTE)
        tape = Tape(frozen(tape.events[tape.events["kind"] == codes.BAR]), tape.instruments, tape.digest, tape.name)
    events = tape.events
    cuts = np.flatnonzero(np.diff(events["ts"])) + 1
    made = World(folder, tape, kind, seed, deaths, **settings)
    if patch is not None:
        mortal(made, patch)
    made.run([part.copy() for part in np.split(events, cuts[:: 1 + seed % 3])])
    return made


KINDS = st.sampled_from([Fuzz, FuzzAll, MarketMaking])


@given(KINDS, st.integers(0, 99), st.lists(st.integers(1, 60), max_size=6), st.sampled_from([0, 30, 90]),
       st.sampled_from([0, SECOND]), st.sampled_from([0, 2, 3]))  # fmt: skip
def test_whenever_it_dies(kind: type, seed: int, deaths: list[int], torn: int, resend_ns: int, mute: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = world(Path(folder) / "j", kind, seed, deaths, torn=torn, resend_ns=resend_ns, mute=mute)
        left = made.reconciled()
        assert not len(left.events) and not len(left.resend) and not left.doubt, left.findings
        made.audit()


def test_every_step_is_one_to_die_at(tmp_path: Path) -> None:
    died = set()
    for first in range(1, 26):
        made = world(tmp_path / f"{first}", Fuzz, 7, [first, 3], torn=40)
        died |= set(made.died)
        made.audit()
    assert died >= {"before the drive", "before events", "in the middle of events", "after events", "before orders",
                    "in the middle of orders", "after orders", "after the drive", "after the ack", "before a send",
                    "after a send"}  # fmt: skip


INSIDE = {"before a segment begins", "after a segment begins", "before a segment ends", "after a segment ends",
          "before a snapshot", "after a snapshot", "before the orders of a recovery",
          "after the orders of a recovery"}  # fmt: skip


def test_a_journal_and_a_recovery_have_steps_to_die_at(tmp_path: Path) -> None:
    """Between two segments, around a snapshot, in the middle of a recovery after an orders' block was torn: once, and
    again at the same step of the next life."""
    with pytest.MonkeyPatch.context() as patch:
        calm = world(tmp_path / "calm", Fuzz, 7, [], patch)
    torn = calm.seen.index("in the middle of orders") + 1  # so that a recovery has orders to write
    with pytest.MonkeyPatch.context() as patch:
        once = world(tmp_path / "once", Fuzz, 7, [torn], patch, torn=40)
    lives = once.seen[torn:]
    died = set[str]()
    for name in sorted(INSIDE):
        place = lives.index(name) + 1
        with pytest.MonkeyPatch.context() as patch:
            made = world(tmp_path / name.replace(" ", "-"), Fuzz, 7, [torn, place, place], patch, torn=40)
        assert made.died[:2] == ["in the middle of orders", name]
        died |= set(made.died)
        made.audit()
    assert died >= INSIDE


@pytest.mark.slow
@settings(max_examples=150)
@given(KINDS, st.integers(0, 10_000), st.lists(st.integers(1, 200), max_size=12), st.integers(0, 99),
       st.sampled_from([0, SECOND]), st.integers(0, 5))  # fmt: skip
def test_thoroughly(kind: type, seed: int, deaths: list[int], torn: int, resend_ns: int, mute: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world(Path(folder) / "j", kind, seed, deaths, torn=torn, resend_ns=resend_ns, mute=mute).audit()
