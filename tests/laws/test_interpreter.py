"""Law 5: plain Python and compiled code give the same bytes."""

from hypothesis import given

from backtest.check import Trial
from tests.laws.world import trials


@given(trials(events=30))
def test_plain_python_is_an_oracle(trial: Trial) -> None:
    trial.interpreter(30)
