"""The ABI from outside: strategies in C, built with the generated header, trade like those in Python, byte for byte."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtest import backtest
from engine.errors import ImageError, StrategyFault
from engine.kernel.build import handlers
from engine.kernel.header import abi_words, header
from engine.kernel.indicators import Mean
from engine.kernel.strategy import Strategy, param
from strategies import Momentum
from tests.backtest.test_depth import random_depth
from tests.kernel.authored import bars, same, strategy

COMPILER = next((found for name in ("gcc", "cc", "clang") if (found := shutil.which(name))), None)
FLAGS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",
    "-O2",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
]
Built = Callable[..., Path]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Build a shared library from C source, with the header of a strategy beside it."""
    if COMPILER is None:
        pytest.skip("no C compiler (gcc, cc, clang) on this machine")

    def build(of: type[Strategy], text: str, name: str = "momentum", flags: list[str] = FLAGS) -> Path:
        (tmp_path / f"{name}.h").write_text(header(of))
        (tmp_path / f"{name}.c").write_text(text)
        out = tmp_path / f"{name}.so"
        subprocess.run([COMPILER, *flags, "-o", str(out), f"{name}.c", "-lm"], cwd=tmp_path, check=True)
        return out

    return build


def in_c(parent: type[Strategy], library: Path) -> type[Strategy]:
    return type("InC", (parent,), {"library": str(library), "__module__": __name__})


class Bare(Strategy):
    """Momentum's parameters and state, and no handler in Python."""

    fast: int = param(10)
    slow: int = param(50)
    qty: float = param(100.0)
    short: bool = param(False)
    fast_mean: Mean
    slow_mean: Mean


SETTINGS: list[dict[str, Any]] = [
    {"qty": 1.0},
    {"fast": 3, "slow": 9, "qty": 50.0, "short": True},
    {"fast": 2, "slow": 1000},
]


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("data", ["equities", "synthetic"])
def test_momentum_in_c_is_momentum(built: Built, data: str, params: dict[str, Any]) -> None:
    library = built(Momentum, (Path(__file__).parent / "momentum.c").read_text())
    tape = data if data == "equities" else bars(5000, instruments=3)
    expected = backtest(Momentum(**params), tape, taker_bps=5)
    assert len(expected.raw["orders"]) > (0 if params.get("slow") == 1000 else 100)
    for parent in (Momentum, Bare):
        assert same(expected, backtest(in_c(parent, library)(**params), tape, taker_bps=5))


VERBS = """
n: int
last: int
first: int
trail: int

def on_report(self, report, ctx):
    if report.code == codes.FILL and report.order_id == self.first:
        ctx.cancel(self.last)

def on_bar(self, bar, ctx):
    self.n += 1
    step = self.n % 12
    if step == 1:
        ctx.target_weight(0.25)
        ctx.target_weight(0.2 + ctx.pending + ctx.entry_price * 0.0, priority=3, life_ms=60000)
    elif step == 2:
        self.first = ctx.buy(3.0, limit=ctx.mark(bar.instrument) - 0.3, mask=codes.POST_ONLY, priority=2)
        self.last = ctx.sell(2.0, stop=bar.close - 1.0, tif=codes.DAY)
        ctx.buy(1.0)
        self.trail = ctx.sell(1.0, trail=0.7, life_ms=400000)
    elif step == 3:
        ctx.quote(ctx.mark(bar.instrument) - 0.4, bar.close + 0.4, 2.0, priority=1, life_ms=150000)
    elif step == 4:
        ctx.quote(bar.close - 0.4, ctx.bid, 1.0)
        if ctx.is_open(self.last):
            ctx.replace(self.last, 4.0, stop=bar.close - 2.0, life_ms=90000)
        ctx.replace(self.trail, 2.0, trail=0.5)
    elif step == 6:
        ctx.cancel(self.first, life_ms=5000)
        ctx.sell(1.0, limit=bar.close + 0.2, stop=bar.close - 0.2, tif=codes.GTD, life_ms=120000)
    elif step == 8:
        ctx.cancel_all(priority=2)
    elif step == 10:
        ctx.target(-2.0 if ctx.position > 3.0 and ctx.equity > ctx.cash else 0.0)
        ctx.target(1.0)
"""
VERBS_C = r"""
#include "verbs.h"
void on_report(State *s, const Report *r, Ctx *ctx) {
    if (r->code == TANDEM_FILL && r->order_id == s->first) tandem_cancel(ctx, s->last, 0, 0);
}
void on_bar(State *s, const Bar *bar, Ctx *ctx) {
    s->n += 1;
    switch (s->n % 12) {
    case 1:
        tandem_target_weight(ctx, -1, 0.25, 0, 0);
        tandem_target_weight(ctx, -1, 0.2 + tandem_pending(ctx, -1) + tandem_entry_price(ctx, -1) * 0.0, 3, 60000);
        break;
    case 2:
        s->first = tandem_order(ctx, -1, TANDEM_BUY, 3.0, tandem_mark(ctx, bar->instrument) - 0.3, 0.0, 0.0,
                                TANDEM_GTC, TANDEM_POST_ONLY, 2, 0);
        s->last = tandem_order(ctx, -1, TANDEM_SELL, 2.0, 0.0, bar->close - 1.0, 0.0, TANDEM_DAY, 0, 0, 0);
        tandem_buy(ctx, -1, 1.0, 0.0);
        s->trail = tandem_order(ctx, -1, TANDEM_SELL, 1.0, 0.0, 0.0, 0.7, TANDEM_GTC, 0, 0, 400000);
        break;
    case 3: tandem_quote(ctx, -1, tandem_mark(ctx, bar->instrument) - 0.4, bar->close + 0.4, 2.0, 1, 150000); break;
    case 4:
        tandem_quote(ctx, -1, bar->close - 0.4, tandem_touch(ctx, -1)->bid, 1.0, 0, 0);
        if (tandem_is_open(ctx, s->last)) tandem_replace(ctx, s->last, 4.0, 0.0, bar->close - 2.0, 0.0, 0, 90000);
        tandem_replace(ctx, s->trail, 2.0, 0.0, 0.0, 0.5, 0, 0);
        break;
    case 6:
        tandem_cancel(ctx, s->first, 0, 5000);
        tandem_order(ctx, -1, TANDEM_SELL, 1.0, bar->close + 0.2, bar->close - 0.2, 0.0, TANDEM_GTD, 0, 0,
                     120000);
        break;
    case 8: tandem_cancel_all(ctx, -1, 2, 0); break;
    case 10:
        tandem_target(ctx, -1, tandem_position(ctx, -1) > 3.0 && tandem_equity(ctx) > tandem_cash(ctx) ? -2.0 : 0.0,
                      0, 0);
        tandem_target(ctx, -1, 1.0, 0, 0);
        break;
    }
}
"""


