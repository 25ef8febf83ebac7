"""What a strategy may be, and what its author is told when it is not that: one paragraph with the line and the cure."""

from pathlib import Path

import pytest

from tests.kernel.authored import bars, module, run, same, strategy
from backtest import backtest
from engine.errors import StrategyError
from engine.kernel import indicators
from engine.kernel.build import handlers, reachable
from engine.kernel.layout import Record
from engine.kernel.lint import inspect_strategy, read
from strategies import BUILT_IN

# The body of on_bar (self has fast: int param, count: int, total: float, flag: bool, average: Mean, window: Array[float, 9],
# tallies: Array[Tally, 3]); the words that the message must hold beside file, line and source line.
WRONG = {
    "a field that a bar does not have": ("self.total = bar.bid", "bar.bid", "A bar has ts,", "A quote has bid: write on_quote"),
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
    "a list as a field": ("self.values = []", "unbounded list", "Array[float, 100]"),
    "a list that grows": ("self.values.append(bar.close)", "unbounded list", "Array[float, 100]"),
    "a list comprehension": ("x = [i for i in range(3)]", "unbounded list"),
    "a dict": ("x = {1: 2}", "a dict", "Array[int, 16]"),
    "a set": ("x = {1, 2}", "a set", "Array[bool, 100]"),
    "a generator": ("self.total = sum(x for x in self.window)", "a generator", "for i in range(n)"),
    "a string": ("x = 'up'", "is a string", "numbers only"),
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
    "chance": ("self.total = random.random()", "random numbers"),
    "a method that math lacks": ("self.total = math.sqr(2.0)", "Did you mean sqrt"),
    "the parent's handler": ("super().on_bar(bar, ctx)", "a method of another name"),
    "a constant of the class": ("self.total = self.LIMIT", "`LIMIT = 3` above the class"),
    "an indicator called": ("self.total = self.average(bar.close)", ".average.update(...)"),
    "a mistake in a method": ("self.helper(bar)", "bar.bid", "S.helper"),
    "a mistake in a helper function": ("self.total = outside(bar)", "bar.bid", "outside"),
    "a mistake in a record's method": ("self.tallies[0].take(1.0)", "Tally does not have", "`m: float`", "`self.m += x`"),
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
            for method in reachable(record):
                read(method, [record], set())


# What only the compiler knows: told in one paragraph too.
BEYOND_LINT = {
    "a local of two types": ("x = (1.0, 2.0)\nif bar.close > 1.0:\n    x = 3.0\nself.total = x[0]", "`x` is sometimes"),
    "too few arguments": ("self.total = self.average.update(bar.close)", "length"),
    "too many arguments": ("ctx.cancel_all(1, 2, 3)", "argument"),
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
    "a parameter's default overwritten": ("library: 'ClassVar[str]' = 'x.so'\nuniverse = 3\nfast: int = 5\n", "param(5)"),
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


# Strategies that are right, each in the way people write them. All trade the same.
PLAIN = """
fast: int = param(3)
total: float
average: Mean
def on_bar(self, bar, ctx):
    self.total = self.average.update(bar.close, self.fast)
    ctx.target(10.0 if bar.close > self.total else 0.0)
"""


def test_the_places_where_a_strategy_is_written_do_not_matter(tmp_path: Path) -> None:
    data = bars(200, seed=4)
    plain = backtest(strategy(tmp_path, PLAIN)(), data)
    assert len(plain.raw["orders"]) > 20
    future = module(tmp_path, "from __future__ import annotations\n" + _file())
    within = module(tmp_path, "def make():\n" + "".join(f"    {line}\n" for line in _file().splitlines()) + "    return S\n")
    parent = module(tmp_path, _file() + "\n\nclass T(S):\n    more: int\n    slow: int = param(9)\n")
    helper = module(tmp_path, "def level(mean, x, n):\n    return mean.update(x, n)\n", "authored_helper")
    used = module(tmp_path, _file().replace("self.average.update(bar.close", "authored_helper.level(self.average, bar.close")
                  .replace("import math", "import math\nimport authored_helper"))  # fmt: skip
    assert helper.level is not None
    for cls in (future.S, within.make(), parent.T, used.S):
        assert same(plain, backtest(cls(), data)), cls
        assert same(plain, backtest(cls(), data, compiled=False)), cls


def _file() -> str:
    from tests.kernel.authored import IMPORTS

    return IMPORTS + "\n\nclass S(Strategy):\n" + "".join(f"    {line}\n" for line in PLAIN.strip().splitlines())


def test_a_script_is_a_module_like_any_other(tmp_path: Path) -> None:
    plain = backtest(strategy(tmp_path, PLAIN)(), bars(200, seed=4))
    text = _file() + "\n\nfrom tests.kernel.authored import bars\nfrom backtest import backtest\n\n"
    done = run(tmp_path, text + "print(len(backtest(S(), bars(200, seed=4)).raw['orders']))\n")
    assert done.stdout.strip() == str(len(plain.raw["orders"])), done.stderr


def test_the_same_cell_again_with_other_code() -> None:
    """A notebook has no file; each run of a cell makes a new class of the same name and layout."""
    from tests.kernel.authored import IMPORTS

    data, found = bars(100), []
    for sign in ("", "-"):
        scope: dict[str, object] = {"__name__": "cell"}
        code = f"class S(Strategy):\n    n: int\n    def on_bar(self, bar, ctx):\n        self.n += 1\n        ctx.target({sign}5.0)\n"
        exec(compile(IMPORTS + code, "<cell>", "exec"), scope)
        cls = scope["S"]
        assert isinstance(cls, type)
        found.append(backtest(cls(), data))
    assert [list(r.raw["orders"]["side"]) for r in found] == [[1], [-1]]


RICH = """
qty: float = param(5.0)
tally: Tally
tallies: Array[Tally, 3]
average: Mean
ring: Array[float, 7]
n: int
up: bool

@property
def level(self) -> float:
    return self.ring[self.n % 7]

def decide(self, x, ctx):
    if x > 0.0:
        ctx.target(self.qty)
    else:
        ctx.target(-self.qty)

def on_bar(self, bar, ctx):
    self.n += 1
    self.ring[self.n % 7] = bar.close
    self.ring[-1] = 2.0
    self.tally.take(bar.close)
    self.tallies[self.n % 3].take(bar.close)
    total = 0.0
    for x in self.ring:
        total += x
    for i in range(len(self.tallies)):
        total += self.tallies[i].mean()
    side = Side.UP if bar.close > self.tally.mean() else Side.DOWN
    self.up = side == Side.UP
    x = self.average.update(bar.close, 5) + clamp(total, LEVELS[0], LEVELS[1]) + self.level + math.log(K)
    self.decide(-1.0 if side == Side.DOWN else x, ctx)
"""
RICH_ABOVE = """
from enum import IntEnum

K = 3
LEVELS = (0.0, 2.0)


class Side(IntEnum):
    UP = 1
    DOWN = -1


def clamp(x, low, high):
    return min(max(x, low), high)


class Tally(Record):
    n: int
    total: float

    def take(self, x):
        self.n += 1
        self.total += x

    def mean(self):
        return self.total / self.n if self.n > 0 else 0.0
"""
UNIVERSE = """
universe = True
last: PerInstrument[float]
seen: PerInstrument[int]
known: PerInstrument[bool]
tallies: PerInstrument[Tally]
averages: PerInstrument[Mean]

def best(self):
    found = -1
    top = 0.0
    for i in range(len(self.last)):
        x = self.last[i] / self.tallies[i].mean()
        if self.known[i] and x > top:
            top = x
            found = i
    return found

def on_bar(self, bar, ctx):
    i = bar.instrument
    self.last[i] = bar.close
    self.seen[i] += 1
    mean = self.averages[i].update(bar.close, 3)
    self.tallies[i].take(mean if self.averages[i].ready else bar.close)
    self.known[i] = self.seen[i] > 4

def on_slice(self, end, ctx):
    best = self.best()
    if self.last[0] * 2.0 < self.last[1] + self.tallies[0].total - self.tallies[0].total:
        self.last[1] = 0.0
    for i in range(ctx.instruments):
        ctx.target_weight(0.5 if i == best else 0.0, i)
"""


@pytest.mark.parametrize(("body", "instruments", "least"), [(RICH, 1, 10), (UNIVERSE, 4, 30)], ids=["rich", "universe"])
def test_compiled_is_uncompiled(body: str, instruments: int, least: int, tmp_path: Path) -> None:
    """Nested records with methods, arrays of records, helpers, properties, constants, enums; a universe's tables."""
    cls, data = strategy(tmp_path, body, RICH_ABOVE), bars(150, instruments, seed=3)
    compiled = backtest(cls(), data)
    assert len(compiled.raw["orders"]) >= least
    assert same(compiled, backtest(cls(), data, compiled=False))
