"""What a strategy may be, and what its author is told when it is not that: one paragraph with the line and the cure."""

from pathlib import Path

import pytest

from backtest import backtest
from engine.errors import StrategyError
from engine.kernel import indicators
from engine.kernel.build import handlers
from engine.kernel.image import methods_of
from engine.kernel.layout import Record
from engine.kernel.lint import inspect_strategy, read
from strategies import BUILT_IN
from tests.kernel.authored import bars, strategy

# The body of on_bar (BODY below declares the fields), and the words that the message must hold beside file, line and
# source line.
WRONG = {
    "a field that a bar does not have": (
        "self.total = bar.bid",
        "bar.bid",
        "A bar has ts,",
        "A quote has bid: write on_quote",
    ),
    "a misspelt field of a bar": ("self.total = bar.clos", "Did you mean close"),
    "an unknown field": ("self.total = self.slow_mean.n", "self.slow_mean", "S has fast, count", "`slow_mean: float`"),
    "a misspelt field": ("self.total = self.totl", "Did you mean total"),
    "a misspelt field of an indicator": ("self.total = self.average.lenght", "Mean has", "Did you mean length"),
    "an unknown verb": ("ctx.traget(1.0)", "ctx has", "Did you mean target"),
    "an unknown field of ctx": ("self.total = ctx.equty", "Did you mean equity"),
    "a parameter assigned": ("self.fast = 3", "parameters are constant", "`fast_now: int`", "on_start"),
    "a parameter counted up": ("self.fast += 1", "parameters are constant"),
    "an event assigned": ("bar.close = 1.0", "A bar is history"),
    "ctx assigned": ("ctx.position = 1.0", "ctx.target(qty)"),
    "an undeclared int": ("self.seen = 1", "Declare `seen: int` in the class body"),
    "an undeclared float": ("self.last = bar.close", "Declare `last: float` in the class body"),
    "a record written over": ("self.average = 1.0", "not a number"),
    "a list": ("self.total = sum([1.0, 2.0])", "unbounded list", "Array[float, 100]", "fixed layout"),
    "a list as a field": ("self.values = []", "unbounded list", "from engine.kernel.strategy import Array"),
    "a list that grows": ("self.values.append(bar.close)", "unbounded list", "Array[float, 100]"),
    "a list comprehension": ("x = [i for i in range(3)]", "unbounded list"),
    "a dict": ("x = {1: 2}", "a dict", "Array[int, 16]"),
    "a set": ("x = {1, 2}", "a set", "Array[bool, 100]"),
    "a generator": ("self.total = sum(x for x in self.window)", "a generator", "for i in range(n)"),
    "a string": ("x = 'up'", "is a string", "numbers only"),
    "not a number": ("self.total = float('nan')", "math.nan"),
    "an f-string": ("x = f'{bar.close}'", "f-string", "compiled=False"),
    "a print": ("print(bar.close)", "compiled=False", "frames of the result"),
    "a float into an int": ("self.count = bar.close * 2", "declared int", "Declare `count: float`", "int(...)"),
    "a quotient into an int": ("self.count = self.count / 2", "declared int"),
    "a quotient counted into an int": ("self.count /= 2", "declared int"),
    "a float local into an int": ("x = 0\nx = x + bar.close\nself.count = x", "declared int"),
    "a mean into an int": ("self.count = self.average.update(bar.close, 3)", "declared int"),
    "a float into a bool": ("self.flag = 1.0", "declared bool"),
    "numpy on a number": ("self.total = np.sqrt(bar.close)", "use math.sqrt", "last bits"),
    "numpy with another name in Python": ("self.total = np.maximum(1.0, bar.close)", "use max(a, b)"),
    "a numpy array": ("x = np.zeros(3)", "Array[float, 100]"),
    "try": ("try:\n    self.count = 1\nexcept ValueError:\n    self.count = 2", "try/except", "`if`"),
    "with": ("with open('x') as f:\n    pass", "`with` block"),
    "a lambda": ("f = lambda x: x", "a lambda"),
    "a closure": ("def f(x):\n    return x", "a function inside a function"),
    "a global that changes": ("global COUNTER\nCOUNTER = 1", "a global that changes", "`count: int`"),
    "a yield": ("yield 1", "a generator"),
    "an import": ("import os", "Move it to the top"),
    "a match": ("match self.count:\n    case 1:\n        self.count = 2", "if/elif"),
    "an unknown name": ("self.total = treshold", "is not defined", "Did you mean THRESHOLD"),
    "a list of the module": ("self.total = LEVELS[0]", "is a list of the module", "tuple"),
    "a builtin that opens files": ("open('x')", "handlers do not have"),
    "a new record": ("x = Mean()", "declare `one: Mean`"),
    "the clock": ("self.total = time.time()", "ctx.now"),
    "chance": ("self.total = random.random()", "randomness needs a field"),
    "a method that math lacks": ("self.total = math.sqr(2.0)", "Did you mean sqrt"),
    "the parent's handler": ("super().on_bar(bar, ctx)", "a method of another name"),
    "a constant of the class": ("self.total = self.LIMIT", "`LIMIT = 3` above the class"),
    "an indicator called": ("self.total = self.average(bar.close)", ".average.update(...)"),
    "a mistake in a method": ("self.helper(bar)", "bar.bid", "S.helper"),
    "a mistake in a helper function": ("self.total = outside(bar)", "bar.bid", "outside"),
    "a mistake in a record's method": (
        "self.tallies[0].take(1.0)",
        "Tally does not have",
        "`m: float`",
        "`self.m += x`",
    ),
}
ABOVE = """
THRESHOLD = 3.0
LEVELS = [1.0, 2.0]
COUNTER = 0


def outside(bar):
    return bar.bid


class Tally(Record):
    n: int

    def take(self, x):
        self.m += x
"""
BODY = """
fast: int = param(3)
count: int
total: float
flag: bool
average: Mean
window: Array[float, 9]
tallies: Array[Tally, 3]
LIMIT = 3

def helper(self, bar):
    self.total = bar.bid

def on_bar(self, bar, ctx):
"""


