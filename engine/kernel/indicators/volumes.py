"""Volume-weighted average prices, and the flow of orders at the best quote."""

import math

from engine.kernel.indicators.base import Floats, Indicator, Windowed, check


class VWAP(Indicator):
    """Volume-weighted average price since the start or the last `reset()`: sum(price * volume) / sum(volume).

    The sums are compensated (Kahan, CACM 8(1), 1965), so a session may be of any length. nan while the volume is 0.

    >>> VWAP.scan([10.0, 20.0], [1.0, 3.0]).tolist()
    [10.0, 17.5]
    """

    n: int
    paid: float
    paid_lost: float  # what rounding has kept from the sums so far
    volume: float
    volume_lost: float

    def reset(self) -> None:
        """Begin a new session."""
        self.n = 0
        self.paid = 0.0
        self.paid_lost = 0.0
        self.volume = 0.0
        self.volume_lost = 0.0

    def update(self, price: float, volume: float) -> float:
        """Take a trade or bar, volume >= 0; the average, or nan."""
        more = price * volume
        if not (math.isfinite(more) and math.isfinite(volume)):
            return self.latest
        more -= self.paid_lost
        total = self.paid + more
        self.paid_lost = (total - self.paid) - more
        self.paid = total
        more = volume - self.volume_lost
        total = self.volume + more
        self.volume_lost = (total - self.volume) - more
        self.volume = total
        self.n += 1
        return self.latest

    @property
    def ready(self) -> bool:
        """Whether there was any volume."""
        return self.volume > 0.0

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.paid / self.volume if self.ready else math.nan


class SessionVWAP(Indicator):
    """A VWAP that begins anew whenever `session` changes: a day number, say, `bar.ts // 86_400_000_000_000`.

    >>> SessionVWAP.scan([10.0, 20.0, 30.0], [1.0, 3.0, 1.0], [1, 1, 2]).tolist()
    [10.0, 17.5, 30.0]
    """

    session: float
    average: VWAP

    def update(self, price: float, volume: float, session: float) -> float:
        """Take a trade or bar, volume >= 0; the average of its session, or nan."""
        if session != self.session:
            self.average.reset()
            self.session = session
        return self.average.update(price, volume)

    @property
    def ready(self) -> bool:
        """Whether there was any volume in this session."""
        return self.average.ready

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.average.latest


class RollingVWAP(Windowed):
    """Volume-weighted average price of the last `length` trades or bars; nan before there are as many, and at volume 0.

    Sums of tails and heads of blocks: nothing is subtracted, so no trace of a huge volume stays behind.

    >>> RollingVWAP.scan([10.0, 20.0, 40.0], [1.0, 3.0, 1.0], 2).tolist()
    [nan, 17.5, 25.0]
    """

    paid_head: float
    volume_head: float
    level: float
    paid: Floats
    volumes: Floats

    def restart(self, length: int) -> None:
        """Forget all samples."""
        check(length, len(self.paid))
        self.length = length
        self.n = 0
        self.cursor = 0

    def update(self, price: float, volume: float, length: int) -> float:
        """Take a trade or bar, volume >= 0; the average, or nan."""
        more = price * volume
        if not (math.isfinite(more) and math.isfinite(volume)):
            return self.latest
        if length != self.length or length < 1:
            self.restart(length)
        slot = self.cursor
        paid = more if slot == 0 else self.paid_head + more
        total = volume if slot == 0 else self.volume_head + volume
        self.paid_head = paid
        self.volume_head = total
        self.paid[slot] = more
        self.volumes[slot] = volume
        self.n += 1
        slot += 1
        if slot == length:
            slot = 0
            add_tails(self.paid, length)
            add_tails(self.volumes, length)
        elif self.n > length:
            paid += self.paid[slot]
            total += self.volumes[slot]
        self.cursor = slot
        self.level = paid / total if total > 0.0 else math.nan
        return self.latest

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.level if self.ready else math.nan


class OrderFlow(Indicator):
    """What came to the bid and went from the ask between two quotes, in units: above 0 is pressure upwards.

    A better bid counts with its volume, a worse one takes its old volume away, at the same price the difference counts;
    of the ask the same is taken off, with prices turned round. nan for the first quote. Source: e_n of Cont, Kukanov &
    Stoikov 2014, "The price impact of order book events"; its sum is their order flow imbalance.

    >>> bid, ask = [10.0, 10.0, 10.1, 10.1], [10.2, 10.2, 10.2, 10.3]
    >>> OrderFlow.scan(bid, ask, [5.0, 7.0, 4.0, 4.0], [6.0, 6.0, 6.0, 9.0]).tolist()
    [nan, 2.0, 4.0, 6.0]
    """

    n: int
    bid: float
    ask: float
    bid_volume: float
    ask_volume: float
    flow: float

    def update(self, bid: float, ask: float, bid_volume: float, ask_volume: float) -> float:
        """Take a quote: both prices, both volumes; the flow since the one before, or nan."""
        if not (math.isfinite(bid + ask) and math.isfinite(bid_volume + ask_volume)):
            return self.latest
        flow = 0.0
        if bid >= self.bid:
            flow += bid_volume
        if bid <= self.bid:
            flow -= self.bid_volume
        if ask <= self.ask:
            flow -= ask_volume
        if ask >= self.ask:
            flow += self.ask_volume
        self.bid = bid
        self.ask = ask
        self.bid_volume = bid_volume
        self.ask_volume = ask_volume
        self.flow = flow
        self.n += 1
        return self.latest

    @property
    def ready(self) -> bool:
        """Whether there were two quotes."""
        return self.n > 1

    @property
    def latest(self) -> float:
        """What the last update returned."""
        return self.flow if self.ready else math.nan


def add_tails(window: Floats, length: int) -> None:
    """Each slot becomes the sum from there to the end of the block."""
    for slot in range(length - 2, -1, -1):
        window[slot] += window[slot + 1]
