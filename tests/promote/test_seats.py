"""Both seats have the same kernel: what differs between history and live is never its configuration."""

from typing import Any

import pytest

from backtest import prepare
from engine.config import Data, Risk
from engine.modes_engine import Live, planned
from engine.store.synthetic import synthetic_frame
from strategies import BUILT_IN
from tests.backtest.test_depth import random_depth

RISK: dict[str, Any] = {"leverage": 2.0, "drawdown": 0.3, "breach": {"drawdown": "flatten"}}


@pytest.mark.parametrize(("name", "data"), [("momentum", "equities"), ("market_making", "ticks")])
def test_the_same_settings_give_the_same_kernel(name: str, data: str) -> None:
    live = planned(Live(strategy={"name": name}, data=Data(source=data), risk=Risk(**RISK)))
    tested = prepare(BUILT_IN[name](), data, risk=Risk(**RISK)).plan((name,))
    program = ("session", {})
    assert live.header(program) == tested.header(program)


def test_books_and_trading_days_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.store

    tape = random_depth(3, 400)
    monkeypatch.setattr(engine.store, "open_tape", lambda *_, **__: tape)
    assert planned(Live(strategy={"name": "market_making"})).depth == tuple(
        prepare(BUILT_IN["market_making"](), tape).depth
    )
    assert prepare(BUILT_IN["momentum"](), synthetic_frame(50, seed=1)).plan().depth == ()
