"""Small worlds for the laws: tapes decoded from bytes (so that hypothesis shrinks them well), settings, and two
strategies that do everything a strategy may do, pseudo-randomly, from a state of their own."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backtest.check import Subject
from backtest.run import Prepared
from engine.config import Risk, VenueModel
from engine.kernel import codes
from engine.kernel.events import Bar, Depth, Event, Quote, Report, Slice, Trade
from engine.kernel.layout import Array
from engine.kernel.machine import Sizes
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen

MINUTE = 60_000_000_000
START = 1_577_836_800_000_000_000  # 2020-01-01
LEVELS = (100.0, 1.0, 25_000.0, 0.002)  # prices from which the instruments start
RATIOS = (2.0, 0.5, 1.5, 7.0, 0.1)


class Fuzz(Strategy):
    """Every verb with every kind of argument, drawn from a generator that is part of the state."""

    seed: int = param(1, ge=0)
    often: int = param(60, ge=0, le=100)
    most: float = param(6.0, gt=0)

    x: int
    ids: Array[int, 8]

    def draw(self, n: int) -> int:
        self.x = (self.x * 1103515245 + 12345) % 2147483648
        return (self.x >> 8) % n

    def act(self, i: int, ctx: Ctx) -> None:
        """One wish about instrument i."""
        verb, price = self.draw(16), ctx.mark(i)
        qty = float(self.draw(int(self.most) + 1)) + 0.25 * self.draw(2)
        near = price * (1.0 + 0.002 * (self.draw(21) - 10))
        other = price * (1.0 + 0.002 * (self.draw(21) - 10))
        tif, mask, priority = 1 + self.draw(5), self.draw(4) if self.draw(3) == 0 else 0, self.draw(5) - 2
        which, life = self.draw(8), self.draw(4) * 45_000
        if verb == 0:
            ctx.target(qty, i, priority, life)
        elif verb == 1:
            ctx.target(-qty, i, priority)
        elif verb == 2:
            ctx.target_weight(0.25 * (self.draw(9) - 4), i, priority)
        elif verb == 3:
            ctx.target(0.0, i)
        elif verb == 4:
            self.ids[which] = ctx.buy(qty, 0.0, 0.0, tif, mask & codes.REDUCE_ONLY, i, priority, life)
        elif verb == 5:
            self.ids[which] = ctx.sell(qty, 0.0, 0.0, tif, mask & codes.REDUCE_ONLY, i, priority, life)
        elif verb == 6:
            self.ids[which] = ctx.buy(qty, near, 0.0, tif, mask, i, priority, life)
        elif verb == 7:
            self.ids[which] = ctx.sell(qty, near, 0.0, tif, mask, i, priority, life)
        elif verb == 8:
            self.ids[which] = ctx.buy(qty, 0.0, near, tif, mask, i, priority, life)
        elif verb == 9:
            self.ids[which] = ctx.sell(qty, 0.0, near, tif, mask, i, priority, life)
        elif verb == 10:
            self.ids[which] = ctx.buy(qty, near, other, tif, mask, i, priority, life)
        elif verb == 11:
            self.ids[which] = ctx.sell(qty, near, other, tif, mask, i, priority, life)
        elif verb == 12:
            ctx.cancel(self.ids[which], priority, life)
        elif verb == 13:
            trail = 0.004 * price * self.draw(3) * self.draw(2)
            limit = near * self.draw(2) if trail == 0.0 else 0.0
            ctx.replace(self.ids[which], qty + 1.0, limit, other * self.draw(2), priority, life, trail)
        elif verb == 14:
            ctx.cancel_all(i, priority)
        elif verb == 15 and which > 3:
            trail, stop = 0.002 * price * (1 + self.draw(4)), other * (self.draw(3) // 2)
            if which > 5:
                self.ids[which] = ctx.buy(qty, 0.0, stop, tif, mask, i, priority, life, trail)
            else:
                self.ids[which] = ctx.sell(qty, 0.0, stop, tif, mask, i, priority, life, trail)
        elif verb == 15 and which == 0:
            ctx.target(math.nan if qty > 3.0 else 1e300, i)

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        if self.x == 0:
            self.x = 1 + self.seed * 7919 + bar.instrument * 104729
        while self.draw(100) < self.often:
            self.act(bar.instrument, ctx)

    def on_depth(self, depth: Depth, ctx: Ctx) -> None:
        if self.x == 0:
            self.x = 1 + self.seed * 7919 + depth.instrument * 104729
        self.x += int(ctx.level_price(1, 2) + ctx.volume_of(-1, 3) + 8.0 * ctx.imbalance_of(4)) + 2 * ctx.crossed
        while self.draw(100) < self.often and not ctx.stale:
            self.act(depth.instrument, ctx)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if self.draw(100) * 4 < self.often:
            self.act(report.instrument, ctx)


class FuzzTicks(Fuzz):
    """The same on quotes and trades; it asks a little less often, and keeps two orders in the book at times."""

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        if self.x == 0:
            self.x = 1 + self.seed * 7919
        if self.draw(400) < self.often:
            self.act(quote.instrument, ctx)
        if self.draw(400) < self.often:
            ctx.quote(quote.bid, quote.ask * self.draw(4), 1.0 + self.draw(3), life_ms=self.draw(3) * 7)

    def on_trade(self, trade: Trade, ctx: Ctx) -> None:
        if self.draw(400) < self.often:
            self.act(trade.instrument, ctx)


class FuzzAll(Fuzz):
    """The same, one instance for all instruments, at the end of a timestamp."""

    universe = True

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        if self.x == 0:
            self.x = 1 + self.seed * 7919

    def on_slice(self, now: Slice, ctx: Ctx) -> None:
        while self.draw(100) < self.often:
            self.act(self.draw(ctx.instruments), ctx)


def decode(data: bytes, instruments: int, bar_ns: int) -> Tape:
    """A tape from bytes, six for each event: what, when, open, close, range, volume."""
    rows = np.zeros(max(1, len(data) // 6), Event.dtype)
    prices, seen, ts = [LEVELS[i % len(LEVELS)] for i in range(instruments)], set[int](), START
    for n, row in enumerate(rows):
        what, when, jump, move, wide, traded = data[6 * n : 6 * n + 6].ljust(6, b"\x05")
        i = what % instruments
        acts = what > 224 and n > 0
        if when % 4 or (i in seen and not acts):  # at one moment: one bar of an instrument, then its actions
            ts, seen = ts + MINUTE * (1 + (when % 16 == 3) * 60 * 30), set()
        row["ts"] = row["recv"] = ts
        row["instrument"] = i
        if what > 240 and acts:
            ratio = RATIOS[what % 5]  # one that leads back where the price has gone far
            ratio = max(ratio, 1 / ratio) if prices[i] > LEVELS[i % 4] else min(ratio, 1 / ratio)
            row["kind"], row["amount"] = codes.SPLIT, ratio
            prices[i] /= row["amount"]
            seen.add(i)
        elif acts:
            row["kind"], row["amount"] = codes.DIVIDEND, prices[i] * 0.01
        else:
            seen.add(i)
            row["kind"] = codes.BAR
            row["open"] = prices[i] * (1.0 + (jump % 11 - 5) * (0.001 if jump < 240 else 0.05))
            row["close"] = row["open"] * (1.0 + (move % 21 - 10) * 0.001)
            row["high"] = max(row["open"], row["close"]) * (1.0 + (wide % 8) * 0.001)
            row["low"] = min(row["open"], row["close"]) * (1.0 - (wide // 8 % 8) * 0.001)
            row["volume"] = 0.0 if traded % 16 == 0 else float(traded % 64)
            prices[i] = float(row["close"])
    info = [
        InstrumentInfo(
            f"I{i}",
            tick=10 ** (math.floor(math.log10(LEVELS[i % 4])) - 4.0),
            lot=(1.0, 0.5, 1.0)[i % 3],
            multiplier=(1.0, 5.0, 1.0)[i % 3],
            margin=(1.0, 0.2, 1.0)[i % 3],
            shortable=i % 3 != 2,
            bar_ns=bar_ns,
        )
        for i in range(instruments)
    ]
    return Tape(frozen(rows), tuple(info), "0" * 16, "small")


def decode_depth(data: bytes, instruments: int) -> Tape:
    """Books and trades from bytes, four for each event: what, when, level, volume. Levels near and far from a price."""
    rows = blank(max(1, len(data) // 4))
    ts, middle, following = START, [1000 + 37 * i for i in range(instruments)], True
    for n, row in enumerate(rows):
        what, when, level, traded = data[4 * n : 4 * n + 4].ljust(4, b"\x05")
        i = what % instruments if following else int(rows["instrument"][n - 1])
        if following and when % 3:
            ts += (when % 16) * 400_000 + (when > 250) * MINUTE * 60 * 30
        row["ts"], row["instrument"] = ts, i
        row["recv"] = max(ts + when % 5 * 100_000, int(rows["recv"][n - 1]) if n else 0)
        if what > 250 and following:
            row["kind"] = codes.GAP
        elif what > 190 and following:
            row["kind"], row["side"], row["traded"] = codes.TRADE, traded % 3 - 1, 1.0 + traded % 7
            row["price"] = (middle[i] + level % 7 - 3) / 100
        else:
            side = 1 if level % 2 else -1
            middle[i] += (level % 11 == 0) * (traded % 5 - 2)
            row["kind"], row["side"], row["traded"] = codes.DEPTH, side, (traded % 6) * 1.5
            row["price"] = (middle[i] - side * (1 + level // 2 % 6 + (level > 250) * 20_000 * -side)) / 100
            new = following and (what < 12 or n < instruments)
            row["code"] = codes.SNAPSHOT if new or (not following and rows["code"][n - 1]) else codes.UPDATE
            following = bool(traded & 64 or n + 1 == len(rows))
            row["last"] = following
    info = tuple(InstrumentInfo(f"D{i}", tick=0.01, lot=(1.0, 0.5)[i % 2]) for i in range(instruments))
    return Tape(frozen(rows), info, "0" * 16, "small books")


def depth_tapes(events: int = 150) -> st.SearchStrategy[Tape]:
    """Up to `events` events of one or two instruments: groups of depth, snapshots, gaps, trades."""
    return st.builds(decode_depth, st.binary(min_size=40, max_size=4 * events), st.integers(1, 2))


def tapes(events: int = 120) -> st.SearchStrategy[Tape]:
    """Up to `events` events of one to three instruments: bars with gaps and equal times, splits, dividends."""
    return st.builds(
        decode,
        st.binary(min_size=12, max_size=6 * events),
        st.integers(1, 3),
        st.sampled_from([0, MINUTE, MINUTE // 2]),
    )


OFF = math.inf
RISKS = st.fixed_dictionaries(
    {
        "leverage": st.sampled_from([1.0, 3.0, OFF]),
        "short": st.booleans(),
        "self_match": st.booleans(),
        "position": st.sampled_from([OFF, 5.0]),
        "open_orders": st.sampled_from([1024, 4]),
        "order_qty": st.sampled_from([OFF, 4.0]),
        "gross": st.sampled_from([OFF, 2_000.0]),
        "net": st.sampled_from([OFF, 800.0]),
        "daily_loss": st.sampled_from([OFF, 20.0]),
        "drawdown": st.sampled_from([OFF, 0.02]),
        "rate": st.sampled_from([OFF, 0.02]),
        "collar": st.sampled_from([OFF, 0.01]),
        "stale_s": st.sampled_from([OFF, 600.0]),
        "breach": st.dictionaries(
            st.sampled_from(["daily_loss", "drawdown", "position", "order_rate"]),
            st.sampled_from(["refuse", "cancel", "flatten", "halt"]),
            max_size=2,
        ),
    }
)
VENUES = st.builds(
    VenueModel,
    slippage_bps=st.sampled_from([0.0, 7.0]),
    participation=st.sampled_from([0.0, 0.1, 1.0]),
    touch=st.booleans(),
    taker_bps=st.sampled_from([None, 5.0]),
    maker_bps=st.sampled_from([None, -1.0]),
    fee_min=st.sampled_from([None, 0.05]),
)
LATE = st.builds(
    VenueModel,
    taker_bps=st.sampled_from([None, 5.0]),
    order_ms=st.sampled_from([0.0, 0.7]),
    report_ms=st.sampled_from([0.0, 0.3]),
    feed_ms=st.sampled_from([0.0, 0.2]),
    queue=st.sampled_from(["back", "front", "power"]),
)
SIZES = Sizes(orders=64, signals=64, outbox=512, refusals=1024)


@st.composite
def subjects(
    draw: Any, events: int = 120, kinds: tuple[type[Strategy], ...] = (Fuzz, FuzzAll), depth: bool = False
) -> Subject:
    """One or two strategies in a small world, of bars or of books, run once."""
    tape, risk = draw((depth_tapes if depth else tapes)(events)), Risk(**draw(RISKS))
    venue = draw(LATE) if depth else draw(VENUES)
    given = [
        draw(st.sampled_from(kinds))(seed=draw(st.integers(0, 999)), often=draw(st.sampled_from([60, 30, 85])))
        for _ in range(draw(st.integers(1, 2)))
    ]
    cash = draw(st.sampled_from([1_000.0, 1_000_000.0]))
    return stage(given, tape, risk, venue, cash)


QUICK: dict[str, dict[str, Any]] = {  # so that they trade soon
    "momentum": {"fast": 2, "slow": 5, "short": True},
    "scalping": {
        "memory_s": 0.2,
        "scale_s": 1.0,
        "entry": 0.5,
        "trend": 0.1,
        "spread": 9.0,
        "hold_s": 0.4,
        "pause_s": 0.0,
    },
}


def stage(
    strategies: list[Strategy], tape: Tape, risk: Risk | None = None, venue: VenueModel | None = None,
    cash: float = 1e5, sizes: Sizes = SIZES,
) -> Subject:  # fmt: skip
    """Strategies on a tape of ours, run once."""
    return Subject(Prepared(strategies, tape, cash, risk or Risk(), venue or VenueModel(), True, sizes, "raise", None))
