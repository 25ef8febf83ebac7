"""All laws on many small worlds, and on long tapes with more of everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.check import Subject
from engine.config import Risk, VenueModel
from tests.laws.world import MINUTE, Fuzz, FuzzAll, decode, stage, subjects

pytestmark = pytest.mark.slow


@settings(max_examples=1000)
@given(subjects(events=200), st.integers(0, 1 << 30))
def test_all_laws(subject: Subject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    subject.determinism()
    subject.chunking(rng, 2)
    subject.snapshot(rng, 2)
    subject.causality(rng, 1)
    subject.conservation(rng, 2)
    subject.parameters()
    subject.interpreter(12)


@pytest.mark.parametrize("seed", range(3))
def test_long_tapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tape = decode(rng.bytes(6 * 30_000), 12, MINUTE // 2)
    venue = VenueModel(slippage_bps=3.0, participation=0.3, taker_bps=4.0, fee_min=0.01)
    subject = stage([Fuzz(seed=seed), FuzzAll(seed=seed), Fuzz(seed=seed + 1)], tape, Risk(leverage=4.0), venue, 1e7)
    assert len(subject.whole.orders) > 10_000
    subject.chunking(rng, 3)
    subject.snapshot(rng, 3)
    subject.causality(rng, 2)
    subject.conservation(rng, 3)
    subject.interpreter(300)
