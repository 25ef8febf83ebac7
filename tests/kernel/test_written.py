"""Strategies that are right, in all the ways and places in which people write them: compiled is uncompiled."""

from pathlib import Path

import pytest

from backtest import backtest
from tests.kernel.authored import IMPORTS, bars, module, run, same, strategy

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
    within = module(
        tmp_path, "def make():\n" + "".join(f"    {line}\n" for line in _file().splitlines()) + "    return S\n"
    )
    parent = module(tmp_path, _file() + "\n\nclass T(S):\n    more: int\n    slow: int = param(9)\n")
    helper = module(tmp_path, "def level(mean, x, n):\n    return mean.update(x, n)\n", "authored_helper")
    used = module(tmp_path, _file().replace("self.average.update(", "authored_helper.level(self.average, ")
                  .replace("import math", "import math\nimport authored_helper"))  # fmt: skip
    assert helper.level is not None
    for cls in (future.S, within.make(), parent.T, used.S):
        assert same(plain, backtest(cls(), data)), cls
        assert same(plain, backtest(cls(), data, compiled=False)), cls


def _file() -> str:
    return IMPORTS + "\n\nclass S(Strategy):\n" + "".join(f"    {line}\n" for line in PLAIN.strip().splitlines())


def test_a_script_is_a_module_like_any_other(tmp_path: Path) -> None:
    plain = backtest(strategy(tmp_path, PLAIN)(), bars(200, seed=4))
    text = _file() + "\n\nfrom tests.kernel.authored import bars\nfrom backtest import backtest\n\n"
    done = run(tmp_path, text + "print(len(backtest(S(), bars(200, seed=4)).raw['orders']))\n")
    assert done.stdout.strip() == str(len(plain.raw["orders"])), done.stderr


def test_the_same_cell_again_with_other_code() -> None:
    """A notebook has no file; each run of a cell makes a new class of the same name and layout."""
    data, found = bars(100), []
    for sign in ("", "-"):
        scope: dict[str, object] = {"__name__": "cell"}
        code = f"class S(Strategy):\n    n: int\n    def on_bar(self, bar, ctx):\n        ctx.target({sign}5.0)\n"
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
