"""A fault in a handler: the author gets Python's own traceback with the state before the event; nobody else is hurt."""

import re
from pathlib import Path
from typing import Any

import pytest

from backtest import backtest
from engine.errors import StrategyFault
from engine.kernel.machine import Sizes
from engine.kernel.strategy import Strategy
from strategies import Momentum
from tests.kernel.authored import bars, same, strategy

STATE = """
n: int
x: float
window: Array[float, 5]
average: Mean
"""
# The line that fails at the sixth bar, the exception, what the message holds.
FAULTS = {
    "an index beyond an array": ("self.x = self.window[self.n - 1]", "IndexError", "index 5 is out of bounds"),
    "a write before an array": ("self.window[-self.n] = 1.0", "IndexError", "index -6 is out of bounds"),
    "a float division": ("self.x = bar.close / (6.0 - self.n)", "ZeroDivisionError", "division by zero"),
    "an integer division": ("self.n += 0 * (1 // (6 - self.n))", "ZeroDivisionError", "by zero"),
    "a remainder": ("self.n += 0 * (1 % (6 - self.n))", "ZeroDivisionError", "by zero"),
    "a square root": ("self.x = math.sqrt(5 - self.n)", "ValueError", "math domain error"),
    "a logarithm": ("self.x = math.log(6 - self.n)", "ValueError", "math domain error"),
    "an exponential": ("self.x = math.exp(self.n * 130.0)", "OverflowError", "math range error"),
    "a length beyond the capacity": ("self.average.update(bar.close, self.n * 200)", "IndexError", "Mean[4096]"),
    "an instrument that is not there": ("self.x = ctx.mark(self.n // 6)", "IndexError", "no such instrument"),
    "an exception of one's own": ("assert self.n < 6", "AssertionError", "assert self.n < 6"),
}


def faulty(folder: Path, line: str) -> type[Strategy]:
    body = f"def on_bar(self, bar, ctx):\n    self.n += 1\n    ctx.target(3.0)\n    {line}\n"
    return strategy(folder, STATE + body)


def fault(one: Any, data: Any, **settings: Any) -> StrategyFault:
    with pytest.raises(StrategyFault) as caught:
        backtest(one, data, **settings)
    return caught.value


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_shows_its_line_and_the_state_before(what: str, tmp_path: Path) -> None:
    line, kind, words = FAULTS[what]
    cls, data = faulty(tmp_path, line), bars(30)
    found = fault(cls(), data)
    message = str(found)
    assert type(found.__cause__).__name__ == kind
    assert f"{kind}" in message and words in message, message
    shown = re.search(rf'File "({re.escape(str(tmp_path))}[^"]+)", line (\d+), in on_bar', message)
    assert shown and Path(shown[1]).read_text().splitlines()[int(shown[2]) - 1].strip() == line, message
    assert isinstance(found.state, dict) and found.state["n"] == 5
    assert "2024-01-01T00:06:00, I0 (event 5 of the tape)" in message, message
    assert isinstance(found.event, dict) and found.event["close"] == data["close"][5]
    assert "n=5" in message and "layout.py" not in message


def test_uncompiled_tells_the_same(tmp_path: Path) -> None:
    cls = faulty(tmp_path, FAULTS["an integer division"][0])
    compiled, plain = fault(cls(), bars(30)), fault(cls(), bars(30), compiled=False)
    assert str(compiled) == str(plain)
    assert compiled.state == plain.state


# In which handler, at which bar (zero-based) it fails.
PLACES = {
    "on_start": ("def on_start(self, start, ctx):\n    self.n = 1 // self.n\n", 0),
    "on_slice": ("def on_slice(self, end, ctx):\n    self.n += 1\n    self.prices[self.n - 4] = 1.0\n", 0),
    "on_report": ("def on_report(self, report, ctx):\n    self.n += 1\n    self.n += 1 // (1 - self.n)\n", None),
}


