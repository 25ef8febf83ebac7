"""A session by hand: moments, commands, reloads, faults, halts; each of them journalled, and each replays."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import Risk
from engine.errors import ConfigError, JournalError, KernelHalted, StrategyError, StrategyFault
from engine.journal import Journal, JournalWriter
from engine.journal.format import EVENTS, RELOADS
from engine.kernel import codes
from engine.kernel.events import Bar, Event, Slice
from engine.kernel.machine import Sizes, python_handlers
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.plan import Plan, instrument_rows
from engine.recovery import recover
from engine.replay import explain, replay
from engine.session import Session, event
from engine.session_loop import PROGRAM
from engine.store.instruments import InstrumentInfo
from tests.kernel.desk import DAY, SECOND

T0 = 20_000 * DAY
INFOS = (InstrumentInfo("A"), InstrumentInfo("B"))


class Steps(Strategy):
    """Holds one unit more after each bar."""

    step: float = param(1.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        ctx.target(self.step * self.n)


class Sells(Strategy):
    """The same fields, another rule, and a handler more."""

    step: float = param(1.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 100
        ctx.target(-self.step)

    def on_report(self, report: Any, ctx: Ctx) -> None:
        self.n += 1


class Other(Strategy):
    """Other fields."""

    step: float = param(1.0)
    total: float

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.total += bar.close


class Fails(Strategy):
    """Fails at its third bar; what it sent before is cancelled."""

    step: float = param(1.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        ctx.buy(1.0 / (3 - self.n), 90.0)


class Ends(Strategy):
    """Counts the ends of moments, and buys once for each."""

    universe = True
    n: int

    def on_slice(self, now: Slice, ctx: Ctx) -> None:
        self.n += 1
        ctx.buy(float(self.n), 90.0, 0.0, 1, 0, 0)


CLASSES = {one.__name__: one for one in (Steps, Sells, Other, Fails, Ends)}


def plan(*kinds: type[Strategy], **limits: Any) -> Plan:
    risk = Risk(leverage=math.inf, **limits)
    rows = instrument_rows(INFOS, risk, {})
    names = tuple(kind.__name__ for kind in kinds)
    return Plan(tuple(kind() for kind in kinds), names, INFOS, rows, 1e6, risk.limits(), risk.breaches(),
                Sizes(orders=64, signals=64, outbox=128, refusals=64), compiled=False)  # fmt: skip


def bar(second: float, price: float = 100.0, i: int = 0) -> Any:
    recv = T0 + int(second * SECOND)
    return event(codes.BAR, recv, instrument=i, open=price, high=price, low=price, close=price, volume=1.0)


def several(*rows: Any) -> Any:
    return np.concatenate([row.view("V64") for row in rows]).view(Event.dtype)


class Run:
    """A session with a journal in a directory."""

    def __init__(self, folder: Path, *kinds: type[Strategy], **limits: Any) -> None:
        self.folder, self.plan = folder, plan(*kinds, **limits)
        journal = JournalWriter(folder, self.plan.header(PROGRAM), sync_ms=math.inf)
        self.session = Session(self.plan.machine(), journal, compiled=False)

    def bars(self, *seconds: float, price: float = 100.0) -> list[tuple[str, int]]:
        """Bars of A; the orders they bring about."""
        return [one for second in seconds for one in shown(self.session.advance(bar(second, price)))]

    def again(self) -> str:
        """Seal, replay, and the state that a restart finds is the one that was left."""
        state = self.session.state()
        assert self.session.journal is not None
        self.session.journal.seal()
        found = replay(self.folder, CLASSES.__getitem__)
        back = recover(self.folder, CLASSES.__getitem__)
        assert back.session.state() == state and not back.notes
        back.session.journal.close()  # type: ignore[union-attr]
        return str(found)


def shown(orders: Any) -> list[tuple[str, int]]:
    """(action, signed lots) of orders."""
    return [(codes.NAMES["action"][int(o["action"])], int(o["side"]) * int(o["qty"])) for o in orders]


def slots(run: Run) -> Any:
    return run.session.machine.table("slots_at")


def test_a_moment_ends_with_its_drain(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Ends)
    assert shown(run.session.advance(several(bar(1), bar(1, i=1)))) == [("new", 1)]
    assert shown(run.session.advance(event(codes.REPORT, T0 + 2 * SECOND, order_id=1 << 40 | 1, code=codes.ACK))) == []
    assert shown(run.session.kill(T0 + 3 * SECOND)) == [("cancel", 1)]
    assert run.session.clear_kill(T0 + 4 * SECOND).size == 0
    assert shown(run.session.advance(bar(5), closing=False)) == []  # more of it may come
    assert shown(run.session.advance(bar(5, i=1), closing=False)) == []
    assert shown(run.session.advance(bar(6))) == [("new", 2), ("new", 3)]
    assert shown(run.session.advance(bar(6, i=1))) == [("new", 4)]  # the same time again, after its end: a marker
    run.session.advance(event(codes.TIMER, T0 + 7 * SECOND))
    assert Journal(tmp_path / "j").rows(EVENTS)["kind"].tolist().count(codes.SLICE) == 1
    assert run.again() == "identical: 11 events, 6 orders"


Command = Callable[[Session, int], Any]
COMMANDS: dict[str, tuple[Command, Any, list[tuple[str, int]], list[tuple[str, int]]]] = {
    # the command; what it looks like; the orders it brings about; the orders of a bar after it
    "pause": (lambda s, t: s.pause(t, 0), (codes.PAUSE, 0.0, 0), [], []),
    "kill": (lambda s, t: s.kill(t), (codes.KILL, 0.0, 0), [("cancel", 1)], []),
    "kill and flatten": (lambda s, t: s.kill(t, flatten=True), (codes.KILL, 1.0, 0), [("cancel", 1), ("new", -5)], []),
    "simulation": (lambda s, t: s.trading(t, codes.SIMULATION), (codes.TRADING, 1.0, 0), [], []),
    "observation": (lambda s, t: s.trading(t, codes.OBSERVATION), (codes.TRADING, 2.0, 0), [], []),
}
BACK: dict[str, Command] = {
    "pause": lambda s, t: s.resume(t, 0), "kill": lambda s, t: s.clear_kill(t),
    "simulation": lambda s, t: s.trading(t, codes.LIVE), "observation": lambda s, t: s.trading(t, codes.LIVE),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_an_event(tmp_path: Path, name: str) -> None:
    """It does what it says, stands in the journal, survives a restart, and a replay repeats it."""
    act, looks, at_once, later = COMMANDS[name]
    run = Run(tmp_path / "j", Steps)
    assert run.bars(1) == [("new", 1)]
    run.session.advance(event(codes.CORRECTION, T0 + 2 * SECOND, qty=5, price=100.0))
    assert shown(act(run.session, T0 + 3 * SECOND)) == at_once
    command = Journal(tmp_path / "j").rows(EVENTS)[-1]
    assert (command["kind"], command["recv"]) == (codes.COMMAND, T0 + 3 * SECOND)
    assert (command["code"], command["amount"], command["strategy"]) == looks
    assert run.bars(4) == later
    k = run.session.machine.kernel
    assert (k.killed, k.trading) == (int("kill" in name), int(looks[1]) if looks[0] == codes.TRADING else 0)
    if name == "simulation":
        assert k.opened == 1  # judged, and dropped
    back = BACK.get(name)
    if back is not None:
        back(run.session, T0 + 5 * SECOND)
        ended = event(codes.REPORT, T0 + 6 * SECOND, order_id=1 << 40 | 1, code=codes.CANCELLED, exec_id=1)
        run.session.advance(ended)
        assert [word for word, _ in run.bars(7)] == ["new"]
    assert run.again().startswith("identical: ")


def test_killed_stays_killed_across_a_restart(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Steps)
    run.bars(1)
    run.session.kill(T0 + 2 * SECOND)
    run.session.journal.close()  # type: ignore[union-attr]
    back = recover(tmp_path / "j", CLASSES.__getitem__).session
    assert shown(back.advance(bar(3))) == [] and back.refused["reason"].tolist() == [codes.KILLED]
    back.clear_kill(T0 + 4 * SECOND)
    assert shown(back.advance(bar(5))) == [("new", 3)]


def test_a_reload_swaps_the_code_and_keeps_the_state(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Steps, Steps)
    assert run.bars(1, 2) == [("new", 1), ("new", 1)] * 2
    where = python_handlers(Sells)
    run.session.reload(T0 + 3 * SECOND, 1, Sells(step=7.0), where, name="Sells", image="uncompiled")
    assert run.bars(4) == [("new", 1), ("cancel", 1), ("cancel", 1), ("new", -7)]
    assert run.session.machine.state(1).n == 102 and run.session.running(1).values == {"step": 7.0}
    run.session.advance(event(codes.REPORT, T0 + 5 * SECOND, order_id=1 << 40 | 6, code=codes.ACK))
    assert run.session.machine.state(1).n == 103  # its new handler
    run.session.reload(T0 + 6 * SECOND, 0, Steps(step=3.0), python_handlers(Steps), name="Steps", image="uncompiled")
    assert run.bars(7) == [("new", 9)]  # 4 * 3, less the 3 that are under way
    (first, _) = [b.words() for b in Journal(tmp_path / "j").blocks() if b.kind == RELOADS]
    assert first == {"strategy": 1, "name": "Sells", "image": "uncompiled", "params": {"step": 7.0}}
    run.session.snapshot()
    assert run.again().startswith("identical: ")  # from the beginning, and from a snapshot behind the reloads
    (tmp_path / "j" / next((tmp_path / "j").glob("snapshot-*")).name).unlink()
    assert recover(tmp_path / "j", CLASSES.__getitem__).session.running(1).values == {"step": 7.0}


def test_a_snapshot_that_is_due_at_a_reload(tmp_path: Path) -> None:
    """It is taken before the journal tells of the reload, never between that and its command."""
    run = Run(tmp_path / "j", Steps)
    run.bars(1, 2)
    run.session.snapshot_every = 1
    run.session.reload(T0 + 3 * SECOND, 0, Steps(step=3.0), python_handlers(Steps), name="Steps", image="uncompiled")
    run.session.snapshot_every = 0
    assert run.again().startswith("identical: ")
    assert recover(tmp_path / "j", CLASSES.__getitem__).session.running(0).values == {"step": 3.0}


def test_a_reload_of_another_layout_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Steps)
    run.bars(1)
    with pytest.raises(StrategyError, match=r"Other cannot take over: .* laid out differently from those of Steps"):
        run.session.reload(T0 + 2 * SECOND, 0, Other(), python_handlers(Other), name="Other", image="uncompiled")
    with pytest.raises(StrategyError, match="There is no strategy 4; the session has 1"):
        run.session.reload(T0 + 2 * SECOND, 4, Steps(), python_handlers(Steps), name="Steps", image="uncompiled")
    assert run.again() == "identical: 1 events, 1 orders"


def test_a_fault_stops_one_strategy_and_is_explained(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Fails, Steps)
    assert run.bars(1, 2) == [("new", 1), ("new", 1), ("new", 1)]  # half a lot is none
    assert run.bars(3) == [("cancel", 1), ("new", 1)]
    assert run.session.faults == [(0, 3)] and run.bars(4) == [("new", 1)]
    run.session.journal.sync()  # type: ignore[union-attr]
    fault = explain(tmp_path / "j", CLASSES.__getitem__, 0)
    assert isinstance(fault, StrategyFault) and isinstance(fault.__cause__, ZeroDivisionError)
    for words in ("Fails(step=1.0) failed at 2024-10-04T00:00:03, A (event 3 of journal j)", "1.0 / (3 - self.n)",
                  "State before the event: step=1.0, n=2"):  # fmt: skip
        assert words in str(fault)
    with pytest.raises(ConfigError, match="journal j: strategy 1 has not failed"):
        explain(tmp_path / "j", CLASSES.__getitem__, 1)
    run.session.resume(T0 + 5 * SECOND, 0)
    assert slots(run)["active"][0] == 0  # the same code would fail again
    run.session.reload(T0 + 6 * SECOND, 0, Sells(), python_handlers(Sells), name="Sells", image="uncompiled")
    run.session.resume(T0 + 7 * SECOND, 0)
    run.session.advance(event(codes.REPORT, T0 + 15 * SECOND // 2, order_id=1 << 40 | 3, code=codes.CANCELLED))
    assert run.session.faults == [] and ("new", -1) in run.bars(8)
    assert run.again().startswith("identical: ")


def test_a_halt_ends_it_after_its_orders(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Steps, daily_loss=50.0, breach={"daily_loss": "halt"})
    run.bars(1)
    run.session.advance(event(codes.REPORT, T0 + 2 * SECOND, order_id=1 << 40 | 1, code=codes.FILL, qty=1, price=100.0))
    assert run.bars(3, price=40.0) == [("new", 1), ("cancel", 1), ("new", -1)]
    assert run.session.halted == codes.HALT_RISK and run.session.refused["reason"].tolist() == [codes.DAILY_LOSS]
    with pytest.raises(KernelHalted, match=r"The kernel halted \(halt_risk\) at event 3"):
        run.bars(4)
    assert run.again() == "identical: 3 events, 4 orders"


def test_a_gap_makes_the_market_stale(tmp_path: Path) -> None:
    """Until its next event, whatever `stale_s` says; of one instrument, or of all."""
    run = Run(tmp_path / "j", Ends)
    run.session.advance(several(bar(1), bar(1, i=1)))
    for second, instrument, reasons in ((2, 1, []), (3, 0, [codes.STALE_MARKET]), (4, 99, [codes.STALE_MARKET])):
        run.session.advance(event(codes.GAP, T0 + second * SECOND, instrument=instrument))
        assert run.session.refused["reason"].tolist() == reasons
        run.session.advance(bar(second + 0.5))
        assert run.session.refused["reason"].tolist() == []
    assert run.again().startswith("identical: ")


def test_what_the_journal_does_not_take_the_kernel_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "j", Steps)
    run.bars(1)
    state = run.session.state()

    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("engine.journal.writer.os.pwritev", full)
        with pytest.raises(JournalError, match="the disk is full"):
            run.bars(2)
    assert run.session.state() == state
    assert run.bars(2) == [("new", 1)]  # there is room again
    assert run.again() == "identical: 2 events, 2 orders"


def test_a_live_process_does_not_import_numba(tmp_path: Path) -> None:
    """Session, journal, replay and recovery run from images, and compile nothing."""
    Session(plan(Steps).machine())  # the program is compiled by now
    text = (
        "import sys\n"
        "import engine.session, engine.replay, engine.recovery, engine.reconcile, engine.plan, engine.journal\n"
        "from engine.kernel import build\n"
        "build.may_compile = False\n"
        "engine.session_loop.program()\n"
        "assert not {'numba', 'polars', 'mlflow', 'hydra'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True, cwd=Path(__file__).parents[2])
