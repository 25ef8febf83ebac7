"""Bars from trades or quotes, event by event: the one fold that ingestion, research and live share.

Law 1: the state is a record of fixed size; zeroed memory plus the rule (`kind` to `shown`) is the initial state.
Law 2: a bar depends on the events of its instrument alone, however they were cut into batches.
Law 3: a closed bar never changes. What comes late goes into the bar that is open, and is counted (`late`).
Law 4: volume is conserved: the closed bars and the open one together hold what was folded in.

When a bar closes:
* TIME: at the end of its interval [start, end) on the UTC grid (multiples of `interval`, moved by `offset`). It is
  handed out when the first event at or after `end` arrives, or when `advance(ts)` says that the time has come;
  either way it is the same bar, and its `ts` is `end`. An interval in which nothing traded gives no bar (`empty` =
  SKIP), or a flat one at the last price with volume 0 (FLAT); before the first price there is never a bar.
* TICK: with the event number `bar_size`. VOLUME: when so many units have traded. DOLLAR: when price * volume has come
  to as much.

A trade that is too large for a VOLUME or DOLLAR bar is split: the bar takes what it lacks, the next one the rest.
Every bar then holds the same amount, which is what such a clock is for (the buckets of Easley, Lopez de Prado and
O'Hara 2012, "Flow Toxicity and Liquidity in a High-frequency World", are cut so), and the bars do not depend on
whether a venue prints one fill of 10 or two of 5. A split trade counts as one in `trades` of each bar it is part of.
What is missing from, or too much for, a bar by less than 1e-9 of its size is rounding, and splits nothing.
"""

import math

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.layout import Record

TIME, TICK, VOLUME, DOLLAR = 1, 2, 3, 4
SKIP, FLAT = 0, 1
IDLE, SAMPLE, MOMENT = 0, 1, 2  # what is pending: nothing, a price with its volume, or only the time
ROUNDING = 1e-9  # of a size


class Folded(Record):
    """A closed bar. `opened`: start of its interval, or time of its first trade; `value`: sum of price * volume;
    `bought`: volume of trades whose aggressor bought; `trades`: how many samples; times in ns UTC.

    `recv` is the earliest time at which all of it had been received, and not before `ts`.
    """

    ts: int
    recv: int
    opened: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    value: float
    bought: float
    trades: int
    instrument: int


