"""Law 4: lane i of a sweep is the single run with its settings, byte for byte; its figures are those of that run."""

import ctypes
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import lane_pass, lane_walk, lanes_loop
from backtest.drive import has_ticks, program
from backtest.lanes import Grid, Lanes, between, evaluate
from backtest.lanes_loop import run_lanes
from backtest.records import Loop
from backtest.run import Prepared, prepare
from engine.config import Risk, VenueModel
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.primitives import Invoke
from engine.kernel.records import Curve, Kernel, Order, Refusal
from engine.store.tape import Tape
from strategies import MarketMaking, Momentum
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import (
    LATE,
    MINUTE,
    RISKS,
    SIZES,
    VENUES,
    Fuzz,
    FuzzAll,
    FuzzTicks,
    decode,
    depth_tapes,
    tapes,
)

KINDS = {"orders": Order, "reports": Event, "refusals": Refusal, "curve": Curve}


def close(a: float, b: float, scale: float = 1.0) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b or abs(a - b) <= 1e-9 * max(abs(a), abs(b), scale)


def captured(prepared: Prepared, table: dict[str, Any], tile: int, states: list[Any]) -> list[dict[str, bytes]]:
    """What each lane wrote: the driver is called through a function that keeps the rows which are new."""
    ticks, kept = has_ticks(prepared.tape.events), dict[int, dict[str, bytes]]()
    real = program(ticks)

    def drive(at: int, _1: int, _2: int) -> None:
        lp = Loop.at(at)
        before = {name: getattr(lp, f"{name}_n") for name in KINDS}
        real(at)
        mine = kept.setdefault(lp.kernel, dict.fromkeys(KINDS, b""))
        for name, kind in KINDS.items():
            step, rows = kind.dtype.itemsize, getattr(lp, f"{name}_n") - before[name]
            mine[name] += ctypes.string_at(getattr(lp, name) + before[name] * step, rows * step)

    empty, finish, walk = lane_walk.empty, lanes_loop.finish, lanes_loop.walk

    def emptied(lp: Loop, *more: Any) -> None:
        """The short way has no curve; what else there is leaves the buffers here."""
        mine = kept[lp.kernel]
        for name in mine:
            mine[name] += ctypes.string_at(getattr(lp, name), getattr(lp, f"{name}_n") * KINDS[name].dtype.itemsize)
        empty(lp, *more)

    def walked(lp: Loop, *more: Any) -> None:
        kept.setdefault(lp.kernel, {name: b"" for name in KINDS if name != "curve"})
        walk(lp, *more)

    def finished(t: Any, k: Kernel, *more: Any) -> None:
        states.append({name: value for name, value in k.asdict().items() if not name.endswith(("_at", "_cap"))})
        finish(t, k, *more)

    Invoke.python[-9] = drive
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane_walk, "empty", emptied)
        patch.setattr(lanes_loop, "finish", finished)
        patch.setattr(lanes_loop, "walk", walked)
        patch.setattr(lane_pass, "TILE", tile)
        patch.setattr(lane_pass, "functions", lambda *_: (run_lanes, -9))
        work = Lanes(prepared, table)
        work.run(threads=1)
    return list(kept.values())


def same(prepared: Prepared, table: dict[str, Any], tile: int) -> None:
    """Bytes of each lane, then the figures of a compiled pass, against single runs."""
    work = Lanes(prepared, table)
    order = work.groups[0].tolist()
    # A delayed feed has a pass of its own, which reuses the memory: then the figures alone are compared.
    states: list[Any] = []
    written = captured(prepared, table, tile, states) if "venue.feed_ms" not in table else []
    singles = [work.single(lane).drive() for lane in range(work.count)]
    statuses = [drive.advance() for drive in singles]
    for lane, mine in zip(order if written else [], written, strict=True):
        theirs = singles[lane].outputs()
        for name in mine:
            assert mine[name] == getattr(theirs, name).tobytes(), (lane, name)
    ended = [lane for lane in order if statuses[lane] != codes.FAULTED and written]
    for lane, state in zip(ended, states, strict=True) if len(states) == len(ended) else ():
        theirs = singles[lane].machine.kernel.asdict()
        assert not [(name, value, theirs[name]) for name, value in state.items() if repr(value) != repr(theirs[name])]
    found = {threads: evaluate(prepared, table, returns=np.float64, threads=threads) for threads in (1, 3)}
    for name, column in found[1].figures.items():
        assert column.tobytes() == found[3].figures[name].tobytes(), name
    assert found[1].returns.tobytes() == found[3].returns.tobytes()
    for lane, status in enumerate(statuses):
        halted = status == codes.HALTED and singles[lane].machine.kernel.halt != codes.HALT_RISK
        if status == codes.FAULTED or halted:
            assert found[1].status[lane] == status and math.isnan(found[1].figures["end_equity"][lane])
            continue
        metrics = work.single(lane).run().metrics
        for name, column in found[1].figures.items():
            scale = 1e4 if name in ("expectancy", "fees") else 1.0  # sums that cancel, of an account of 1e3 to 1e6
            assert close(float(column[lane]), metrics[name], scale), (lane, name, column[lane], metrics[name])


