"""What a run on quotes and trades says of its fills: by hand, against plain numpy, to the last cent of the profit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest import backtest
from backtest.figures import ALL
from backtest.look import KERNEL, VENUE, look, questions, run
from backtest.quality import CURVE, HORIZONS, Profit, joins, markout_curve
from backtest.report import notebook_figure, page
from backtest.result import Result
from backtest.run import prepare
from engine.kernel import codes
from engine.kernel.events import Quote, Trade
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.instruments import InstrumentInfo
from engine.store.market import market_tape
from engine.store.tape import Tape, blank, frozen
from strategies import MarketMaking

SECOND = 1_000_000_000
TICKS = np.full(2, 0.01)
START = 20_000 * 86_400 * SECOND
FIELDS = {codes.QUOTE: ("bid", "ask", "bid_volume", "ask_volume"), codes.TRADE: ("price", "traded", "side"),
          codes.DEPTH: ("price", "traded", "side", "last", "code"), codes.GAP: (),
          codes.FUNDING: ("amount",), codes.SPLIT: ("amount",), codes.DIVIDEND: ("amount",)}  # fmt: skip
Wish = Callable[[Ctx], Any]
WISHES: dict[int, list[Wish]] = {}


class Trader(Strategy):
    """Wishes at each event what the test wrote down. It runs uncompiled only."""

    n: int

    def wish(self, ctx: Ctx) -> None:
        for one in WISHES.get(self.n, ()):
            one(ctx)
        self.n += 1

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.wish(ctx)

    def on_trade(self, trade: Trade, ctx: Ctx) -> None:
        self.wish(ctx)


def tape(*rows: tuple[Any, ...], feed: int = 0, **info: Any) -> Tape:
    """Rows (second, kind, values…[, instrument by a trailing dictionary]); received `feed` ns later."""
    events = blank(len(rows))
    for event, (second, kind, *values) in zip(events, rows, strict=True):
        if values and isinstance(values[-1], dict):
            event["instrument"] = values.pop()["i"]
        event["ts"], event["kind"] = START + round(second * SECOND), kind
        event["recv"] = event["ts"] + feed
        for name, value in zip(FIELDS[kind], values, strict=True):
            event[name] = value
    infos = tuple(InstrumentInfo(name, **{"tick": 0.01, **info}) for name in ("A", "B"))
    return Tape(frozen(events), infos, "0" * 16, "ticks")


def q(second: float, bid: float, ask: float, volume: float = 5.0) -> tuple[Any, ...]:
    return second, codes.QUOTE, bid, ask, volume, volume + 1.0


def t(second: float, price: float, volume: float, side: int) -> tuple[Any, ...]:
    return second, codes.TRADE, price, volume, side


def played(events: Tape, wishes: dict[int, Any], **settings: Any) -> Result:
    """The result of wishes by number of the event that the strategy sees."""
    WISHES.clear()
    WISHES.update({n: list(w) if isinstance(w, list | tuple) else [w] for n, w in wishes.items()})
    given = {"cash": 1e5, "compiled": False, "leverage": 1e9, "self_match": False, **settings}
    return prepare(Trader(), events, **given).run()


def parts_add_up(result: Result) -> Profit:
    found = result.profit
    scale = max(1.0, float(np.abs(result.fill_columns.lots * result.fill_columns.price).sum()))
    total = found.spread + found.inventory + found.carry - found.fees
    assert total == pytest.approx(found.total, abs=1e-10 * scale + 1e-9)
    return found


BOOK = [q(0, 10.00, 10.02), q(1, 10.00, 10.02, 7.0)]


def test_a_maker_by_hand() -> None:
    """Buys 2 at 10.00 behind 7, met at a middle of 10.01; after 1 s the middle is 9.98, after 5 s 10.03."""
    events = tape(*BOOK, t(2, 10.00, 9, -1), q(2.5, 9.97, 9.99), q(6, 10.02, 10.04), q(40, 10.00, 10.02))
    result = played(events, {1: lambda ctx: ctx.buy(2, 10.00)}, maker_bps=1.0)
    done = result.executions
    assert done.maker.tolist() == [True]
    assert (done.mark[0], done.ahead[0], done.rested[0]) == (pytest.approx(10.01), 7.0, 1.0)
    assert done.spread[0] == pytest.approx(0.01)
    assert done.markouts[:, 0] == pytest.approx([-0.02, 0.03, 0.03])
    m = result.metrics
    assert m["spread_pnl"] == pytest.approx(0.02)
    assert m["inventory_pnl"] == pytest.approx(0.0)  # the middle is 10.01 again
    assert m["fees"] == pytest.approx(20 * 1e-4)
    assert m["net_pnl"] == pytest.approx(0.02 - 20 * 1e-4)
    assert m["spread_captured"] == pytest.approx(10.0)  # bps of 10.00
    assert [m[f"markout_{h:g}s"] for h in HORIZONS] == pytest.approx([-20.0, 30.0, 30.0])
    assert m["adverse_selection"] == pytest.approx(10.0 - 30.0)
    assert (m["maker_share"], m["fill_ratio"], m["quote_trade_ratio"]) == (1.0, 1.0, 1.0)
    assert (m["queue_ahead"], m["queue_seconds"]) == (7.0, 1.0)
    assert m["max_inventory"] == pytest.approx(2 * 10.03)
    assert m["average_inventory"] == pytest.approx((2 * 10.01 * 0.5 + 2 * 9.98 * 3.5 + 2 * 10.03 * 34) / 40)
    assert parts_add_up(result).total == pytest.approx(m["net_pnl"])
    more = ["maker", "mark", "spread", "ahead", "rested", "markout_1s", "markout_5s", "markout_30s"]
    assert result.fills.columns[-8:] == more
    assert result.fills["markout_5s"][0] == pytest.approx(0.03)


def test_a_taker_by_hand() -> None:
    """Sells into 10.00 when the middle is 10.01: it pays, and what lies beyond the tape is not told."""
    result = played(tape(*BOOK, q(4, 9.90, 9.92)), {0: lambda ctx: ctx.sell(3)}, taker_bps=2.0)
    done = result.executions
    assert not done.maker[0]
    assert np.isnan([done.ahead[0], done.rested[0], *done.markouts[1:, 0]]).all()
    assert done.spread[0] == pytest.approx(-0.01)
    assert done.markouts[0, 0] == pytest.approx(-0.01)
    found = parts_add_up(result)
    assert (found.spread, found.inventory) == (pytest.approx(-0.03), pytest.approx(0.30))
    assert np.isnan([result.metrics["markout_5s"], result.metrics["queue_ahead"]]).all()


def test_a_quote_that_crosses_us_is_met_at_the_middle_before() -> None:
    result = played(tape(*BOOK, q(2, 9.90, 9.95), q(40, 9.90, 9.95)), {0: lambda ctx: ctx.buy(1, 10.00)})
    assert result.executions.spread.tolist() == pytest.approx([0.01])
    assert markout_curve(result, result.executions.maker)[0].size == len(CURVE)


def test_a_replace_joins_anew_and_fewer_lots_do_not() -> None:
    ids: list[int] = []
    wishes = {0: lambda ctx: ids.append(ctx.buy(3, 9.99)), 1: lambda ctx: ctx.replace(ids[0], 3, 10.00),
              2: lambda ctx: ctx.replace(ids[0], 2, 10.00)}  # fmt: skip
    events = tape(q(0, 10.00, 10.02), q(1, 10.00, 10.02, 4.0), q(2, 10.00, 10.02, 9.0), t(3, 10.00, 20, -1))
    result = played(events, wishes)
    when, price, resting = joins(result.raw["orders"], result.raw["reports"])
    assert (when.tolist(), price.tolist(), resting.tolist()) == ([START + SECOND], [10.00], [True])
    assert result.executions.ahead.tolist() == [4.0]
    assert result.metrics["quote_trade_ratio"] == 3.0


def test_funding_is_a_part_of_its_own() -> None:
    events = tape(*BOOK, (3, codes.FUNDING, 0.001), q(4, 11.00, 11.02), (5, codes.DIVIDEND, 0.5), q(6, 11.0, 11.02))
    result = played(events, {0: lambda ctx: ctx.buy(2)}, feed_ms=3.0, report_ms=1.0)
    assert parts_add_up(result).carry == pytest.approx(-2 * 10.01 * 0.001 + 2 * 0.5)


def test_a_halt_ends_the_account_and_the_profit() -> None:
    """After a loss of more than 1 the kernel halts; what the market does later is nobody's profit."""
    events = tape(*BOOK, q(2, 8.00, 8.02), q(3, 5.00, 5.02), q(4, 99.0, 99.02))
    result = played(events, {0: lambda ctx: ctx.buy(2)}, daily_loss=1.0, breach={"daily_loss": "halt"})
    assert result.curve[0][-1] == START + 2 * SECOND
    assert parts_add_up(result).inventory == pytest.approx(2 * (8.01 - 10.01))


