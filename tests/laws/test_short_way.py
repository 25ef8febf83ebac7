"""The short way of bars (`loop.alone`) is the long one, byte for byte: outputs, kernel and venue."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject
from engine.config import Risk, VenueModel
from engine.kernel import codes
from engine.kernel.events import Bar, Report
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.synthetic import synthetic_tape
from engine.store.tape import Tape
from strategies import Momentum
from tests.laws.world import MINUTE, RISKS, SIZES, VENUES, Fuzz, decode, stage


class Restless(Strategy):
    """Cancels what is acknowledged and orders anew what is cancelled: more rounds than a timestamp has."""

    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        if self.n == 2:
            ctx.buy(1.0, bar.close * 0.5)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if report.code == codes.ACK:
            ctx.cancel(report.order_id)
        elif report.code == codes.CANCELLED:
            ctx.buy(1.0, 10.0)


class Flood(Strategy):
    """Fills the table of orders, then breaks a limit by a replace: the exit that this asks for finds no room."""

    n: int
    first: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        if self.n == 3:
            ctx.target(-5.0)
        if self.n % 7 == 0:
            self.first = ctx.buy(1.0, 1.0)
            for i in range(15):
                ctx.buy(1.0, 1.0 + 0.01 * i)
            ctx.replace(self.first, 1000.0, 2.0)


LONE = st.builds(decode, st.binary(min_size=12, max_size=900), st.just(1), st.sampled_from([0, MINUTE, MINUTE // 2]))


def both_ways(subject: Subject, sample_ns: int = 0, cap: int = 0, cuts: tuple[int, ...] = ()) -> int:
    """Drive both ways, with points so far apart, room for so many, in pieces. Returns how many events were driven."""
    drives = []
    for lone in (1, 0):
        drive = subject.prepared.drive()
        assert drive.loop.lone == 1
        drive.loop.lone, drive.loop.sample_ns = lone, sample_ns
        if lone and cap:
            drive.loop.curve_cap = cap
        for cut in cuts if lone else ():
            subject.finish(drive, cut)
        drives.append(subject.finish(drive))
    short, long = drives
    subject.same("short way", long.outputs(), "the long way", short.outputs())
    assert short.machine.snapshot() == long.machine.snapshot()
    assert short.venue.memory.tobytes() == long.venue.memory.tobytes()
    assert short.loop.index == long.loop.index and short.loop.status == long.loop.status
    return int(long.loop.index)


@given(LONE, RISKS, VENUES,
       st.integers(0, 999), st.sampled_from([0, 2, 10, 60]), st.sampled_from([0, 3 * MINUTE]), st.sampled_from([0, 7]),
       st.lists(st.integers(0, 150), max_size=2).map(sorted))  # fmt: skip
def test_whatever_happens(
    tape: Tape, risk: dict[str, object], venue: VenueModel, seed: int, often: int, sample_ns: int, cap: int,
    cuts: list[int],
) -> None:  # fmt: skip
    subject = stage([Fuzz(seed=seed, often=often)], tape, Risk(**risk), venue, 1_000.0 if seed % 2 else 1e6)
    both_ways(subject, sample_ns, cap, tuple(cuts))


def test_what_is_left_for_the_next_timestamp_waits_for_it() -> None:
    """Nothing is open at the venue meanwhile, and the outbox is not empty."""
    both_ways(stage([Restless()], synthetic_tape(40, 1, seed=7)))


def test_an_exit_that_finds_no_room_is_still_owed() -> None:
    """Without a report or a signal in between: only the end of the timestamp asks again."""
    risk = Risk(order_qty=500.0, breach={"order_qty": "flatten"}, leverage=math.inf)
    subject = stage([Flood()], synthetic_tape(40, 1, seed=7), risk, cash=1e7, sizes=replace(SIZES, orders=16))
    both_ways(subject)
    subject.driver()
    assert codes.OPEN_ORDERS in subject.whole.refusals["reason"]


@pytest.mark.parametrize("drawdown", [np.inf, 0.02])
def test_a_long_run(drawdown: float) -> None:
    risk = Risk(drawdown=drawdown, breach={"drawdown": "flatten"})
    subject = stage([Momentum(fast=3, slow=9, short=True)], synthetic_tape(20_000, 1, seed=7), risk, VenueModel(), 1e4)
    assert both_ways(subject) == 20_000 and len(subject.whole.orders) > 100
