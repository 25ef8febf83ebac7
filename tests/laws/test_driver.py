"""Law 6: a session and the paper venue give what the loop with its venue gives, byte for byte; on bars and on ticks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject, uncompiled
from backtest.parity import Parity
from backtest.run import Prepared, prepare
from engine.config import Risk, VenueModel
from engine.errors import StrategyError
from strategies import MarketMaking
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import MINUTE, SIZES, Fuzz, FuzzAll, FuzzTicks, decode, stage, subjects

LATENCIES = st.sampled_from([0.0, 0.5, 2.0])


@given(subjects())
def test_on_bars(subject: Subject) -> None:
    subject.driver()


@given(st.integers(0, 999), LATENCIES, LATENCIES, LATENCIES, st.sampled_from([Fuzz, FuzzTicks, MarketMaking]),
       st.sampled_from([0.0, 1.0]))  # fmt: skip
def test_on_ticks(seed: int, order: float, report: float, feed: float, kind: type, jitter: float) -> None:
    venue = VenueModel(order_ms=order, report_ms=report, feed_ms=feed, jitter=jitter, queue="power", taker_bps=2.0)
    given_ = [kind() if kind is MarketMaking else kind(seed=seed)]
    subject = Subject(Prepared(given_, random_ticks(seed, 300), 1e5, Risk(leverage=4.0), venue, True, SIZES, "raise",
                               None))  # fmt: skip
    subject.driver()


def test_on_splits_and_halts() -> None:
    """What the loops do in the middle of a timestamp, and at the end of a run that risk stops."""
    tape = decode(np.random.default_rng(3).bytes(6 * 400), 3, MINUTE)
    risk = Risk(leverage=3.0, daily_loss=50.0, breach={"daily_loss": "halt"})
    subject = stage([Fuzz(seed=3), FuzzAll(seed=4)], tape, risk, VenueModel(taker_bps=5.0), 1e4)
    subject.driver()
    assert subject.drive.machine.kernel.halt and subject.drive.loop.index < len(tape)
    stage([Fuzz(seed=5), FuzzAll(seed=6)], tape, Risk(leverage=9.0), VenueModel(participation=0.1), 1e6).driver()


def test_in_plain_python() -> None:
    tape = decode(np.random.default_rng(4).bytes(6 * 60), 2, MINUTE)
    few = Subject(uncompiled(stage([Fuzz(seed=8), FuzzAll(seed=9)], tape).prepared))
    few.driver()


def test_what_differs_is_said() -> None:
    prepared = prepare(Fuzz(), decode(np.random.default_rng(4).bytes(6 * 60), 2, MINUTE), compiled=False)
    subject, real = Subject(prepared), Parity.deliver

    def lame(self: Parity, reports: "np.ndarray[tuple[int], np.dtype[np.void]]") -> None:
        real(self, reports[:0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parity, "deliver", lame)
        with pytest.raises(StrategyError, match=r"breaks law 6, driver: driven by a session .* order \d+ differs"):
            subject.driver()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_on_much(seed: int) -> None:
    rng = np.random.default_rng(seed)
    venue = VenueModel(slippage_bps=3.0, participation=0.3, taker_bps=4.0, fee_min=0.01)
    stage([Fuzz(seed=seed), FuzzAll(seed=seed)], decode(rng.bytes(6 * 5_000), 12, MINUTE), Risk(), venue, 1e7).driver()
