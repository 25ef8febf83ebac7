"""The venue of quotes and trades by table: each type of order with each time in force, and what follows a price.

One event a millisecond; a wish under n is made at event n. Everything runs uncompiled.
"""

from typing import Any

import pytest

from engine.kernel import codes
from tests.backtest.test_ticks import BOOK, DAY, FOK, GTD, IDS, IOC, POST, REDUCE, buy, play, q, sell, t, tape

GTC = codes.GTC
NONE = ("cancelled", 0, "no_liquidity")
UP = q(10.03, 5, 10.05, 4)
# What each type asks for; all buy 6, of which the book shows 4 at 10.02 (and 4 at 10.05 at event 2).
TYPES: dict[str, dict[str, Any]] = {
    "market": {},
    "marketable limit": {"limit": 10.02},
    "resting limit": {"limit": 10.01},
    "stop": {"stop": 10.05},
    "stop-limit": {"stop": 10.05, "limit": 10.06},
    "trailing": {"trail": 0.03},  # from the ask of 10.02: a stop at 10.05
}
TAKES = [("fill", 0, 4, 10.02)]
LATER = [("fill", 2, 4, 10.05)]
# The book, the same again, up at event 2, back at events 3 and 4; a life (GTD) is 3 ms.
MATRIX: dict[tuple[str, int], list[tuple[Any, ...]]] = {
    ("market", GTC): [*TAKES, ("fill", 1, 2, 10.02)],
    ("market", DAY): [*TAKES, ("fill", 1, 2, 10.02)],
    ("market", IOC): [*TAKES, NONE],
    ("market", FOK): [NONE],
    ("market", GTD): [*TAKES, ("fill", 1, 2, 10.02)],
    ("marketable limit", GTC): [*TAKES, ("fill", 1, 2, 10.02)],  # the new quote's ask has come to it
    ("marketable limit", DAY): [*TAKES, ("fill", 1, 2, 10.02)],
    ("marketable limit", IOC): [*TAKES, NONE],
    ("marketable limit", FOK): [NONE],
    ("marketable limit", GTD): [*TAKES, ("fill", 1, 2, 10.02)],
    ("resting limit", GTC): [],
    ("resting limit", DAY): [],
    ("resting limit", IOC): [NONE],
    ("resting limit", FOK): [NONE],
    ("resting limit", GTD): [("expired", 3, "")],
    ("stop", GTC): [*LATER, ("fill", 3, 2, 10.02)],
    ("stop", DAY): [*LATER, ("fill", 3, 2, 10.02)],
    ("stop", IOC): [*LATER, ("cancelled", 2, "no_liquidity")],  # at once, once its price has come
    ("stop", FOK): [("cancelled", 2, "no_liquidity")],
    ("stop", GTD): [*LATER, ("fill", 3, 2, 10.02)],
    ("stop-limit", GTC): [*LATER, ("fill", 3, 2, 10.06)],  # it rests by then: the ask came to its price
    ("stop-limit", DAY): [*LATER, ("fill", 3, 2, 10.06)],
    ("stop-limit", IOC): [*LATER, ("cancelled", 2, "no_liquidity")],
    ("stop-limit", FOK): [("cancelled", 2, "no_liquidity")],
    ("stop-limit", GTD): [*LATER, ("fill", 3, 2, 10.06)],
    ("trailing", GTC): [*LATER, ("fill", 3, 2, 10.02)],
    ("trailing", DAY): [*LATER, ("fill", 3, 2, 10.02)],
    ("trailing", IOC): [*LATER, ("cancelled", 2, "no_liquidity")],
    ("trailing", FOK): [("cancelled", 2, "no_liquidity")],
    ("trailing", GTD): [*LATER, ("fill", 3, 2, 10.02)],
}  # fmt: skip


def test_the_matrix_is_whole() -> None:
    assert set(MATRIX) == {(kind, tif) for kind in TYPES for tif in (GTC, DAY, IOC, FOK, GTD)}


@pytest.mark.parametrize(("kind", "tif"), MATRIX, ids=lambda x: x if isinstance(x, str) else codes.NAMES["tif"][x])
def test_each_type_with_each_time_in_force(kind: str, tif: int) -> None:
    life = {"life_ms": 3} if tif == GTD else {}
    wish = buy(6, tif=tif, **TYPES[kind], **life)
    assert play(tape(BOOK, BOOK, UP, BOOK, BOOK), {0: wish}) == MATRIX[kind, tif]