@pytest.mark.parametrize("handler", PLACES)
def test_a_fault_in_any_handler(handler: str, tmp_path: Path) -> None:
    body, at = PLACES[handler]
    bar = "def on_bar(self, bar, ctx):\n    ctx.target(self.n % 3 + 1.0)\n"
    cls = strategy(tmp_path, "universe = True\nprices: PerInstrument[float]\nn: int\n" + bar + body)
    found = fault(cls(), bars(30, instruments=2))
    message = str(found)
    assert f"in {handler}" in message and type(found.__cause__).__name__ in ("ZeroDivisionError", "IndexError"), message
    if at is not None:
        assert f"(event {at} of the tape)" in message
    if handler == "on_slice":
        assert "index -3 is out of bounds for 2 instruments" in message


@pytest.mark.parametrize("instrument", [2, 7])
def test_a_table_of_instruments_has_bounds(instrument: int, tmp_path: Path) -> None:
    body = f"universe = True\nn: PerInstrument[int]\ndef on_bar(self, bar, ctx):\n    self.n[{instrument}] += 1\n"
    assert f"index {instrument} is out of bounds" in str(fault(strategy(tmp_path, body)(), bars(5, instruments=2)))


# What fills the queue: no exception of Python's, but a fault all the same.
FLOODS = {
    "too many signals": (
        "for i in range(100):\n        ctx.cancel(i)",
        "more signals at once than the queue holds (32)",
    ),
    "an unknown instrument": ("ctx.target(1.0, 9)", "an instrument that does not exist (there are 1)"),
}


@pytest.mark.parametrize("what", FLOODS)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
def test_a_flood_of_signals_stops_its_strategy(what: str, compiled: bool, tmp_path: Path) -> None:
    line, words = FLOODS[what]
    found = fault(faulty(tmp_path, line)(), bars(30), sizes=Sizes(signals=32), compiled=compiled)
    assert words in str(found)


def test_the_second_of_two_strategies(tmp_path: Path) -> None:
    cls = faulty(tmp_path, "self.x = 1.0 / (6 - self.n)")
    found = fault([Momentum(fast=2, slow=5), cls()], bars(30, instruments=2))
    assert str(found).startswith("S() failed") and found.state is not None
    assert "I0 (event 10" in str(found)


def test_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The faulty strategy's open orders are cancelled and its position stays; the other trades as if alone."""
    body = "    self.n += 1\n    ctx.buy(1.0, limit=1.0)\n    self.n += 0 * (1 // (9 - self.n))\n"
    cls = strategy(tmp_path, "n: int\ndef on_bar(self, bar, ctx):\n" + body)
    other, data = Momentum(fast=2, slow=5, qty=10), bars(200, seed=5)
    alone = backtest(other, data)
    both = backtest([cls(), other], data, on_fault="continue", self_match=False)
    orders, reports = both.raw["orders"], both.raw["reports"]
    kinds = ("ts", "side", "qty", "instrument", "action")
    assert orders[orders["strategy"] == 1][[*kinds]].tolist() == alone.raw["orders"][[*kinds]].tolist()
    assert alone.raw["curve"]["equity"].tolist() == both.raw["curve"]["equity"].tolist()
    mine = orders[orders["strategy"] == 0]
    sent, cancels = mine[mine["action"] == 1], mine[mine["action"] == 2]
    assert len(sent) == 8 and set(cancels["id"]) == set(sent["id"])  # the queued ninth wish is void
    assert set(sent["id"]) <= set(reports[reports["code"] == 4]["order_id"])
    faults = both.identity["faults"]
    assert len(faults) == 1 and "ZeroDivisionError" in faults[0] and "(event 8 of the tape)" in faults[0]
    assert "stopped by a fault: S() failed" in capsys.readouterr().err
    assert "faults" not in alone.identity
    assert same(both, backtest([cls(), other], data, on_fault="continue", self_match=False, compiled=False))


def test_each_of_several_faults_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = faulty(tmp_path, "self.x = 1.0 / (6 - self.n)"), faulty(tmp_path, "self.x = 1.0 / (3 - self.n)")
    result = backtest([first(), second()], bars(30), on_fault="continue")
    assert [re.findall(r"event (\d+) of", text) for text in result.identity["faults"]] == [["2"], ["5"]]
    assert capsys.readouterr().err.count("stopped by a fault") == 2