def test_every_verb_in_c_is_the_verb(built: Built, tmp_path: Path) -> None:
    cls = strategy(tmp_path, VERBS)
    data = bars(600, instruments=2, seed=8)
    expected = backtest(cls(), data)
    actions, types = set(expected.raw["orders"]["action"].tolist()), set(expected.raw["orders"]["type"].tolist())
    assert actions == {1, 2, 3} and types == {1, 2, 3, 4, 5}  # new, cancel, replace; every type
    assert same(expected, backtest(in_c(cls, built(cls, VERBS_C, "verbs"))(), data))


MARKET = """
n: int
total: float
def look(self, ctx):
    self.n += 1
    self.total += ctx.bid + ctx.ask_volume + ctx.mid + ctx.imbalance + ctx.microprice + ctx.ask + ctx.bid_volume
    self.total += ctx.volume_of(1, 4) + ctx.volume_at(-1, ctx.ask) + ctx.imbalance_of(3)
    for level in range(6):
        self.total += ctx.level_price(1, level) + ctx.level_volume(-1, level) + ctx.level_price(-1, level)
    if ctx.spread > 0.0 and not ctx.crossed and not ctx.stale:
        lean = 0.01 * (self.n % 3)
        ctx.quote(ctx.bid - lean, ctx.ask + lean, 2.0 + 1.0 * (self.total % 2.0 > 1.0))
    else:
        ctx.quote(0.0, 0.0, 1.0)
def on_quote(self, quote, ctx):
    self.look(ctx)
def on_depth(self, depth, ctx):
    self.total += depth.volume * depth.side
    self.look(ctx)
"""
MARKET_C = r"""
#include "market.h"
static void look(State *s, Ctx *ctx) {
    s->n += 1;
    s->total += tandem_bid(ctx) + tandem_ask_volume(ctx) + tandem_mid(ctx) + tandem_imbalance(ctx)
        + tandem_microprice(ctx) + tandem_ask(ctx) + tandem_bid_volume(ctx);
    s->total += tandem_volume_of(ctx, 1, 4) + tandem_volume_at(ctx, -1, tandem_ask(ctx)) + tandem_imbalance_of(ctx, 3);
    for (int level = 0; level < 6; level++)
        s->total += tandem_level_price(ctx, 1, level) + tandem_level_volume(ctx, -1, level)
            + tandem_level_price(ctx, -1, level);
    if (tandem_spread(ctx) > 0.0 && !tandem_crossed(ctx) && !tandem_stale(ctx)) {
        double lean = 0.01 * (double)(s->n % 3);
        tandem_quote(ctx, -1, tandem_bid(ctx) - lean, tandem_ask(ctx) + lean, 2.0 + 1.0 * (fmod(s->total, 2.0) > 1.0),
                     0, 0);
    } else tandem_quote(ctx, -1, 0.0, 0.0, 1.0, 0, 0);
}
void on_quote(State *s, const Quote *quote, Ctx *ctx) { (void)quote; look(s, ctx); }
void on_depth(State *s, const Depth *depth, Ctx *ctx) {
    s->total += depth->volume * (double)depth->side;
    look(s, ctx);
}
"""


