"""Our side of each case, through the public interface only: `prepare` once, then `run` as often as one likes.

Preparing is what the peers do outside their timed part too: read the data, compile it into a tape.
"""

import math
from importlib.metadata import version
from typing import Any

import numpy as np

from bench import cases, data, measure
from engine.kernel import codes
from engine.kernel.events import Bar, Depth, Quote
from engine.kernel.indicators import Mean
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


class Crossing(Strategy):
    """Long from a cross of the fast average above the slow one to the next cross below, as the peers have it.

    An average that is above from the start is no cross, so this differs from Momentum until the first one.
    """

    fast: int = param(cases.FAST, ge=1)
    slow: int = param(cases.SLOW, ge=2)
    qty: float = param(cases.QTY, gt=0)

    fast_mean: Mean[64]  # windows no longer than the rule needs: the states of many instruments stay near
    slow_mean: Mean[64]
    known: bool
    above: bool

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        """Act on the bar whose comparison differs from that of the bar before."""
        fast = self.fast_mean.update(bar.close, self.fast)
        slow = self.slow_mean.update(bar.close, self.slow)
        if self.slow_mean.ready:
            above = fast > slow
            if self.known and above != self.above:
                ctx.target(self.qty if above else 0.0)
            self.above = above
            self.known = True


class Swept(Strategy):
    """The same rule with windows for the longest average of a sweep."""

    fast: int = param(cases.FAST, ge=1)
    slow: int = param(cases.SLOW, ge=2)
    qty: float = param(cases.QTY, gt=0)

    fast_mean: Mean[cases.SWEEP_SLOWEST]
    slow_mean: Mean[cases.SWEEP_SLOWEST]
    known: bool
    above: bool

    on_bar = Crossing.on_bar


def sweep(lanes: int) -> measure.Run:
    """Every lane's figures, on all cores; the tape is made outside the timed part."""
    import polars as pl

    from backtest import prepare
    from backtest.lanes import evaluate

    frame = pl.read_parquet(data.SINGLE).head(cases.SWEEP_BARS)
    prepared = prepare(Swept(), frame, cash=cases.CASH, taker_bps=cases.FEE * 1e4)
    fast, slow = (list(column) for column in zip(*cases.grid(lanes), strict=True))

    def run() -> dict[str, Any]:
        found = evaluate(prepared, {"strategy.fast": fast, "strategy.slow": slow}).figures
        return {"final_equity": found["end_equity"].sum(), "trades": found["trades"].sum(),
                "sharpe": found["sharpe"].mean(), "drawdown": found["max_drawdown"].mean()}  # fmt: skip

    return run


