"""Compiled methods: each once per machine, never stale, whole or absent; and numba is left as it was."""

import re
from pathlib import Path
from typing import Any

import pytest

from backtest import backtest
from engine.errors import ImageError, StrategyError
from engine.kernel import build, image
from tests.kernel.authored import IMPORTS, bars, module, run, same, strategy

BODY = "average: Mean\ndef on_bar(self, bar, ctx):\n    ctx.target(self.average.update(bar.close, 5) * {})\n"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A store of methods of its own, and the names of what is compiled into it."""
    from engine.kernel import compile_methods as methods

    names: list[str] = []
    make = methods._compiled
    monkeypatch.setattr(methods, "_place", lambda digest: tmp_path / f"{digest}.bc")
    monkeypatch.setattr(methods, "_known", {})
    monkeypatch.setattr(
        methods, "_compiled", lambda function, *a: names.append(function.__qualname__) or make(function, *a)
    )
    return names


def test_an_edited_strategy_compiles_no_method_again(compiled: list[str], tmp_path: Path) -> None:
    from engine.kernel import compile_methods as methods

    build.handlers(strategy(tmp_path, BODY.format(f"1.{hash(tmp_path) % 9973}")))
    assert {"Mean.update", "Ctx.target"} < set(compiled) and len(compiled) == len(set(compiled))
    for forget in (False, True):  # in this process, and from the store
        if forget:
            methods._known.clear()
        compiled.clear()
        build.handlers(strategy(tmp_path, BODY.format(f"{2 + forget}.{hash(tmp_path) % 9973}")))
        assert compiled == []
    (place,) = [p for p in tmp_path.glob("*.bc") if b"Mean" in p.read_bytes() and b"update" in p.read_bytes()][:1]
    for path in tmp_path.glob("*.bc"):
        path.write_bytes(path.read_bytes()[:-1])
    methods._known.clear()
    with pytest.raises(ImageError, match=rf"{re.escape(str(tmp_path))}.*\.bc is damaged. Delete it"):
        build.handlers(strategy(tmp_path, BODY.format(f"4.{hash(tmp_path) % 9973}")))
    assert place.exists()


RECORD = """
from engine.kernel.layout import Record
from tally_constants import SCALE


def scaled(tally, x):
    return tally.plus(x) * SCALE


class Tally(Record):
    total: float

    def plus(self, x, more=0.25):
        self.total += x + more
        return self.total

    @property
    def double(self):
        return self.total * 2.0

    def take(self, x):
        return scaled(self, x) + self.double
"""


def test_an_edited_method_takes_effect(tmp_path: Path) -> None:
    """So does a default, a property, a helper and a constant that the method reaches, in another file."""

    def equity(record: str = RECORD, constants: str = "SCALE = 3.0\n") -> float:
        module(tmp_path, constants, "tally_constants")
        module(tmp_path, record, "tally")
        text = f"{IMPORTS}\nfrom tally import Tally\n\n\nclass S(Strategy):\n    tally: Tally\n\n"
        text += "    def on_bar(self, bar, ctx):\n        ctx.target(self.tally.take(bar.close) % 7.0)\n"
        made = module(tmp_path, text, "tally_plan").S()
        result = backtest(made, bars(60, seed=2))
        assert same(backtest(made, bars(60, seed=2), compiled=False), result)
        return float(result.raw["curve"]["equity"][-1])

    edits = (("more=0.25", "more=0.5"), ("* 2.0", "* 7.0"), ("* SCALE", "* SCALE + 1.0"), ("+= x", "+= 2 * x"))
    found = [equity(), equity(constants="SCALE = 4.0\n"), *(equity(RECORD.replace(*edit)) for edit in edits)]
    assert len(set(found)) == len(found) and equity() == found[0]


def test_a_method_that_calls_itself_is_refused(tmp_path: Path) -> None:
    above = (
        "class R(Record):\n    n: int\n    def down(self, x):\n        return 0.0 if x < 1.0 else self.down(x - 1.0)\n"
    )
    body = "r: R\ndef on_bar(self, bar, ctx):\n    ctx.target(self.r.down(bar.close))\n"
    with pytest.raises(StrategyError, match=r"authored_.*R.down calls itself"):
        build.handlers(strategy(tmp_path, body, above))


OWN = """
import warnings
import numpy as np, numba as nb
from engine.kernel.strategy import Strategy
from engine.kernel import build

warnings.simplefilter("error")

@nb.njit
def clip(x, low, high):
    return min(max(x, low), high)

@nb.njit
def total(a):
    t = 0.0
    for x in a:
        t += clip(x, 0.0, 1.0) + max(x, 3.0) + round(x, 2)
    if t < 0:
        raise ValueError("bad", t)
    return t, a.sum(), np.dot(a, a)

class S(Strategy):
    x: float
    def on_bar(self, bar, ctx):
        self.x = clip(bar.close, 1.0, 200.0) + max(bar.open, self.x) + round(bar.close, 2) + min((1.0, 2.0))
        ctx.target(self.x)

{first}
build.handlers(S)
from engine.kernel.compile_draft import Draft
assert not Draft.at_work and nb.core.config.OPT == 3
print(total(np.arange(5.0)), clip(3.0, 1.0, 2.0), clip(3, 1, 2), nb.vectorize(lambda a, b: max(a, b))(1.0, 2.0))
try:
    total(np.array([-100.0]))
except ValueError as error:
    print(error.args)
@nb.njit
def later(n):
    many = [i * 2.0 for i in range(n)]
    found = {{int(v): max(v, 1.0) for v in many}}
    return sum(many), len(found), sorted(many)[0]
print(later(5))
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "total(np.ones(2))"])
def test_numba_of_the_user_works_as_before(tmp_path: Path, first: str) -> None:
    """What we left as drafts is finished when he calls it, in whichever order he and we compile."""
    done = run(tmp_path, OWN.format(first=first), TANDEM_CACHE=str(image.cache_folder("images").parent))
    expected = ["(30.0, 10.0, 30.0) 2.0 2 2.0", "('bad', -97.0)", "(20.0, 5, 0.0)"]
    assert done.stdout.splitlines() == expected, done.stdout + done.stderr


def test_what_a_method_returns_may_be_anything(tmp_path: Path) -> None:
    """A tuple, a record, a constant: kept in memory where the store has no word for its type."""
    above = (
        "class R(Record):\n    n: float\n    def pair(self, x): return x, self.n\n    def me(self): return self\n"
        "    def seven(self): return 7\n    def maybe(self, x):\n        if x > 100.0:\n            return x\n"
    )
    body = (
        "r: R\ndef on_bar(self, bar, ctx):\n    a, b = self.r.pair(bar.close)\n    self.r.me().n = a\n"
        "    m = self.r.maybe(bar.close)\n"
        "    ctx.target((a + b + self.r.seven()) % 9.0 + (1.0 if m is None else 2.0))\n"
    )
    made: Any = strategy(tmp_path, body, above)()
    found = backtest(made, bars(200))
    assert len(found.fills) > 50 and same(backtest(made, bars(200), compiled=False), found)
