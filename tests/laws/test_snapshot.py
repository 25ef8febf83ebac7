"""Law 3: state to bytes, and back into fresh objects, at any event; what follows is the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject, move, together
from engine.errors import ConfigError
from tests.laws.world import MINUTE, Fuzz, FuzzAll, decode, stage, subjects


@given(subjects(), st.integers(0, 1 << 30))
def test_any_cut_can_be_continued(subject: Subject, seed: int) -> None:
    subject.snapshot(np.random.default_rng(seed), 3)


def test_every_event_is_a_place_to_stop() -> None:
    subject = stage([FuzzAll(seed=1), Fuzz(seed=2)], decode(np.random.default_rng(7).bytes(240), 2, MINUTE))
    for cut in range(len(subject.events) + 1):
        first, second = subject.prepared.drive(), subject.prepared.drive()
        first.advance(cut)
        move(first, second)
        second.advance()
        subject.same("snapshot", together(first.outputs(), second.outputs()), f"restored at {cut}")
        subject.same_state("snapshot", second, f"restored at {cut}")


def test_a_snapshot_of_another_shape_is_refused() -> None:
    tape = decode(b"\x05" * 60, 1, MINUTE)
    one, two = stage([Fuzz()], tape).drive.machine, stage([Fuzz(), Fuzz()], tape).drive.machine
    with pytest.raises(ConfigError, match="bytes, this kernel"):
        one.restore(two.snapshot())