TABLE = st.integers(2, 5).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "strategy.seed": st.lists(st.integers(0, 999), min_size=n, max_size=n),
            "strategy.often": st.lists(st.sampled_from([30, 60, 85]), min_size=n, max_size=n),
        },
        optional={
            "venue.taker_bps": st.lists(st.sampled_from([0.0, 5.0, 40.0]), min_size=n, max_size=n),
            "venue.slippage_bps": st.lists(st.sampled_from([0.0, 7.0]), min_size=n, max_size=n),
            "venue.feed_ms": st.lists(st.sampled_from([0.0, 0.3]), min_size=n, max_size=n),
            "risk.leverage": st.lists(st.sampled_from([1.0, 3.0]), min_size=n, max_size=n),
            "cash": st.lists(st.sampled_from([1_000.0, 1_000_000.0]), min_size=n, max_size=n),
        },
    )
)


@settings(max_examples=15)
@given(tapes(), TABLE, RISKS, VENUES, st.sampled_from([Fuzz, FuzzAll]), st.integers(1, 60))
def test_on_bars(tape: Tape, table: Any, risk: Any, venue: VenueModel, kind: type, tile: int) -> None:
    same(Prepared([kind()], tape, 1e5, Risk(**risk), venue, True, SIZES, "raise", None), table, tile)


@settings(max_examples=25)
@given(st.binary(min_size=60, max_size=900), TABLE, RISKS, VENUES, st.integers(1, 60), st.sampled_from([0, MINUTE]))
def test_on_one_instrument(data: bytes, table: Any, risk: Any, venue: VenueModel, tile: int, bar_ns: int) -> None:
    """The short way: one bar at each moment, and nothing but bars."""
    events = bytes(byte % 220 if n % 6 == 0 else (byte | 1) if n % 6 == 1 else byte for n, byte in enumerate(data))
    tape = decode(events, 1, bar_ns)
    prepared = Prepared([Fuzz()], tape, 1e5, Risk(**risk), venue, True, SIZES, "raise", None)
    assert Grid(prepared, 0).single
    same(prepared, {**table, "strategy.often": [often // 4 for often in table["strategy.often"]]}, tile)


@settings(max_examples=8)
@given(depth_tapes(), TABLE, RISKS, LATE, st.integers(1, 60))
def test_on_books(tape: Tape, table: Any, risk: Any, venue: VenueModel, tile: int) -> None:
    same(Prepared([Fuzz()], tape, 1e5, Risk(**risk), venue, True, SIZES, "raise", None), table, tile)


@settings(max_examples=8)
@given(st.integers(0, 999), TABLE, LATE, st.integers(20, 200))
def test_on_ticks(seed: int, table: Any, venue: VenueModel, tile: int) -> None:
    same(Prepared([FuzzTicks()], random_ticks(seed, 300), 1e5, Risk(leverage=4.0), venue, True, SIZES, "raise", None),
         table, tile)  # fmt: skip


def test_of_strategies_as_they_come() -> None:
    table = {"strategy.fast": [5, 10, 20], "strategy.slow": [40, 50, 60], "risk.drawdown": [math.inf, 0.01, 0.05]}
    same(prepare(Momentum(qty=100.0), "equities", end="2004-01-01"), table, 300)
    ticks = prepare(MarketMaking(), "ticks")
    same(between(ticks, 0, 4000), {"venue.order_ms": [0.0, 1.0]}, 1000)


def test_after_a_warm_up_nothing_before_it_is_traded_or_counted() -> None:
    prepared = prepare(Momentum(qty=100.0), "equities", end="2004-01-01")
    table = {"strategy.fast": [5, 10], "strategy.slow": [40, 50]}
    found = evaluate(prepared, table, warmup=400, returns=np.float64)
    for lane in range(2):
        metrics = Lanes(prepared, table, warmup=400).alone(lane).metrics
        assert all(close(float(column[lane]), metrics[name]) for name, column in found.figures.items())
    python = prepare(Momentum(qty=100.0), "equities", end="2000-09-01", compiled=False)
    short = prepare(Momentum(qty=100.0), "equities", end="2000-09-01")
    one, other = (evaluate(p, table, warmup=200, returns=np.float64) for p in (python, short))
    assert all(column.tobytes() == other.figures[name].tobytes() for name, column in one.figures.items())
    assert one.returns.tobytes() == other.returns.tobytes() and np.count_nonzero(one.returns) > 10


def test_a_position_that_is_held_below_zero() -> None:
    """Prices below zero (data imported with on_error=keep): each bar is marked, and its handler called."""
    price = np.concatenate(
        [np.linspace(10, 200, 300), np.full(300, -200.0) + np.sin(np.arange(300.0)), np.full(99, 5.0)]
    )
    events = np.zeros(len(price), Event.dtype)
    events["kind"], events["ts"] = codes.BAR, MINUTE * (1 + np.arange(len(price)))
    events["recv"], events["volume"] = events["ts"], 1e6
    for name, away in (("open", 0), ("high", 1), ("low", -1), ("close", 0)):
        events[name] = price + away
    tape = decode(bytes(6), 1, MINUTE)
    events.flags.writeable = False
    tape = replace(tape, events=events)
    prepared = Prepared([Momentum()], tape, 1e5, Risk(), VenueModel(), True, SIZES, "raise", None)
    assert Grid(prepared, 0).single
    table = {"strategy.fast": [5, 10], "strategy.slow": [20, 40]}
    assert (evaluate(prepared, table).figures["refusals"] > 100).all()
    same(prepared, table, 4096)