class Fold(Record):
    """One instrument's fold. Give it an event, then take the bars that it closed: none, one or several.

    >>> fold = Fold.new()
    >>> fold.kind, fold.bar_size = VOLUME, 10.0
    >>> for price, volume in ((100.0, 6.0), (101.0, 24.0)):
    ...     fold.add(price, volume, 1, 0, 0)
    ...     while fold.take():
    ...         print(fold.bar.open, fold.bar.close, fold.bar.volume)
    100.0 101.0 10.0
    101.0 101.0 10.0
    101.0 101.0 10.0
    """

    # The rule.
    kind: int
    source: int  # codes.TRADE or codes.QUOTE: what `add_event` folds in
    interval: int  # ns
    offset: int  # ns
    empty: int
    bar_size: float  # samples, units or currency
    shown: int  # 1: a quote has the volume shown on both sides, 0: none
    # The bar that `take` closed last, and the one that is open.
    bar: Folded
    opened: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    value: float
    bought: float
    trades: int
    filled: float  # of `bar_size`
    # The sample under way.
    pending: int
    price: float
    rest: float
    side: int
    ts: int
    arrived: int
    # What has been seen.
    now: int
    recv: int  # the latest receive time of a sample in a bar
    known: int  # 1 once there was a price
    late: int
    ignored: int

    def add(self, price: float, volume: float, side: int, ts: int, recv: int) -> None:
        """Begin a trade: price, volume in units, aggressor's side, times in ns. Take its bars before the next one.

        A price or volume that is not finite, or a volume below 0, is counted in `ignored` and only tells the time.
        """
        if self.pending != IDLE:
            raise ValueError("take the bars of the last event before the next one: while fold.take(): ...")
        if not (math.isfinite(price) and math.isfinite(volume) and volume >= 0.0):
            self.ignored += 1
            self.advance(ts)
            return
        self.price = price
        self.rest = volume
        self.side = side
        self.ts = ts
        self.now = max(self.now, ts) if self.known != 0 else ts
        self.arrived = recv
        self.pending = SAMPLE

    def add_quote(self, bid: float, ask: float, bid_volume: float, ask_volume: float, ts: int, recv: int) -> None:
        """Begin a quote: a sample at the middle. One that lacks a side (not finite, or price and volume 0) has no
        middle and only tells the time."""
        there = math.isfinite(bid) and math.isfinite(ask) and (bid != 0.0 or bid_volume > 0.0)
        if there and (ask != 0.0 or ask_volume > 0.0):
            self.add((bid + ask) / 2.0, bid_volume + ask_volume if self.shown != 0 else 0.0, 0, ts, recv)
        else:
            self.advance(ts)

    def add_event(self, event: Event) -> None:
        """Begin an event of the tape; kinds other than `source` are no samples and do not even tell the time."""
        if event.kind == self.source:
            if event.kind == codes.TRADE:
                self.add(event.price, event.traded, event.side, event.ts, event.recv)
            else:
                self.add_quote(event.bid, event.ask, event.bid_volume, event.ask_volume, event.ts, event.recv)

    def advance(self, ts: int) -> None:
        """The time has come to `ts` without a sample; `take` gives the bars that this closes."""
        if self.pending != IDLE:
            raise ValueError("take the bars of the last event before the next one: while fold.take(): ...")
        if self.known != 0:
            self.now = max(self.now, ts)
            self.pending = MOMENT

    def take(self) -> bool:
        """Whether the event under way closes one more bar, which is then in `bar`; False once it is all folded in."""
        if self.pending == IDLE:
            return False
        if self.kind == TIME:
            return self.take_by_time()
        if self.pending == MOMENT:
            self.pending = IDLE
            return False
        if self.kind == TICK:
            self.pending = IDLE
            self.absorb(self.rest, self.ts)
            if self.trades < self.bar_size:
                return False
            self.finish(self.now)
            return True
        return self.take_by_size()

    def take_by_time(self) -> bool:
        """Close the interval that is over, else fold the sample in."""
        if self.known != 0 and self.now >= self.end:
            if self.trades != 0 or self.empty == FLAT:
                if self.trades == 0:
                    self.begin(self.close, self.end - self.interval)
                self.finish(self.end)
                self.end += self.interval
                return True
            self.end = self.grid(self.now) + self.interval
        if self.pending == SAMPLE:
            if self.known == 0:
                self.end = self.grid(self.now) + self.interval
            elif self.ts < self.end - self.interval:
                self.late += 1
            self.absorb(self.rest, self.end - self.interval)
        self.pending = IDLE
        return False

    def take_by_size(self) -> bool:
        """Fold in as much of the sample as the bar takes."""
        weight = abs(self.price) if self.kind == DOLLAR else 1.0
        amount = self.rest * weight
        lack = self.bar_size - self.filled
        slack = self.bar_size * ROUNDING
        if amount > lack + slack:
            part = lack / weight
            self.absorb(part, self.ts)
            self.rest -= part
        else:
            self.pending = IDLE
            self.absorb(self.rest, self.ts)
            if amount < lack - slack:
                self.filled += amount
                return False
        self.finish(self.now)
        return True

    def grid(self, ts: int) -> int:
        """The start of the interval that holds a time."""
        return (ts - self.offset) // self.interval * self.interval + self.offset

    def begin(self, price: float, opened: int) -> None:
        """An empty bar at a price."""
        self.opened = opened
        self.open = price
        self.high = price
        self.low = price
        self.close = price
        self.volume = 0.0
        self.value = 0.0
        self.bought = 0.0

    def absorb(self, volume: float, opened: int) -> None:
        """This much of the sample into the bar that is open."""
        price = self.price
        if self.trades == 0:
            self.begin(price, opened)
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        self.close = price
        self.volume += volume
        self.value += price * volume
        if self.side > 0:
            self.bought += volume
        self.trades += 1
        self.recv = max(self.recv, self.arrived)
        self.known = 1

    def finish(self, ts: int) -> None:
        """The open bar becomes `bar`, closed at `ts`."""
        bar = self.bar
        bar.ts = ts
        bar.recv = max(ts, self.recv)
        bar.opened = self.opened
        bar.open = self.open
        bar.high = self.high
        bar.low = self.low
        bar.close = self.close
        bar.volume = self.volume
        bar.value = self.value
        bar.bought = self.bought
        bar.trades = self.trades
        self.trades = 0
        self.filled = 0.0