class Maker(Strategy):
    """Quotes on both sides of the middle, leaning against the inventory, renewed once in `every_ns`."""

    every_ns: int = param(0, ge=0)
    half: float = param(cases.HALF, ge=0)
    skew: float = param(cases.SKEW, ge=0)
    next: int

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        """Where the peers have it: half a spread around the fair value, never inside the touch."""
        if ctx.now < self.next:
            return
        if self.every_ns > 0:
            self.next = (ctx.now // self.every_ns + 1) * self.every_ns
        held = ctx.position
        fair = 0.5 * (quote.bid + quote.ask) - self.skew * cases.TICK * held
        bid, ask = min(quote.bid, fair - self.half * cases.TICK), max(quote.ask, fair + self.half * cases.TICK)
        ctx.quote(bid if held < cases.MOST else 0.0, ask if held > -cases.MOST else 0.0, cases.QTY)


def made(every_ns: int) -> Any:
    """The maker on quotes and trades, prepared; the tape is made outside the timed part, as the peers' rows are."""
    from backtest import prepare
    from engine.config import Risk, VenueModel
    from engine.store.instruments import InstrumentInfo
    from engine.store.tape import Tape, blank, frozen

    columns = data.load(data.QUOTES)
    events, trade = blank(cases.TICKS), columns["kind"] == 1
    events["ts"], events["recv"] = columns["ts"], columns["ts"] + cases.FEED_NS
    events["kind"] = np.where(trade, codes.TRADE, codes.QUOTE)
    at = np.where(columns["side"] > 0, columns["ask"], columns["bid"]) / 100.0
    events["bid"] = np.where(trade, at, columns["bid"] / 100.0)  # a trade has its price there,
    events["ask"] = np.where(trade, columns["volume"], columns["ask"] / 100.0)  # its volume there,
    words = events.view(np.int64).reshape(-1, 8)
    words[:, 5] = np.where(trade, columns["side"], columns["bid_volume"].view("i8"))  # and its side there
    words[:, 6] = np.where(trade, 0, columns["ask_volume"].view("i8"))
    tape = Tape(frozen(events), (InstrumentInfo("X", tick=cases.TICK),), "0" * 64, "ticks-mm")
    late = VenueModel(order_ms=cases.LATENCY_NS / 1e6, report_ms=cases.LATENCY_NS / 1e6,
                      maker_bps=cases.MAKER * 1e4, taker_bps=cases.TAKER * 1e4)  # fmt: skip
    return prepare(Maker(every_ns=every_ns), tape, cash=cases.CASH, risk=Risk(self_match=False), venue=late)


def ticks(every_ns: int) -> measure.Run:
    """One maker."""
    prepared = made(every_ns)

    def run() -> dict[str, Any]:
        raw = prepared.run().raw
        fills = (raw["reports"]["code"] == codes.FILL).sum()
        return {"final_equity": raw["curve"]["equity"][-1], "orders": len(raw["orders"]), "fills": fills}

    return run


def makers() -> measure.Run:
    """A maker for each half spread and skew, over the one tape, on all cores."""
    from backtest.lanes import evaluate

    prepared = made(cases.SECOND_NS)
    half, skew = (list(column) for column in zip(*cases.MADE, strict=True))

    def run() -> dict[str, Any]:
        found = evaluate(prepared, {"strategy.half": half, "strategy.skew": skew})
        return {"final_equity": found.figures["end_equity"].sum(), "fills": found.figures["fills"].sum(),
                "failed": (found.status != 0).sum(), "alone": found.alone}  # fmt: skip

    return run


class DepthMaker(Strategy):
    """The same on a book, once it is whole."""

    every_ns: int = param(cases.SECOND_NS, ge=0)
    next: int

    def on_depth(self, depth: Depth, ctx: Ctx) -> None:
        """As `Maker`, with the prices and quantities of the recorded instrument."""
        if ctx.now < self.next or not 0.0 < ctx.bid < ctx.ask:
            return
        self.next = (ctx.now // self.every_ns + 1) * self.every_ns
        held = ctx.position / cases.DEPTH_QTY
        best_bid, best_ask = math.floor(ctx.bid * 10.0 + 0.5), math.floor(ctx.ask * 10.0 + 0.5)
        fair = 0.5 * (best_bid + best_ask) - cases.SKEW * held
        bid = min(best_bid, math.floor(fair - cases.HALF)) / 10.0
        ask = max(best_ask, math.ceil(fair + cases.HALF)) / 10.0
        ctx.quote(bid if held < cases.MOST else 0.0, ask if held > -cases.MOST else 0.0, cases.DEPTH_QTY)


def depth() -> measure.Run:
    """The maker on a recorded book; the tape is made outside the timed part."""
    from backtest import prepare
    from engine.config import Risk, VenueModel
    from engine.store.instruments import InstrumentInfo
    from engine.store.tape import Tape, blank, frozen

    columns = data.looped()
    events, trade = blank(columns["ts"].size), columns["kind"] == 1
    events["ts"], events["recv"] = columns["ts"], columns["ts"] + cases.FEED_NS
    events["kind"] = np.where(trade, codes.TRADE, codes.DEPTH)
    events["code"] = np.where(columns["kind"] == 2, codes.SNAPSHOT, codes.UPDATE)
    events["price"], events["traded"] = columns["price"] / 10.0, columns["volume"]
    events["side"], events["last"] = columns["side"], columns["last"]
    info = InstrumentInfo("X", tick=cases.DEPTH_TICK, lot=cases.DEPTH_LOT)
    tape = Tape(frozen(events), (info,), "0" * 64, "depth")
    late = VenueModel(order_ms=cases.LATENCY_NS / 1e6, report_ms=cases.LATENCY_NS / 1e6,
                      maker_bps=cases.MAKER * 1e4, taker_bps=cases.TAKER * 1e4)  # fmt: skip
    prepared = prepare(DepthMaker(), tape, cash=cases.CASH, risk=Risk(self_match=False), venue=late)

    def run() -> dict[str, Any]:
        raw = prepared.run().raw
        fills = (raw["reports"]["code"] == codes.FILL).sum()
        return {"final_equity": raw["curve"]["equity"][-1], "orders": len(raw["orders"]), "fills": fills}

    return run


def run_case(strategy: Any, path: Any, **options: Any) -> measure.Run:
    """A closure that runs the strategy on the prepared data and says how it ended; `options` as in open_tape."""
    from backtest import prepare

    prepared = prepare(strategy, path, cash=cases.CASH, taker_bps=cases.FEE * 1e4, open_options=options)

    def run() -> dict[str, Any]:
        raw = prepared.run().raw
        bought = (raw["reports"]["code"] == codes.FILL) & (raw["reports"]["qty"] > 0)
        return {"final_equity": raw["curve"]["equity"][-1], "orders": len(raw["orders"]), "trades": bought.sum()}

    return run


def single() -> measure.Run:
    """One instrument, one average crossing the other."""
    return run_case(Crossing(), data.SINGLE)


def portfolio() -> measure.Run:
    """The same rule on each of 500 instruments, in one account."""
    return run_case(Crossing(), data.PANEL)


def ranked() -> measure.Run:
    """One strategy over the universe: the best fifty by 12-1 momentum, monthly."""
    from strategies import CrossMomentum

    chosen = CrossMomentum(long=cases.LONG_DAYS, skip=cases.SKIP_DAYS, held=cases.HELD, gross=cases.INVESTED)
    return run_case(chosen, data.PANEL, lot=1e-6)


OURS = {"bars-sweep": lambda: sweep(1_000), "bars-sweep-10k": lambda: sweep(10_000), "bars-single": single,
        "bars-portfolio": portfolio, "bars-momentum": ranked, "ticks-mm": lambda: ticks(cases.SECOND_NS),
        "ticks-mm-every": lambda: ticks(0), "ticks-sweep": makers, "depth": depth}  # fmt: skip

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(OURS[said.case](), cases.CASES[said.case].bars, f"tandem {version('tandem')}", said.warm)