PRICES = st.integers(990, 1010)
ROW = st.one_of(
    st.tuples(st.just("q"), PRICES, st.integers(1, 4), st.integers(1, 9), st.integers(0, 1)),
    st.tuples(st.just("t"), PRICES, st.sampled_from([-1, 1]), st.integers(1, 9), st.integers(0, 1)),
    st.tuples(st.sampled_from(["funding", "dividend", "split"]), st.integers(-3, 3), st.just(0), st.just(0),
              st.integers(0, 1)),
)  # fmt: skip
DEPTH = st.one_of(ROW, st.tuples(st.sampled_from(["snapshot", "depth", "depth", "depth", "gap"]), PRICES,
                                 st.sampled_from([-1, 1]), st.integers(0, 9), st.integers(0, 1)))  # fmt: skip
WISH = st.tuples(st.integers(0, 30), st.sampled_from(["buy", "sell"]), st.integers(1, 6), st.one_of(st.none(), PRICES))
SETTINGS = st.fixed_dictionaries({
    "maker_bps": st.sampled_from([0.0, -0.5, 2.0]), "taker_bps": st.sampled_from([0.0, 5.0]),
    "order_ms": st.sampled_from([0.0, 500.0, 700.0]), "report_ms": st.sampled_from([0.0, 300.0, 500.0]),
    "feed_ms": st.sampled_from([0.0, 400.0]),
})  # fmt: skip


