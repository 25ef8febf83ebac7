"""What a result derives from fills equals what the kernel kept in its account, splits and dividends included."""

from dataclasses import replace
from typing import Any

import pytest

from backtest import backtest
from engine.kernel import codes
from engine.store.tape import Tape
from strategies import Momentum

HOUR = 3_600_000_000_000


@pytest.mark.parametrize("several", [False, True])
def test_trades_and_positions_are_the_kernels(book: Any, several: bool) -> None:
    prices = book["walk"](300, 2, 3)
    actions = [(120, 0, codes.DIVIDEND, 0.4), (200, 1, codes.DIVIDEND, 0.9)]
    for row, instrument, ratio in ((100, 0, 1.5), (180, 1, 0.3), (250, 0, 2.0)):
        prices[row:, instrument] /= ratio
        actions.append((row, instrument, codes.SPLIT, ratio))
    made = book["tape"](prices, actions=actions)
    events = made.events
    # A corporate action stands at the open of its first bar.
    events["ts"][events["kind"] != codes.BAR] += 1 - 6 * HOUR
    events["recv"] = events["ts"]
    events.flags.writeable = False
    tape = Tape(events, tuple(replace(i, bar_ns=6 * HOUR) for i in made.instruments), made.digest, made.name)
    strategies = [Momentum(fast=5, slow=20, qty=7, short=True), Momentum(fast=10, slow=40, qty=5)]
    result = backtest(strategies if several else strategies[:1], tape, taker_bps=3, leverage=2)
    last = result.raw["curve"][-1]
    assert len(result.history.actions.ts) == 5
    assert result.trips.pnl.sum() == pytest.approx(float(last["equity"]) - result.start_equity, abs=1e-7)
    held = result.positions.group_by("instrument", maintain_order=True).last()
    close = dict(zip(result.instruments, prices[-1], strict=True))
    values = [qty * close[name] for name, qty in held.select("instrument", "qty").rows()]
    assert sum(map(abs, values)) == pytest.approx(float(last["gross"]), abs=1e-7)
    assert float(last["cash"]) + sum(values) == pytest.approx(float(last["equity"]), abs=1e-7)