@pytest.mark.parametrize("quotes", [True, False])
def test_quotes_and_books_in_c(built: Built, tmp_path: Path, quotes: bool) -> None:
    cls, data = strategy(tmp_path, MARKET), random_depth(7, 3000, quotes=quotes)
    expected = backtest(cls(), data)
    assert {1, 2, 3} == set(expected.raw["orders"]["action"].tolist()) and len(expected.raw["orders"]) > 100
    assert same(expected, backtest(in_c(cls, built(cls, MARKET_C, "market"))(), data))


UNIVERSE = """
universe = True
prices: PerInstrument[float]
means: PerInstrument[Mean]
short: bool
window: Array[Mean, 2]
def on_bar(self, bar, ctx):
    self.prices[bar.instrument] = bar.close
def on_slice(self, end, ctx):
    for i in range(ctx.instruments):
        self.means[i].n += 1
        ctx.target(1.0 if self.prices[i] > 100.0 and self.means[i].n > 3 else 0.0, i)
"""
UNIVERSE_C = r"""
#include "universe.h"
void on_bar(State *s, const Bar *bar, Ctx *ctx) {
    (void)ctx;
    TANDEM_ITEM(double, s->prices, bar->instrument) = bar->close;
}
void on_slice(State *s, const Slice *end, Ctx *ctx) {
    (void)end;
    for (int64_t i = 0; i < tandem_instruments(ctx); i++) {
        Mean *m = &TANDEM_ITEM(Mean, s->means, i);
        m->n += 1;
        tandem_target(ctx, i, TANDEM_ITEM(double, s->prices, i) > 100.0 && m->n > 3 ? 1.0 : 0.0, 0, 0);
    }
}
"""


def test_a_universe_in_c(built: Built, tmp_path: Path) -> None:
    cls, data = strategy(tmp_path, UNIVERSE), bars(100, instruments=5)
    expected = backtest(cls(), data)
    assert len(expected.raw["orders"]) > 5
    assert same(expected, backtest(in_c(cls, built(cls, UNIVERSE_C, "universe"))(), data))


def test_the_header_is_cpp_too(built: Built, tmp_path: Path) -> None:
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler (g++, clang++) on this machine")
    (tmp_path / "one.h").write_text(header(Momentum))
    (tmp_path / "one.cpp").write_text(
        '#include "one.h"\n'
        "void on_bar(State *s, const Bar *b, Ctx *c) { tandem_target(c, -1, b->close * s->qty, 0, 0); }\n"
    )
    subprocess.run(
        [found, "-std=c++17", "-fsyntax-only", "-Wall", "-Wno-unused-function", "one.cpp"], cwd=tmp_path, check=True
    )


def test_a_rebuilt_library_takes_effect_in_one_process(built: Built) -> None:
    """The digest is the file's: the same path with other code is another strategy."""
    data, sides, digests = bars(50), [], set()
    for qty in ("1.0", "-1.0"):
        body = (
            f"void on_bar(State *s, const Bar *b, Ctx *c) {{ (void)s, (void)b; tandem_target(c, -1, {qty}, 0, 0); }}\n"
        )
        body = f'#include "momentum.h"\n{body}'
        cls = in_c(Bare, built(Momentum, body))
        result = backtest(cls(), data)
        sides.append(result.raw["orders"]["side"].tolist())
        digests.add(result.identity["strategies"][0])
    assert sides == [[1], [-1]] and len(digests) == 2


def test_a_fault_in_c(built: Built) -> None:
    library = built(Momentum, (Path(__file__).parent / "momentum.c").read_text())
    for compiled in (True, False):
        with pytest.raises(StrategyFault, match=r"its library .* set ctx->fault = 1"):
            backtest(in_c(Bare, library)(slow=5000), bars(50), compiled=compiled)


def test_what_is_wrong_with_a_library(built: Built, tmp_path: Path) -> None:
    text = '#include "momentum.h"\nint nothing;\n'
    other = strategy(tmp_path, "more: int\ndef on_bar(self, bar, ctx): pass\n")
    cases = {
        tmp_path / "absent.so": "cannot read .*absent.so .*gcc",
        built(Momentum, text): "exports no handler; it needs at least one of on_bar",
        built(other, text.replace("momentum", "other"), "other"): "was built for other layouts .*header",
        built(Momentum, "int on_bar;\n", "bare"): "no symbol tandem_abi",
    }
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    for path, words in {**cases, broken: "not a shared library that loads"}.items():
        with pytest.raises(ImageError, match=words):
            handlers(in_c(Momentum, path))


def test_a_relative_library_lies_beside_its_file(built: Built, tmp_path: Path) -> None:
    library = built(Momentum, (Path(__file__).parent / "momentum.c").read_text())
    cls = strategy(tmp_path, f'library = "{library.name}"\nx: int')
    with pytest.raises(ImageError, match="other layouts"):  # found, though of another strategy
        handlers(cls)


def test_the_abi_word_follows_the_layout(tmp_path: Path) -> None:
    first, second = strategy(tmp_path, "x: int\ny: float"), strategy(tmp_path, "y: float\nx: int")
    assert len({abi_words(first), abi_words(second), abi_words(Momentum)}) == 3
    assert abi_words(in_c(Momentum, tmp_path)) == abi_words(Momentum)