def drawn(rows: list[Any], gap: float = 0.5) -> Tape:
    found: list[Any] = [(*q(0, 10.00, 10.02), {"i": 0}), (*q(0, 10.00, 10.02), {"i": 1})]
    for n, (kind, a, b, volume, i) in enumerate(rows):
        at = (n + 1) * gap
        if kind == "q":
            found.append((*q(at, a / 100, (a + b) / 100, float(volume)), {"i": i}))
        elif kind == "t":
            found.append((*t(at, a / 100, float(volume), b), {"i": i}))
        elif kind == "gap":
            found.append((at, codes.GAP, {"i": i + (volume > 8) * 7}))
        elif kind in ("depth", "snapshot"):
            found.append((at, codes.DEPTH, a / 100, float(volume), b, volume % 3 > 0, kind == "snapshot", {"i": i}))
        elif kind == "funding":
            found.append((at, codes.FUNDING, a / 1000, {"i": i}))
        elif kind == "dividend":
            found.append((at, codes.DIVIDEND, abs(a) / 10, {"i": i}))
        else:
            found.append((at, codes.SPLIT, (2.0, 0.5, 1.5, 1 / 3)[a % 4], {"i": i}))
    return tape(*found, lot=0.1, multiplier=2.0)


@given(st.one_of(st.lists(ROW, max_size=30), st.lists(DEPTH, max_size=30)), st.lists(WISH, max_size=12), SETTINGS)
def test_the_parts_of_the_profit_add_up(rows: list[Any], wishes: list[Any], settings: dict[str, float]) -> None:
    asked: dict[int, list[Wish]] = {}
    for n, side, qty, cents in wishes:
        limit = 0.0 if cents is None else cents / 100
        asked.setdefault(n, []).append(lambda ctx, s=side, v=qty, p=limit: getattr(ctx, s)(float(v), p))
    result = played(drawn(rows), asked, **settings)
    parts_add_up(result)
    m = result.metrics
    total = m["spread_pnl"] + m["inventory_pnl"] + m["carry_pnl"] - m["fees"]
    assert m["net_pnl"] == pytest.approx(total, abs=1e-7)
    assert set(m) == {key for key, *_ in ALL}


