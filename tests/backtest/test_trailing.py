"""Trailing stops on bars by table: the near end of a bar comes first, the far end after it, the close last."""

from typing import Any

import pytest

from engine.kernel import codes
from tests.backtest.stage import Row, bars, play
from tests.backtest.test_venue import FLAT, buy, filled, first, sell

UP: Row = (103, 106, 102, 105)

# name, the order (sent at the close of FLAT, 100), the bars that follow, the reports
CASES: list[tuple[str, Any, list[Row], list[tuple[Any, ...]]]] = [
    ("the close it was sent at gives the first stop", sell(10, trail=3), [(99, 99, 97, 98)], [filled(2, -10, 97)]),
    ("gapped through", sell(10, trail=3), [(96, 97, 95, 96)], [filled(1, -10, 96)]),
    ("it follows the open first", sell(10, trail=3), [(103, 104, 100, 102)], [filled(2, -10, 100)]),
    ("the near end is met before the far end", sell(10, trail=3), [(100, 109, 97, 108)], [filled(2, -10, 97)]),
    ("the far end is not met in its own bar", sell(10, trail=3), [(100, 105, 99, 104)], []),
    ("but in the next", sell(10, trail=3), [(100, 105, 99, 104), (104, 104, 101, 103)], [filled(3, -10, 102)]),
    ("or at its open", sell(10, trail=3), [(100, 105, 99, 104), (101, 103, 100, 102)], [filled(2, -10, 101)]),
    ("a close beyond it proves that it was met", sell(10, trail=3), [(100, 105, 99, 101)], [filled(2, -10, 101)]),
    ("a close at it too", sell(10, trail=3), [(100, 105, 99, 102)], [filled(2, -10, 102)]),
    ("it never loosens", sell(10, trail=3), [UP, (104, 105, 103.5, 104), (104, 104, 102, 104)], [filled(4, -10, 103)]),
    ("a purchase is the mirror", buy(10, trail=3), [(97, 98, 93, 95), (95, 97, 95, 96)], [filled(3, 10, 96)]),
    ("its near end first", buy(10, trail=3), [(100, 103, 91, 92)], [filled(2, 10, 103)]),
    ("a close beyond", buy(10, trail=3), [(100, 101, 95, 99)], [filled(2, 10, 99)]),
    ("a nearer stop from the start", sell(10, 0, 99, trail=5), [(100, 101, 98, 100)], [filled(2, -10, 99)]),
    ("good for a time", sell(10, trail=50, life_ms=120_000), [FLAT, FLAT, FLAT], [("expired", 3, "")]),
    ("good for a day", sell(10, trail=3, tif=codes.DAY), [(99, 99, 97, 98)], [filled(2, -10, 97)]),
    ("IOC waits for its price", sell(10, trail=3, tif=codes.IOC), [FLAT, (99, 99, 96, 96)], [filled(3, -10, 98)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wish", "rows", "reports"), CASES, ids=[row[0] for row in CASES])
def test_cases(name: str, wish: Any, rows: list[Row], reports: list[tuple[Any, ...]]) -> None:
    assert play(bars(FLAT, *rows), {0: wish}).reports == reports


def test_slippage_participation_and_reduce_only() -> None:
    slipped = play(bars(FLAT, (99, 99, 96, 98)), {0: sell(10, trail=3)}, slippage_bps=100).reports
    assert slipped == [filled(2, -10, 96.03)]
    thin = bars(FLAT, (99, 99, 96, 98, 40), (97, 98, 96, 97, 1000))
    assert play(thin, {0: sell(9, trail=3)}, participation=0.1).reports == [filled(2, -4, 97), filled(2, -5, 97)]
    held = bars(FLAT, FLAT, (99, 99, 96, 98))
    wishes = {0: buy(4), 1: sell(4, trail=3, mask=codes.REDUCE_ONLY)}
    assert play(held, wishes).reports == [filled(1, 4, 100), filled(3, -4, 97)]


def test_replace() -> None:
    rise = [FLAT, UP]
    closer = play(
        bars(*rise, (105, 105, 103, 104)), {0: sell(10, trail=5), 1: lambda ctx: ctx.replace(first(ctx), 10, trail=2)}
    )
    assert closer.reports == [("replaced", 2, 10), filled(3, -10, 103)]  # from the close of 105
    fewer = play(bars(*rise, (105, 105, 101, 104)), {0: sell(10, trail=5), 1: lambda ctx: ctx.replace(first(ctx), 4)})
    assert fewer.reports == [("replaced", 2, 4), filled(3, -4, 101)]  # the stop stays where it had come to: 106 - 5
    wrong = play(bars(*rise, FLAT), {0: sell(10, 0, 90), 1: lambda ctx: ctx.replace(first(ctx), 10, trail=2)})
    assert (wrong.reports, wrong.refused) == ([], ["bad_order"])


def test_a_stop_that_is_to_be_filled_at_once_waits_for_its_price() -> None:
    tape = bars(FLAT, FLAT, (100, 104, 99, 101, 40), FLAT)
    for tif, reports in ((codes.IOC, [filled(3, 4, 103), ("cancelled", 3, "no_liquidity")]),
                         (codes.FOK, [("cancelled", 3, "no_liquidity")])):  # fmt: skip
        assert play(tape, {0: buy(9, 0, 103, tif=tif)}, participation=0.1).reports == reports