def written(folder: Path, body: str, state: str = BODY, above: str = ABOVE) -> type:
    return strategy(folder, state + "".join(f"    {line}\n" for line in body.splitlines()), above)


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_told_with_its_line_and_its_cure(what: str, tmp_path: Path) -> None:
    body, *words = WRONG[what]
    cls = written(tmp_path, body)
    with pytest.raises(StrategyError) as caught:
        inspect_strategy(cls)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600, message
    place, _, _ = message.partition(", ")
    path, _, line = place.rpartition(":")
    shown = Path(path).read_text().splitlines()[int(line) - 1].strip()
    assert f"`{shown}`" in message, message
    if "a mistake in" not in what:
        assert shown in [text.strip() for text in body.splitlines()]
    for word in words:
        assert word in message, message


def test_the_mistake_stops_the_backtest_before_anything_compiles(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="A quote has bid"):
        backtest(written(tmp_path, "ctx.target(bar.bid)")(), bars(20))


def test_nothing_right_is_refused() -> None:
    for cls in BUILT_IN.values():
        inspect_strategy(cls)
    for name in indicators.__all__:
        record = getattr(indicators, name)
        if isinstance(record, type) and issubclass(record, Record):
            for _, method in methods_of(record):
                read(method, [record], set())


# What only the compiler knows: told in one paragraph too.
BEYOND_LINT = {
    "a local of two types": ("x = (1.0, 2.0)\nif bar.close > 1.0:\n    x = 3.0\nself.total = x[0]", "`x` is sometimes"),
    "too few arguments": ("self.total = self.average.update(bar.close)", "length"),
    "too many arguments": ("ctx.cancel_all(1, 2, 3, 4)", "argument"),
    "an unknown keyword": ("ctx.target(1.0, stop=2.0)", "stop"),
    "something that no compiled code can use": ("self.total = CONFIG.level", "CONFIG"),
}


@pytest.mark.parametrize("what", BEYOND_LINT)
def test_what_the_compiler_refuses_is_no_dump(what: str, tmp_path: Path) -> None:
    body, word = BEYOND_LINT[what]
    above = ABOVE + "\n\nclass Config:\n    level = 1.0\n\n\nCONFIG = Config()\n"
    cls = written(tmp_path, body, above=above)
    with pytest.raises(StrategyError) as caught:
        handlers(cls)
    message = str(caught.value)
    assert word in message and "does not compile" in message, message
    assert "nopython" not in message and "\n" not in message and len(message) < 600, message
    assert str(tmp_path) in message, message
    assert caught.value.__cause__ is not None


# Errors of the class statement itself: body of the class, words.
WRONG_CLASS = {
    "a list as state": ("x: list[float]\ndef on_bar(self, bar, ctx): pass", "S.x", "Array[float, 100]", "fixed layout"),
    "a dict as state": ("x: dict\ndef on_bar(self, bar, ctx): pass", "indexed by a small integer"),
    "a string as state": ("x: str\ndef on_bar(self, bar, ctx): pass", "int code"),
    "an array without a length": ("x: Array[float]\ndef on_bar(self, bar, ctx): pass", "Array[float, 100]"),
    "an unknown type": ("x: 'Meen'\ndef on_bar(self, bar, ctx): pass", "Meen"),
    "state with a value": ("x: int = 3\ndef on_bar(self, bar, ctx): pass", "param(3)", "on_start"),
    "an indicator that is made": (
        "x = Mean()\ndef on_bar(self, bar, ctx): pass",
        "S.x",
        "`x: Mean` instead of `x = Mean()`",
    ),
    "a parameter's default overwritten": (
        "library: 'ClassVar[str]' = 'x.so'\nuniverse = 3\nfast: int = 5\n",
        "param(5)",
    ),
    "a parameter without a type": ("x = param(3)\ndef on_bar(self, bar, ctx): pass", "`x: float = param(...)`"),
    "a misspelt handler": ("def on_bars(self, bar, ctx): pass", "Did you mean on_bar?"),
    "a handler without ctx": ("def on_bar(self, bar): pass", "`def on_bar(self, bar, ctx)`"),
    "a name that numpy has": ("size: int\ndef on_bar(self, bar, ctx): pass", "rename"),
}


@pytest.mark.parametrize("what", WRONG_CLASS)
def test_a_class_that_cannot_be_is_told_where_it_stands(what: str, tmp_path: Path) -> None:
    body, *words = WRONG_CLASS[what]
    with pytest.raises(StrategyError) as caught:
        strategy(tmp_path, body)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    if "without a length" not in what:
        path, line = message.split(": ")[0].rsplit(":", 1)
        assert Path(path).read_text().splitlines()[int(line) - 1].startswith("class S"), message


def test_a_strategy_without_a_handler(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"no handler; write at least `def on_bar"):
        strategy(tmp_path, "x: int")()
