"""Law 7: orders up to an event do not depend on what comes after it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject, check_strategy
from engine.errors import StrategyError
from engine.kernel.events import Bar
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.synthetic import synthetic_tape
from tests.laws.world import subjects


@given(subjects(), st.integers(0, 1 << 30))
def test_the_future_does_not_reach_back(subject: Subject, seed: int) -> None:
    subject.causality(np.random.default_rng(seed), 2)


class Peek(Strategy):
    """Reads the event behind the one it is given. Possible in plain Python only, and found out."""

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        following: Any = Bar.at(bar._address + 64)
        ctx.target(1.0 if following.close > bar.close else 0.0)


def test_looking_ahead_is_found_out() -> None:
    with pytest.raises(StrategyError, match=r"Peek\(\) on .* breaks law 7, causality: with all events from \d+ on"):
        check_strategy(Peek, synthetic_tape(150), compiled=False)
