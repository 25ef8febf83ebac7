"""Law 5: plain Python and compiled code give the same bytes."""

from hypothesis import given

from backtest.check import Subject
from tests.laws.world import subjects


@given(subjects(events=30))
def test_plain_python_is_an_oracle(subject: Subject) -> None:
    subject.interpreter(30)
