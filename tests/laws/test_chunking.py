"""Law 2: any partition of the feed into pieces gives the same bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject
from engine.config import Risk, VenueModel
from tests.laws.world import MINUTE, Fuzz, decode, stage, subjects


@given(subjects(), st.integers(0, 1 << 30))
def test_any_partition_gives_the_same_bytes(subject: Subject, seed: int) -> None:
    subject.determinism()
    subject.chunking(np.random.default_rng(seed), 2)


def test_one_event_at_a_time() -> None:
    subject = stage([Fuzz(seed=3)], decode(np.random.default_rng(5).bytes(900), 3, MINUTE))
    drive = subject.prepared.drive()
    for until in range(len(subject.events) + 1):
        drive.advance(until)
    subject.same("chunking", drive.outputs(), "one event at a time")
    assert len(subject.whole.orders) > 20


def test_a_halted_run_stays_halted() -> None:
    tape = decode(np.random.default_rng(5).bytes(900), 2, MINUTE)
    risk = Risk(daily_loss=0.5, breach={"daily_loss": "halt"}, leverage=5.0)
    subject = stage([Fuzz(seed=3)], tape, risk, VenueModel(taker_bps=50.0))
    assert subject.drive.loop.index < len(tape)
    subject.chunking(np.random.default_rng(0), 5)
