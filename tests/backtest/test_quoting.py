"""What the built-in market maker and scalper do on a few quotes written by hand. Everything runs uncompiled."""

from typing import Any

import pytest

from backtest.run import prepare
from engine.errors import StrategyError
from engine.kernel import codes
from engine.store.tape import Tape
from strategies import MarketMaking, Scalping
from strategies.market_making import glft
from tests.backtest.test_ticks import MS, START, q, t, tape

ACTIONS = codes.NAMES["action"]


def asked(strategy: Any, events: Tape, **settings: Any) -> list[tuple[Any, ...]]:
    """(action, ms, signed lots, price) of the orders that left."""
    drive = prepare(strategy, events, cash=1e6, leverage=1e9, compiled=False, **settings).drive()
    assert drive.advance() == 0
    return [(ACTIONS[int(o["action"])], (int(o["ts"]) - START) / MS, int(o["side"] * o["qty"]),
             round(float(o["price"]), 9)) for o in drive.outputs().orders]  # fmt: skip


EVEN = q(10.00, 5, 10.02, 5)  # microprice 10.01
BOTH = [("new", 0, 1, 10.0), ("new", 0, -1, 10.02)]
PULLED = [("cancel", 2, 1, 10.0), ("cancel", 2, -1, 10.02)]
AGAIN = [("new", 3, 1, 10.0), ("new", 3, -1, 10.02)]
MAKER: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "half a spread around the fair value, not inside the touch": ({"half_ticks": 0.2}, [EVEN], BOTH),
    "farther away": ({"half_ticks": 3.0}, [EVEN], [("new", 0, 1, 9.98), ("new", 0, -1, 10.04)]),
    "the same quote again moves nothing": ({}, [EVEN, EVEN, EVEN], BOTH),
    "a small move of the fair value moves nothing": (
        {"move_ticks": 1.0}, [EVEN, q(10.00, 9, 10.02, 1)], BOTH),
    "it leans against what it holds": (
        {"skew_ticks": 2.0}, [EVEN, t(9.99, 3, -1), EVEN],
        [*BOTH, ("new", 2, 1, 9.98)]),
    "a side that would exceed the limit is not quoted": (
        {"limit": 1.5, "skew_ticks": 0.0}, [EVEN, t(9.99, 3, -1), EVEN], BOTH),
    "none on a crossed book": ({}, [EVEN, EVEN, q(10.01, 5, 10.01, 5), EVEN], [*BOTH, *PULLED, *AGAIN]),
    "none on one side alone": ({}, [EVEN, EVEN, q(10.00, 5, 0.0, 0), EVEN], [*BOTH, *PULLED, *AGAIN]),
    "none on a fast market": (
        {"fast": 3.0, "memory": 0.5}, [EVEN, q(10.00, 5, 10.02, 4.9), q(10.40, 5, 10.42, 5)],
        [*BOTH, PULLED[0]]),  # the other is filled
    "wider in a wild one": (
        {"widen": 1.0, "memory": 1.0}, [EVEN, EVEN, q(10.02, 5, 10.04, 5)],
        [*BOTH, ("new", 2, -1, 10.06)]),  # after the fill at 10.02
    "what ends is quoted again": (
        {"life_ms": 2, "move_ticks": 5.0}, [EVEN] * 4, [*BOTH, ("new", 2, 1, 10.0), ("new", 2, -1, 10.02)]),
}  # fmt: skip


@pytest.mark.parametrize("what", MAKER)
def test_market_making(what: str) -> None:
    params, events, orders = MAKER[what]
    assert asked(MarketMaking(**params), tape(*events)) == orders


def test_a_limit_that_no_order_fits_is_told() -> None:
    with pytest.raises(StrategyError, match=r"limit must be at least qty, got limit=20\.0, qty=100"):
        MarketMaking(qty=100.0)
    assert asked(MarketMaking(qty=3.0, limit=3.0), tape(EVEN)) == [("new", 0, 3, 10.0), ("new", 0, -3, 10.02)]