def test_the_parts_add_up_when_a_report_comes_with_a_split() -> None:
    still = ("q", 990, 1, 1, 0)
    rows = [still, still, ("split", 0, 0, 0, 0), ("funding", 1, 0, 0, 0), *[still] * 9]
    buys: dict[int, list[Wish]] = {1: [lambda ctx: ctx.buy(1.0)]}
    parts_add_up(played(drawn(rows), buys, maker_bps=0.0, taker_bps=0.0, order_ms=700.0, report_ms=300.0, feed_ms=0.0))


@given(st.lists(ROW, min_size=1, max_size=60), st.lists(st.integers(-1, 34), min_size=1, max_size=40),
       st.sampled_from([VENUE, KERNEL]))  # fmt: skip
def test_moments_are_what_a_plain_search_finds(rows: list[Any], halves: list[int], clock: int) -> None:
    events = drawn([row for row in rows if row[0] != "split"]).events
    asked = questions(START + np.array(halves) * SECOND // 2, np.arange(len(halves)) % 2)
    found = look(events, TICKS, asked, clock=clock, drawn=(0, 1), points=8)
    plain = look(events, TICKS, asked, clock=clock, drawn=(0, 1), points=8, function=run)
    assert found.moments.tobytes() == plain.moments.tobytes()
    for index in (0, 1):
        own = (events["instrument"] == index) & (events["kind"] == codes.QUOTE)
        ts, mid = events["ts"][own], 0.5 * (events["bid"][own] + events["ask"][own])
        for moment in found.moments[found.moments["instrument"] == index]:
            before = np.flatnonzero(ts <= moment["ts"])
            if len(before):
                assert moment["mark"] == mid[before[-1]]
            else:
                assert np.isnan(moment["mark"])
        when, line = found.lines[index]
        np.testing.assert_array_equal(line, plain.lines[index][1])
        assert (np.diff(when) > 0).all()
        assert line.max() == mid.max() and line.min() == mid.min()


@given(st.lists(DEPTH, min_size=1, max_size=60), st.integers(0, 30))
def test_books_are_the_kernels(rows: list[Any], half: int) -> None:
    """The marks at the end are those of the kernel, and the compiled pass is the plain one, levels behind included."""
    made = drawn([row for row in rows if row[0] != "split"])
    drive = prepare(Trader(), made, cash=1e5, compiled=False).drive()
    assert drive.advance() == 0
    prices = np.repeat([9.95, 10.0, 10.02, 10.05], 4)
    asked = questions(np.full(16, START + half * SECOND), np.tile([0, 1], 8), np.tile([1, 1, -1, -1], 4), prices)
    found, plain = (look(made.events, TICKS, asked, clock=KERNEL, function=f) for f in (None, run))
    assert found.last.tolist() == drive.machine.table("markets_at")["mark"].tolist()
    assert found.moments.tobytes() == plain.moments.tobytes()


def test_behind_the_touch_a_book_knows_what_is_ahead() -> None:
    def level(second: float, price: float, volume: float, side: int, last: int, code: int = 0) -> tuple[Any, ...]:
        return second, codes.DEPTH, price, volume, side, last, code

    rows = [level(0, 10.00, 5, 1, 0, 1), level(0, 9.99, 8, 1, 0), level(0, 10.02, 4, -1, 1), t(0.5, 10.02, 1, 1)]
    later = [level(1, 9.99, 6, 1, 1), t(3, 9.99, 9, -1), level(4, 9.99, 0, 1, 1)]
    result = played(tape(*rows, *later), {0: lambda ctx: ctx.buy(2, 9.99)}, order_ms=1500.0)
    done = result.executions
    assert (done.ahead.tolist(), done.rested.tolist(), done.mark.tolist()) == ([6.0], [1.0], [pytest.approx(10.01)])


def test_marks_without_a_quote_are_trades() -> None:
    events = tape(t(0, 10.0, 1, 1), q(1, 10.0, 0.0), t(2, 10.4, 1, 1), q(3, 10.0, 10.2), t(4, 12.0, 1, 1)).events
    asked = questions(START + np.arange(5) * SECOND, 0)
    assert look(events, TICKS[:1], asked).moments["mark"].tolist() == pytest.approx([10.0, 10.0, 10.4, 10.1, 10.1])


@pytest.fixture(scope="module")
def making() -> Result:
    """Market making on the synthetic market, compiled."""
    return backtest(MarketMaking(limit=5.0), market_tape(60_000, seed=3), order_ms=1.0, report_ms=1.0, maker_bps=0.1)


def test_the_synthetic_market(making: Result) -> None:
    assert making.title == "MarketMaking limit=5.0"
    found = parts_add_up(making)
    assert found.spread > 0 > found.inventory
    m = making.metrics
    assert m["fills"] > 30 and m["maker_share"] == 1.0
    assert 0.3 < m["spread_captured"] < 1.5  # half a spread of one or two ticks of a price of 100
    assert m["adverse_selection"] == pytest.approx(m["spread_captured"] - m["markout_5s"], abs=0.05)
    assert 0 < m["queue_seconds"] < 60
    assert m["benchmark_return"] == pytest.approx(making.history.last[0] / making.history.first[0] - 1)
    assert making.trades["pnl"].sum() == pytest.approx(found.total, abs=1e-7)
    lines = making.fills
    assert lines.filter(pl.col("maker")).height == m["fills"]
    # What the venue counted: with nothing taken by us, the volume shown when the order came.
    assert (lines["ahead"].drop_nans() >= 0).all()


def test_the_page_of_a_run_on_ticks(making: Result, tmp_path: Path) -> None:
    text = page(making)
    data = json.loads(text.split('<script id="data" type="application/json">')[1].split("</script>")[0])
    names = [trace["name"] for trace in data["account"]["data"]]
    assert names == ["Net", "Spread", "Inventory", "Funding and dividends", "Fees", "Drawdown"]
    lines = {trace["name"]: trace["y"] for trace in data["account"]["data"]}
    for net, *parts in zip(*(lines[name] for name in names[:5]), strict=True):
        assert net == pytest.approx(sum(parts), abs=1e-5)
    (market,) = data["prices"]
    kinds = {trace["name"]: trace for trace in market["data"]}
    assert {"Mid", "Buy, maker", "Sell, maker", "Inventory"} <= set(kinds)
    marks = len(kinds["Buy, maker"]["x"]) + len(kinds["Sell, maker"]["x"])
    assert marks == making.metrics["fills"] and "rested" in kinds["Buy, maker"]["text"][0]
    assert max(map(abs, kinds["Inventory"]["y"])) <= 5
    (curve,) = data["markouts"]["data"]
    assert curve["x"][0] == "0 s" and curve["y"][0] > curve["y"][-1]
    assert 'class="ticks"' in text and "Mark-outs" in text
    assert {trace.yaxis for trace in notebook_figure(making).data} == {None, "y2", "y3"}
    import matplotlib.image

    pixels = matplotlib.image.imread(making.image(tmp_path / "report.png"))
    for part in (pixels[:350], pixels[400:520], pixels[540:800], pixels[860:]):
        assert part[..., :3].std() > 0.02, "a panel is empty"


def test_a_run_without_fills(tmp_path: Path) -> None:
    result = played(tape(*BOOK), {})
    assert np.isnan(result.metrics["markout_1s"]) and result.metrics["net_pnl"] == 0.0
    assert result.summary() and result.plot().data
    assert result.report(tmp_path / "r.html").exists() and result.image(tmp_path / "r.png").exists()
    assert result.save(tmp_path / "saved").is_dir()
