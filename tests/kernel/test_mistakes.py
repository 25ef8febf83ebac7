"""Mistakes that compiled, and then meant something else than the same lines in Python; and right lines beside them."""

from pathlib import Path

import pytest

from backtest import backtest
from engine.errors import StrategyError
from engine.kernel.lint import inspect_strategy
from tests.kernel.authored import bars, same, strategy

HANDLER = "n: int\nlast: float\na: Array[float, 9]\nm: Mean\ndef on_bar(self, bar, ctx):\n    self.n += 1\n"
WRONG = {
    "one branch": ("if bar.close > 100.0:\n    x = 1.0\nctx.target(x)", r"ctx.target\(x\)`, `x` may be read before"),
    "nested": (
        "if bar.close > 100.0:\n    if bar.open > 100.0:\n        x = 1.0\n    ctx.target(x)",
        r"`x` may be read before.*in an `else` too",
    ),
    "elif": ("if self.n > 9:\n    x = 1.0\nelif self.n > 5:\n    x = 2.0\nctx.target(x)", r"`x` may be read before"),
    "augmented": ("if self.n > 9:\n    x = 1.0\nx += 1.0\nctx.target(x)", r"`x` may be read before"),
    "slice": ("ctx.target(sum(self.a[2:5]))", r"`self.a\[2:5\]` is a slice.*for i in range"),
    "is": ("if self.m.update(bar.close, 5) is math.nan:\n    return", r"one object.*math.isnan"),
    "numpy random": ("ctx.target(np.random.random())", r"asks `numpy.random`.*randomness needs a field"),
    "walrus": ("if (x := bar.close - 100.0) > 0.0:\n    ctx.target(x)", r"finds no type.*`:=` in a comparison.*split"),
    "none": ("ctx.target(None)", r"authored_\d+.py:\d+: `ctx.target\(None\)`.*`none` stands where a number must be"),
}
RIGHT = {
    "both branches": "if bar.close > 100.0:\n    x = 1.0\nelse:\n    x = 2.0\nctx.target(x)",
    "the other returns": "if bar.close > 100.0:\n    x = 1.0\nelse:\n    return\nctx.target(x)",
    "an equal condition": "up = bar.close > 100.0\nif up:\n    x = 1.0\nif up:\n    ctx.target(x)",
    "after an and": "up = bar.close > 100.0\nif up:\n    x = 2.0\nif up and x > 1.0:\n    ctx.target(x)",
    "set in the test": "if (x := bar.close - 100.0) > 0.0:\n    pass\nctx.target(x)",
    "a loop that runs": "for i in range(3):\n    x = float(i)\nctx.target(x)",
    "in a loop": "for i in range(3):\n    if i == 0:\n        x = 2.0\n    ctx.target(x)",
    "continue": "for i in range(4):\n    if i == 2:\n        y = 1.0\n    else:\n        continue\n    ctx.target(y)",
    "is none": "x = None if bar.close > 100.0 else 1.0\nctx.target(0.0 if x is None else x)",
    "set again": "if bar.close > 100.0:\n    x = 1.0\nx = 3.0\nctx.target(x)",
}


def body(lines: str) -> str:
    return HANDLER + "".join(f"    {line}\n" for line in lines.splitlines())


@pytest.mark.parametrize("name", WRONG)
def test_what_would_mean_something_else_is_refused(tmp_path: Path, name: str) -> None:
    lines, said = WRONG[name]
    with pytest.raises(StrategyError, match=said) as told:
        backtest(strategy(tmp_path, body(lines))(), bars(60))
    assert str(told.value).count("\n") == 0 and "%" not in str(told.value)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not_refused(tmp_path: Path, name: str) -> None:
    cls = strategy(tmp_path, body(RIGHT[name]))
    inspect_strategy(cls)


def test_right_lines_mean_the_same_compiled(tmp_path: Path) -> None:
    for name in ("an equal condition", "a loop that runs", "continue"):
        made = strategy(tmp_path, body(RIGHT[name]))()
        assert same(backtest(made, bars(80)), backtest(made, bars(80), compiled=False)), name


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("async def on_bar(self, bar, ctx):\n    ctx.target(1)\n", r"S.on_bar must be `def on_bar\(self, bar, ctx\)`"),
        ("import functools\n@functools.lru_cache\ndef on_bar(self, bar, ctx):\n    pass\n",
         r"S.on_bar is a _lru_cache_wrapper, no function: .*without a decorator"),
        ("def onbar(self, bar, ctx):\n    pass\n", r"\.py:\d+: \w+ has no handler.*Is `onbar` meant to be on_bar\?"),
    ],
)  # fmt: skip
def test_a_handler_is_a_plain_function(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        strategy(tmp_path, lines)()
