"""Edges at which orders, exits or money were once lost: hours of different venues, full tables, splits, rounds."""

from typing import Any

import pytest

from engine.errors import StrategyError
from engine.kernel import codes
from engine.kernel.events import Bar, Report
from engine.kernel.machine import Sizes
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen
from tests.backtest.stage import MINUTE, REPLIES, START, action, bars, play, tape_of

FLAT = (100, 101, 99, 100)
HOUR = 60 * MINUTE


class Follows(Strategy):
    """Buys the second instrument when the first one closes."""

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        if bar.instrument == 0:
            ctx.buy(1.0, instrument=1)


def test_an_order_does_not_meet_a_bar_that_was_open_when_it_was_sent() -> None:
    """One exchange closes at 16:30, another is open from 14:30 to 21:00: its open has passed by then."""
    from backtest import prepare

    events = blank(8)
    for n, event in enumerate(events):
        day, late = divmod(n, 2)
        event["kind"], event["instrument"] = codes.BAR, late
        event["ts"] = event["recv"] = START + day * 24 * HOUR + (21 * HOUR if late else 16 * HOUR + 30 * MINUTE)
        for name in ("open", "high", "low", "close"):
            event[name] = 100.0 + day
        event["volume"] = 1e6
    infos = (InstrumentInfo("EU", bar_ns=8 * HOUR), InstrumentInfo("US", bar_ns=6 * HOUR + 30 * MINUTE))
    for compiled in (False, True):
        run = prepare(Follows(), Tape(frozen(events.copy()), infos, "0" * 16, "hours"), cash=1e6, compiled=compiled)
        reports = run.run().raw["reports"]
        fills = reports[reports["code"] == codes.FILL]
        # The first has no market yet; the others meet the open of the day after. A report is as late as the clock.
        assert fills["price"].tolist() == [102.0, 103.0]


def test_a_strategy_cannot_cancel_the_exit_that_risk_asked_for() -> None:
    kill = action(codes.COMMAND, 5.0, 1.0)
    kill["code"], kill["ts"], kill["recv"] = codes.KILL, START + 5 * MINUTE + 1, START + 5 * MINUTE + 1
    thin = bars(*[(*FLAT, 10)] * 12)
    events = tape_of([*(thin.events[i : i + 1] for i in range(12)), kill])
    wishes: dict[int, Any] = {n: lambda ctx: ctx.target(8) for n in range(12)}
    assert play(events, wishes, participation=0.2).net == [0]


@pytest.mark.parametrize("orders", [4, 8])
def test_flatten_waits_for_room_in_the_order_table(orders: int) -> None:
    falls = bars(FLAT, FLAT, FLAT, (90, 91, 79, 80), *[(80, 81, 79, 80)] * 3)
    rest = [lambda ctx, at=at: ctx.buy(1, limit=at) for at in (50.0, 51.0, 52.0, 53.0)]
    settings: dict[str, Any] = {"drawdown": 0.01, "breach": {"drawdown": "flatten"}, "sizes": Sizes(orders=orders)}
    played = play(falls, {0: lambda ctx: ctx.buy(10), 1: rest}, cash=10_000.0, **settings)
    assert played.net == [0]


def test_flatten_outlives_a_split_that_cancels_its_order() -> None:
    rows = bars(FLAT, FLAT, (90, 91, 79, 80), *[(40, 41, 39, 40)] * 3)
    events = tape_of([*(rows.events[i : i + 1] for i in range(6)), action(codes.SPLIT, 3.5, 2.0)])
    settings: dict[str, Any] = {"drawdown": 0.01, "breach": {"drawdown": "flatten"}}
    assert play(events, {0: lambda ctx: ctx.buy(10)}, cash=10_000.0, **settings).net == [0]


def test_an_order_decided_at_the_close_before_a_split_ends_with_it() -> None:
    rows = bars(FLAT, FLAT, FLAT, *[(50, 51, 49, 50)] * 2)
    events = tape_of([*(rows.events[i : i + 1] for i in range(5)), action(codes.SPLIT, 3.0, 2.0)])
    assert play(events, {2: lambda ctx: ctx.buy(10, limit=95.0)}).reports == [("cancelled", 3, "")]


def test_more_rounds_of_reports_than_a_moment_has_lose_no_order() -> None:
    def again(report: Report, ctx: Ctx) -> None:
        if report.code == codes.ACK and report.order_id % (1 << 20) < 30:
            ctx.cancel(report.order_id)
        elif report.code == codes.CANCELLED:
            ctx.buy(1.0, limit=50.0)

    REPLIES[:] = [again]
    try:
        played = play(bars(*[FLAT] * 8), {0: lambda ctx: ctx.buy(1.0, limit=50.0)})
    finally:
        REPLIES.clear()
    assert played.drive.machine.kernel.orders_out == 0
    assert played.drive.machine.kernel.opened == played.drive.venue.header.opened == 1


def test_a_rebate_is_paid() -> None:
    played = play(bars(FLAT, FLAT, FLAT), {0: lambda ctx: ctx.buy(1.0, limit=99.5)}, maker_bps=-10.0)
    assert played.fees == [pytest.approx(-0.0995)]


def test_a_function_that_needs_numba_at_run_time_is_refused() -> None:
    import math

    from backtest import backtest

    class Scaled(Strategy):
        x: float

        def on_bar(self, bar: Bar, ctx: Ctx) -> None:
            self.x = math.ldexp(bar.close, 2)

    with pytest.raises(StrategyError, match="numba_ldexp"):
        backtest(Scaled(), bars(*[FLAT] * 4))


class Bids(Strategy):
    """Rests below the market, once."""

    sent: bool

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        if not self.sent:
            self.sent = True
            ctx.buy(1.0, limit=99.5)


def test_an_order_lives_beyond_the_year_2116() -> None:
    """2^62 ns after 1970: a time that was once taken for never, at which the venue looked for ends without end."""
    from backtest import prepare

    late = bars(*[FLAT] * 6).events.copy()
    late["ts"] = late["recv"] = late["ts"] + ((1 << 62) - START)
    tape = tape_of([late[i : i + 1] for i in range(6)])
    reports = prepare(Bids(), tape, cash=1e6, compiled=False).run().raw["reports"]
    assert reports["code"].tolist() == [codes.ACK, codes.FILL]