# Each case: the events, the wishes, what is reported.
TRAILING: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "it follows the bid up and is met on the way down": (
        [BOOK, q(10.05, 5, 10.07, 4), q(10.03, 5, 10.05, 4), q(10.02, 5, 10.04, 4)], {0: sell(2, trail=0.03)},
        [("fill", 3, -2, 10.02)]),
    "it does not loosen": (
        [BOOK, q(9.99, 5, 10.01, 4), q(9.98, 5, 10.00, 4), q(9.97, 5, 9.99, 4)], {0: sell(2, trail=0.03)},
        [("fill", 3, -2, 9.97)]),
    "a trade at its stop triggers it": (
        [BOOK, q(10.05, 5, 10.07, 4), t(10.02, 1, -1), BOOK], {0: sell(2, trail=0.03)}, [("fill", 2, -2, 10.05)]),
    "but a trade does not move it": (
        [BOOK, t(10.50, 1, 1), BOOK, q(9.97, 5, 9.99, 4)], {0: sell(2, trail=0.03)}, [("fill", 3, -2, 9.97)]),
    "a purchase follows the ask down": (
        [BOOK, q(9.95, 5, 9.97, 4), q(9.97, 5, 9.99, 4), q(9.98, 5, 10.00, 4)], {0: buy(2, trail=0.03)},
        [("fill", 3, 2, 10.00)]),
    "a stop that is nearer holds from the start": (
        [BOOK, q(9.99, 5, 10.01, 4), BOOK], {0: sell(2, stop=9.99, trail=0.05)}, [("fill", 1, -2, 9.99)]),
    "one that is farther gives way": (
        [BOOK, q(9.99, 5, 10.01, 4), q(9.98, 5, 10.00, 4)], {0: sell(2, stop=9.90, trail=0.02)},
        [("fill", 2, -2, 9.98)]),
    "without a bid it begins at the next": (
        [BOOK, q(0.0, 0, 10.02, 4), q(10.10, 5, 10.12, 4), q(10.07, 5, 10.09, 4)],
        {1: sell(2, trail=0.03)}, [("fill", 3, -2, 10.07)]),
    "a distance between two ticks is the longer": (
        [BOOK, q(9.98, 5, 10.00, 4), q(9.97, 5, 9.99, 4)], {0: sell(2, trail=0.021)}, [("fill", 2, -2, 9.97)]),
    "the same distance again keeps the stop": (
        [BOOK, q(9.98, 5, 10.00, 4), q(9.97, 5, 9.99, 4)],
        {0: sell(3, trail=0.03), 1: lambda ctx: ctx.replace(IDS[0], 2)}, [("replaced", 1, 2), ("fill", 2, -2, 9.97)]),
    "another distance begins afresh": (
        [BOOK, q(9.98, 5, 10.00, 4), q(9.96, 5, 9.98, 4), q(9.94, 5, 9.96, 4)],
        {0: sell(2, trail=0.03), 1: lambda ctx: ctx.replace(IDS[0], 2, trail=0.04)},
        [("replaced", 1, 2), ("fill", 3, -2, 9.94)]),
    "a cancel": ([BOOK, BOOK], {0: sell(2, trail=0.03), 1: lambda ctx: ctx.cancel(IDS[0])}, [("cancelled", 1, "")]),
    "reduce-only sells no more than is held": (
        [BOOK, BOOK, BOOK, q(9.97, 5, 9.99, 4)],
        {0: buy(2), 1: sell(2, trail=0.03, mask=REDUCE), 2: sell(1, mask=REDUCE)},
        [("fill", 0, 2, 10.02), ("fill", 2, -1, 10.00), ("fill", 3, -1, 9.97), ("cancelled", 3, "reduce_only_side")]),
}  # fmt: skip
LIVES: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "a life makes an order good till that time": ([BOOK] * 4, {0: buy(1, 9.0, life_ms=2)}, [("expired", 2, "")]),
    "in its last moment it is still met": (
        [BOOK, BOOK, t(9.0, 9, -1)], {0: buy(1, 9.5, life_ms=2)}, [("fill", 2, 1, 9.50)]),
    "it ends in time, not with the next event": (
        [BOOK, t(9.9, 1, 1), BOOK], {0: buy(1, 9.0, life_ms=1, tif=DAY)}, [("expired", 1, "")]),
    "a replace can renew it": (
        [BOOK] * 6, {0: buy(1, 9.0, life_ms=2), 1: lambda ctx: ctx.replace(IDS[0], 1, 9.1, life_ms=3)},
        [("replaced", 1, 1), ("expired", 4, "")]),
    "or leave it": (
        [BOOK] * 6, {0: buy(1, 9.0, life_ms=2), 1: lambda ctx: ctx.replace(IDS[0], 1, 9.1)},
        [("replaced", 1, 1), ("expired", 2, "")]),
    "what is left of a target ends too": (
        [BOOK, q(10.00, 5, 0.0, 0), q(10.00, 5, 0.0, 0), BOOK, BOOK], {0: lambda ctx: ctx.target(6, life_ms=2)},
        [("fill", 0, 4, 10.02), ("expired", 2, "")]),
    "both sides of a quote end": (
        [BOOK] * 4, {0: lambda ctx: ctx.quote(9.0, 11.0, 1.0, life_ms=2)}, [("expired", 2, ""), ("expired", 2, "")]),
}  # fmt: skip
QUEUES: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "more lots lose the place": (
        [BOOK, t(10.00, 5, -1), BOOK, t(10.00, 3, -1), t(10.00, 5, -1)],
        {0: buy(1, 10.00), 2: lambda ctx: ctx.replace(IDS[0], 3, 10.00)},
        [("replaced", 2, 3), ("fill", 4, 3, 10.00)]),
    "a replace that crosses takes": (
        [BOOK, BOOK], {0: buy(2, 10.00), 1: lambda ctx: ctx.replace(IDS[0], 2, 10.02)},
        [("replaced", 1, 2), ("fill", 1, 2, 10.02)]),
    "a post-only limit joins the queue": (
        [BOOK, t(10.00, 6, -1)], {0: buy(1, 10.00, mask=POST)}, [("fill", 1, 1, 10.00)]),
    "a market order would meet our own": ([BOOK, BOOK], {0: [sell(1, 10.01), buy(1)]}, [("reject", 0, "self_match")]),
    "a limit that stops short of our own rests": ([BOOK, BOOK], {0: [sell(1, 10.02), buy(1, 10.01)]}, []),
    "a replace into our own is refused": (
        [BOOK, BOOK], {0: [sell(1, 10.02), buy(1, 10.00)], 1: lambda ctx: ctx.replace(IDS[1], 1, 10.02)},
        [("cancel_reject", 1, "self_match")]),
}  # fmt: skip


