"""The control flow of one event: commands, trading states, clocks, routing, halts."""

import itertools

import pytest

from engine.kernel import codes
from tests.kernel.desk import DAY, ON_REPORT, SECOND, START, Desk


def test_simulation_judges_but_sends_nothing() -> None:
    desk = Desk({"order_qty": 10})
    desk.event(codes.COMMAND, code=codes.TRADING, amount=codes.SIMULATION)
    assert desk.wish(lambda ctx: ctx.buy(11), lambda ctx: ctx.buy(5), lambda ctx: ctx.target(4)) == []
    found = desk.machine.table("refusals_at")[: desk.k.refusals_out].copy()
    assert (desk.reasons(), desk.k.opened) == (["order_qty", "ok", "ok"], 0)
    assert (found["qty"].tolist(), bool((found["order_id"] > 0).all()), desk.k.refused) == ([11, 5, 4], True, 1)
    desk.event(codes.COMMAND, code=codes.TRADING, amount=codes.LIVE)
    assert len(desk.wish(lambda ctx: ctx.buy(5))) == 1


def test_observation_absorbs_but_hears_no_wish() -> None:
    desk = Desk({"order_qty": 10})
    desk.hold(5)
    desk.event(codes.COMMAND, code=codes.TRADING, amount=codes.OBSERVATION)
    wishes = [
        lambda ctx: ctx.buy(11),
        lambda ctx: ctx.target(4),
        lambda ctx: ctx.cancel(1),
        lambda ctx: ctx.buy(1, 90.0),
    ]
    assert desk.wish(*wishes, price=120.0) == []
    assert (desk.reasons(), desk.market("mark"), desk.k.value) == ([], 120.0, 600.0)
    assert (desk.machine.table("open_at")["state"] == codes.RESERVED).sum() == 0
    desk.event(codes.COMMAND, code=codes.TRADING, amount=codes.LIVE)
    assert [o["qty"] for o in desk.wish(lambda ctx: ctx.target(4))] == [1]  # no target is left over


def test_pause_and_resume_one_strategy() -> None:
    desk = Desk(strategies=2)
    (order,) = desk.wish(lambda ctx: ctx.buy(2, 99.0), s=1)
    desk.event(codes.COMMAND, code=codes.PAUSE, strategy=1)
    assert desk.wish(lambda ctx: ctx.buy(1), s=1) == []
    assert len(desk.wish(lambda ctx: ctx.buy(1), s=0)) == 1
    desk.fill(order)  # its orders live on
    assert desk.position(0, 1) == 2
    desk.event(codes.COMMAND, code=codes.RESUME, strategy=1)
    desk.bar()
    assert len(desk.sent()) == 1  # the wish that waited


@pytest.mark.parametrize("strategy", [-1, 2, 1 << 40])
def test_commands_to_nobody(strategy: int) -> None:
    desk = Desk(strategies=2)
    before = desk.machine.table("slots_at").tobytes()
    desk.event(codes.COMMAND, code=codes.PAUSE, strategy=strategy)
    assert desk.machine.table("slots_at").tobytes() == before


def test_time_never_goes_back() -> None:
    desk = Desk()
    desk.bar()
    desk.bar(after=0)
    assert desk.k.halt == codes.RUNNING
    desk.bar(after=-1)
    assert desk.k.halt == codes.HALT_CLOCK
    state = desk.machine.snapshot()
    desk.bar()
    assert desk.machine.snapshot() == state  # halted is halted


@pytest.mark.parametrize("kind", [codes.BAR, codes.QUOTE, codes.TRADE, codes.SPLIT, codes.DIVIDEND, codes.CORRECTION])
def test_unknown_instrument_halts(kind: int) -> None:
    desk = Desk()
    desk.event(kind, instrument=2)
    assert desk.k.halt == codes.HALT_INSTRUMENT


@pytest.mark.parametrize(("bid", "ask", "mark"), [(99.0, 101.0, 100.0), (0.0, 101.0, 0.0), (99.0, 0.0, 0.0)])
def test_quotes_mark_at_the_middle(bid: float, ask: float, mark: float) -> None:
    desk = Desk()
    desk.event(codes.QUOTE, bid=bid, ask=ask)
    assert (desk.market("mark"), desk.market("bid"), desk.market("ask")) == (mark, bid, ask)


def test_reports_reach_the_strategy_that_sent_the_order() -> None:
    desk = Desk(strategies=2)
    heard: list[tuple[int, int, int]] = []
    ON_REPORT.append(lambda report, ctx: heard.append((ctx.strategy, report.code, report.qty)))
    (order,) = desk.wish(lambda ctx: ctx.sell(3), s=1)
    desk.report(order, codes.ACK)
    desk.fill(order)
    desk.report(12345, codes.FILL, 1)
    assert heard == [(1, codes.ACK, 0), (1, codes.FILL, -3)]


def test_a_report_may_cause_an_order() -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(3))
    ON_REPORT.append(lambda report, ctx: ctx.sell(3, 110.0, 0.0, codes.GTC, codes.REDUCE_ONLY))
    desk.fill(order)
    (exit_order,) = desk.sent()
    assert (exit_order["price"], exit_order["qty"], exit_order["seq"], exit_order["ts"]) == (
        110.0,
        3,
        desk.k.seq,
        desk.now,
    )


def test_days_roll_at_their_offset() -> None:
    desk = Desk({"daily_loss": 100.0}, day_offset_ns=3600 * SECOND)
    desk.hold(10)
    assert desk.k.next_day == START + 3600 * SECOND
    desk.bar(80.0)
    desk.bar(80.0, after=3600 * SECOND)
    assert (desk.k.next_day, desk.k.day_equity, desk.k.breached) == (START + DAY + 3600 * SECOND, 1e6 - 200, 0)


def test_snapshot_restores_at_another_address() -> None:
    first = Desk({"rate": 1.0})
    first.hold(5)
    (order,) = first.wish(lambda ctx: ctx.buy(3, 99.0), after=5 * SECOND)
    second = Desk({"rate": 1.0})
    second.machine.restore(first.machine.snapshot())
    second.now, second.exec_id = first.now, first.exec_id
    for desk in (first, second):
        desk.fill(order, 2, 99.0)
        desk.wish(lambda ctx: ctx.target(0), after=5 * SECOND)
    assert first.machine.snapshot() == second.machine.snapshot()


@pytest.mark.parametrize(
    ("order", "kinds"), list(enumerate(itertools.permutations([codes.TIMER, codes.GAP, codes.FUNDING])))
)
def test_other_events_pass(order: int, kinds: tuple[int, ...]) -> None:
    desk = Desk()
    desk.bar()
    for kind in kinds:
        desk.event(kind)
    assert (desk.k.halt, desk.k.seq, desk.k.cash) == (codes.RUNNING, 4, 1e6)