def test_no_quotes_on_stale_data() -> None:
    """Quotes that come 50 ms late; and trades that come while quotes do not."""
    assert asked(MarketMaking(stale_ms=20), tape(EVEN, EVEN, feed=50.0)) == []
    assert asked(MarketMaking(stale_ms=60), tape(EVEN, feed=50.0)) != []
    found = asked(MarketMaking(stale_ms=2), tape(EVEN, *[t(10.01, 1, 0)] * 5))
    assert found == [*BOTH, ("cancel", 3, 1, 10.0), ("cancel", 3, -1, 10.02)]


def test_the_closed_form_is_quoted() -> None:
    """The mid moves a tick every millisecond: sigma is sqrt(1 / 0.001) ticks per root second."""
    params = {"gamma": 0.1, "decline": 0.5, "intensity": 100.0, "memory": 1.0}
    half, _ = glft(0.1, 1000.0**0.5, 0.5, 100.0)
    events = [q(10.00 + 0.01 * n, 5, 10.02 + 0.01 * n, 5) for n in range(2)]
    found = asked(MarketMaking(**params), tape(*events))
    assert found[-1] == ("replace", 1, -1, round(0.01 * -(-(1002 + half) // 1), 9))
    assert half > glft(0.1, 0.0, 0.5, 100.0)[0] > 1.0


# A book whose bid is joined and lifted: 200 quotes of rest, a burst at 201 to 203 ms, then what follows.
REST = [q(10.00 - 0.01 * (n % 2), 5, 10.02 - 0.01 * (n % 2), 5) for n in range(200)]
BURST = [q(10.01, 9, 10.03, 2), q(10.02, 9, 10.04, 2), q(10.03, 9, 10.05, 2)]
QUICK: dict[str, Any] = {"memory_s": 0.05, "scale_s": 0.1, "entry": 0.8, "trend": 0.5, "spread": 99.0, "hold_s": 5.0,
                         "pause_s": 10.0}  # fmt: skip


def scalp(*after: Any, **params: Any) -> list[tuple[Any, ...]]:
    """(action, ms after the burst, lots, price, type) of the orders."""
    events = tape(*REST, *BURST, *after)
    drive = prepare(Scalping(**{**QUICK, **params}), events, cash=1e6, leverage=1e9, compiled=False).drive()
    assert drive.advance() == 0
    assert drive.machine.table("markets_at")["net"][0] == 0
    return [(ACTIONS[int(o["action"])], (int(o["ts"]) - START) / MS - 200, int(o["side"] * o["qty"]),
             codes.NAMES["type"][int(o["type"])]) for o in drive.outputs().orders]  # fmt: skip


def test_scalping_enters_with_the_flow_and_leaves_passively() -> None:
    found = scalp(*[q(10.03 + 0.01 * n, 9, 10.05 + 0.01 * n, 2) for n in range(15)])
    (enter, *exits), at = found[:3], found[0][1]
    assert enter == ("new", at, 1, "limit") and at < 3
    assert exits == [("new", at, -1, "limit"), ("new", at, -1, "stop")]
    assert [row[0::2] for row in found[3:]] == [("cancel", -1)]  # the stop, when the limit is filled


def test_scalping_is_stopped_or_leaves_in_time() -> None:
    falls = scalp(*[q(10.03 - 0.02 * n, 2, 10.05 - 0.02 * n, 9) for n in range(30)], gain=50.0)
    assert [row[3] for row in falls[:3]] == ["limit", "limit", "stop"]
    assert [row[0] for row in falls[3:]] == ["cancel"]  # of the limit
    stays = scalp(*[BURST[-1]] * 40, gain=50.0, loss=50.0, hold_s=0.02)
    assert [(row[0], row[3]) for row in stays[3:]] == [("cancel", "stop"), ("cancel", "limit"), ("new", "market")]
    assert stays[-1][1] - stays[0][1] == pytest.approx(21)  # the first quote after 20 ms
    assert [row[3] for row in scalp(*[BURST[-1]] * 40, gain=50.0, loss=50.0, hold_s=0.02, trail=True)[:3]][
        -1
    ] == "trailing"


def test_scalping_waits_for_agreement_and_for_its_scales() -> None:
    assert scalp(trend=50.0) == scalp(scale_s=60.0) == scalp(entry=50.0) == scalp(spread=0.1) == []