@pytest.mark.parametrize("table", [TRAILING, LIVES, QUEUES], ids=["trailing", "lives", "queues"])
def test_tables(table: dict[str, Any]) -> None:
    for what, (events, wishes, reported) in table.items():
        assert play(tape(*events), wishes) == reported, what


# The same moment, 2 ms: what the venue has reported, by what arrives with the market event at 2.
TRADE = t(10.00, 9, -1)
SAME_MOMENT: dict[str, tuple[dict[int, Any], dict[str, float], list[Any]]] = {
    "the market event comes before the order": ({1: buy(1, 10.00)}, {"order_ms": 1.0}, []),
    "and before the cancel": (
        {0: buy(1, 10.00), 1: lambda ctx: ctx.cancel(IDS[0])}, {"order_ms": 1.0},
        [("fill", 2, 1, 10.00), ("cancel_reject", 2, "unknown_order")]),
    "and before the end of a life": ({0: buy(1, 10.00, life_ms=2)}, {}, [("fill", 2, 1, 10.00)]),
    "the end of a life comes before the cancel": (
        {0: buy(1, 9.00, life_ms=2), 1: lambda ctx: ctx.cancel(IDS[0])}, {"order_ms": 1.0},
        [("expired", 2, ""), ("cancel_reject", 2, "unknown_order")]),
    "orders arrive as they were sent": (
        {1: [buy(1, 10.05), sell(1, 9.95)]}, {"order_ms": 1.0}, [("fill", 2, 1, 10.02), ("fill", 2, -1, 10.00)]),
}  # fmt: skip


def test_what_happens_at_the_same_moment() -> None:
    for what, (wishes, late, reported) in SAME_MOMENT.items():
        assert play(tape(BOOK, BOOK, TRADE, BOOK), wishes, **late) == reported, what


def test_a_report_of_the_same_moment_reaches_the_kernel_before_the_market_event() -> None:
    seen: list[float] = []
    watch = {n: lambda ctx: seen.append(ctx.position) for n in (1, 2, 3)}
    play(tape(BOOK, BOOK, BOOK, BOOK), {0: buy(1), **watch}, order_ms=1.0, report_ms=1.0)
    assert seen == [0, 1, 1]


def test_an_order_or_a_cancel_that_is_void_when_it_arrives() -> None:
    wishes = {0: buy(1, 10.02, life_ms=1), 1: buy(1, 9.0), 3: lambda ctx: ctx.cancel(IDS[-1], life_ms=1)}
    assert play(tape(*[BOOK] * 7), wishes, order_ms=2.0) == [
        ("expired", 2, ""), ("cancel_reject", 5, "expired_signal")]  # fmt: skip


BAD: dict[str, dict[str, float]] = {
    "a limit and a distance": {"limit": 10.0, "trail": 0.1}, "a distance below zero": {"trail": -0.1},
    "a distance of no tick": {"trail": 1e-9}, "good till when?": {"tif": GTD}, "not a number": {"trail": float("nan")},
    "a life of years": {"life_ms": 1 << 50}, "post-only": {"trail": 0.1, "mask": POST},
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_makes_no_sense_is_refused(what: str) -> None:
    from tests.backtest import test_ticks

    assert play(tape(BOOK, BOOK), {0: buy(1, **BAD[what])}) == []
    assert test_ticks.REFUSED == ["bad_order"]
