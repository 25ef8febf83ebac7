"""A synthetic market: seeded quotes and trades of an invented instrument. It shows no real market and predicts none.

It is there so that a fresh machine can try strategies that quote, and it has the stylised facts that decide whether
they earn their spread:
* trade signs with a long memory: traders split large orders, whose lengths follow a power law (Lillo, Mike and Farmer
  2005, "Theory for long memory in supply and demand": lengths with exponent a give autocorrelations ~ lag^(1 - a));
* prices that diffuse all the same: only the surprise of a trade moves the fair price (Bouchaud, Gefen, Potters and
  Wyart 2004, "Fluctuations and response in financial markets"; Madhavan, Richardson and Roomans 1997), by a concave
  function of its volume (Lillo, Farmer and Mantegna 2003, "Master curve for price-impact function");
* queues that are added to, cancelled from in proportion to their length, and traded away (Huang, Lehalle and
  Rosenbaum 2015, "The queue-reactive model"); the price moves when one is used up, by an order that takes at most what
  the best price shows (Farmer, Gillemot, Lillo, Mike and Sen 2004, "What really causes large price changes?");
* informed traders who take a quote that the fair price has passed (Glosten and Milgrom 1985), quotes that follow late;
* volatility and activity that cluster, on scales from seconds to hours, and heavy tails (Cont 2001, "Empirical
  properties of asset returns"); volumes with a power law (Gopikrishnan, Plerou, Gabaix and Stanley 2000).

Of half a spread, about half a tick, a maker at the touch keeps a seventh on the average of all trades after five
seconds, and nothing on the average of all volume: he earns in calm markets and loses in fast ones and to large orders.

Law 1: the same arguments give the same bytes on one platform; pieces do not matter, and a shorter tape of one
       instrument is the beginning of a longer one.
Law 2: bid < ask, both on the grid of cents; a trade takes the best price of the quote before it, and no more than its
       volume; the quote after it has the same time.
"""

import ctypes
import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.kernel import build, codes
from engine.kernel.events import event_at
from engine.kernel.layout import Array, Record
from engine.kernel.primitives import Pointer
from engine.store import merge
from engine.store.files import cache_dir, progress, text_hash
from engine.store.instruments import InstrumentInfo, to_json
from engine.store.tape import Events, Tape, blank, read_tape, schema_hash, to_ns, write_tape

VERSION = "1"  # of the model: another one makes the tapes anew
EVENTS = 1_000_000
TICKS = 100.0  # in one unit of price
BLOCK = 1 << 16  # steps that one seed draws
CROWD = 7  # large orders at work at a time

# Rates are of one event in general; times in seconds, prices in ticks, volumes in units.
RATE, RATE_OF_VOLATILITY = 18.0, 0.7  # events a second, and how they follow volatility
HEAT, COOLING = 9.0, 0.4  # a trade adds so many events a second, which fade away within so many seconds
SCALES = (15.0, 300.0, 5400.0)  # of volatility
SPREAD_OF_LOG = 0.3  # standard deviation of each of these parts of log volatility
NEWS, JUMPS, JUMP = 0.28, 1 / 600.0, 4.0  # fair price: ticks per root second, jumps a second and their size
IMPACT = 0.33  # ticks of a surprising trade of usual volume
TRADES, INFORMED = 0.09, 0.5
ADDS, CANCELS, PULLS, INSIDE = 0.22, 0.2, 1.5, 0.45
LENGTH_EXPONENT, VOLUME_EXPONENT = 1.5, 1.7
TRADE_VOLUME, ORDER_VOLUME, QUEUE = 12.0, 25.0, 600.0
FORGET = (0.5, 0.1, 0.02, 0.002)  # four memories of signs, and what each says of the next one (least squares)
TELLS = (0.0, 0.4, 0.31, 0.2)
DELAY_NS, JITTER_NS = 400_000, 100_000.0  # of the feed: at least, and on the average beyond


class Draw(Record):
    """The random numbers of one step: exponential, uniform on [0, 1), normal."""

    wait: float
    jitter: float
    length: float
    volume: float
    what: float
    which: float
    sign: float
    gap: float
    news: float
    fast: float
    middle: float
    slow: float


WIDTH = 12
DRAW_BYTES = 8 * WIDTH


class Market(Record):
    """One instrument between two events, and where the loop finds its random numbers and puts its events."""

    draws: int
    rows: int
    row: int
    out: int
    room: int
    count: int
    instrument: int
    ts: int
    recv: int
    bid: int  # ticks
    ask: int
    bid_volume: float
    ask_volume: float
    fair: float  # ticks: what the price would be if all knew what the best informed know
    heat: float
    volatility: float  # relative to its mean
    logs: Array[float, 3]  # type: ignore[type-arg, valid-type]
    memory: Array[float, 4]  # type: ignore[type-arg, valid-type]
    signs: Array[int, CROWD]  # type: ignore[type-arg, valid-type]
    left: Array[int, CROWD]  # type: ignore[type-arg, valid-type]

    def step(self, d: Draw) -> None:
        """Let time pass, then one thing happens: a trade, or an order that comes or goes."""
        self.age(d)
        spread = self.ask - self.bid
        off = self.fair - (self.bid + self.ask) / 2.0
        lean = max(-1.5, min(1.5, off)) / 2.0
        beyond = max(0.0, abs(off) - spread / 2.0)  # how far a quote is stale
        trades = TRADES / spread
        informed = INFORMED * min(beyond, 2.0) / spread
        inside = INSIDE * (spread - 1) / self.volatility
        add_bid = ADDS * (1.0 + lean)
        add_ask = ADDS * (1.0 - lean)
        cancel_bid = CANCELS * min(4.0, self.bid_volume / QUEUE) * (1.0 - lean) + (PULLS * beyond if off < 0.0 else 0.0)
        cancel_ask = CANCELS * min(4.0, self.ask_volume / QUEUE) * (1.0 + lean) + (PULLS * beyond if off > 0.0 else 0.0)
        u = d.what * (trades + informed + inside + add_bid + add_ask + cancel_bid + cancel_ask)
        if u < trades:
            self.trade(self.next_sign(d), d, True)
        elif u < trades + informed:
            self.trade(1 if off > 0.0 else -1, d, False)
        else:
            u -= trades + informed
            if u < inside:
                self.improve(1.0 / (1.0 + math.exp(-3.0 * off)) > d.which, d)
            elif u < inside + add_bid:
                self.bid_volume += volume_of(ORDER_VOLUME, d)
            elif u < inside + add_bid + add_ask:
                self.ask_volume += volume_of(ORDER_VOLUME, d)
            elif u < inside + add_bid + add_ask + cancel_bid:
                self.take_bid(self.cancelled(self.bid_volume, off < 0.0, d), d)
            else:
                self.take_ask(self.cancelled(self.ask_volume, off > 0.0, d), d)
        self.quote()

    def age(self, d: Draw) -> None:
        """Time, volatility and fair price move on."""
        rate = RATE * math.exp(RATE_OF_VOLATILITY * math.log(self.volatility)) + self.heat
        dt = d.wait / rate
        self.heat *= math.exp(-dt / COOLING)
        self.ts += 1000 + int(dt * 1e9)
        self.recv = max(self.recv, self.ts + DELAY_NS + int(d.jitter * JITTER_NS))
        total = 0.0
        for j in range(3):
            z = d.fast if j == 0 else d.middle if j == 1 else d.slow
            part = min(1.0, dt / SCALES[j])
            self.logs[j] += -part * self.logs[j] + SPREAD_OF_LOG * math.sqrt(2.0 * part) * z
            total += self.logs[j]
        self.volatility = math.exp(max(-4.0, min(4.0, total - 3.0 * SPREAD_OF_LOG * SPREAD_OF_LOG)))
        move = NEWS * math.sqrt(dt) * d.news
        if d.gap > 1.0 - dt * JUMPS:
            move += JUMP * d.fast
        self.fair *= 1.0 + move * self.volatility / 10_000.0

    def next_sign(self, d: Draw) -> int:
        """The side of the next piece of one of the large orders at work; a new one takes the place of one done."""
        slot = int(d.which * CROWD)
        if self.left[slot] <= 0:
            self.signs[slot] = 1 if d.sign < 0.5 else -1
            self.left[slot] = int(math.exp(min(12.0, d.length / LENGTH_EXPONENT)))
        self.left[slot] -= 1
        side: int = self.signs[slot]
        return side

    def trade(self, side: int, d: Draw, tells: bool) -> None:
        """An order takes at most what the best price shows; its surprise, if it `tells`, moves the fair price."""
        volume = min(volume_of(TRADE_VOLUME, d), self.ask_volume if side > 0 else self.bid_volume)
        event = event_at(self.out + 64 * self.count)
        event.ts = self.ts
        event.recv = self.recv
        event.kind = codes.TRADE
        event.instrument = self.instrument
        event.price = (self.ask if side > 0 else self.bid) / TICKS
        event.traded = volume
        event.side = side
        self.count += 1
        if tells:
            expected = 0.0
            for j in range(4):
                expected += TELLS[j] * self.memory[j]
                self.memory[j] += FORGET[j] * (side - self.memory[j])
            moved = IMPACT * self.volatility * (side - expected) * math.log1p(volume / TRADE_VOLUME)
            self.fair *= 1.0 + moved / 10_000.0
        self.heat += HEAT
        if side > 0:
            self.take_ask(volume, d)
        else:
            self.take_bid(volume, d)

    def cancelled(self, queue: float, against: bool, d: Draw) -> float:
        """What is cancelled of a queue: all of it only if the fair price has turned against it."""
        volume = volume_of(2.0 * ORDER_VOLUME if against else ORDER_VOLUME, d)
        return min(volume, queue if against else max(queue - 1.0, 0.0))

    def take_bid(self, volume: float, d: Draw) -> None:
        """Less volume at the bid; the next price behind it shows when it is used up."""
        self.bid_volume -= volume
        if self.bid_volume < 1.0:
            self.bid -= 2 if d.gap < 0.1 else 1
            self.bid_volume = queue_of(d)

    def take_ask(self, volume: float, d: Draw) -> None:
        """Less volume at the ask; the next price behind it shows when it is used up."""
        self.ask_volume -= volume
        if self.ask_volume < 1.0:
            self.ask += 2 if d.gap < 0.1 else 1
            self.ask_volume = queue_of(d)

    def improve(self, buys: bool, d: Draw) -> None:
        """A better price inside the spread."""
        if buys:
            self.bid += 1
            self.bid_volume = volume_of(2.0 * ORDER_VOLUME, d)
        else:
            self.ask -= 1
            self.ask_volume = volume_of(2.0 * ORDER_VOLUME, d)

    def quote(self) -> None:
        """The best prices as they are now."""
        event = event_at(self.out + 64 * self.count)
        event.ts = self.ts
        event.recv = self.recv
        event.kind = codes.QUOTE
        event.instrument = self.instrument
        event.bid = self.bid / TICKS
        event.ask = self.ask / TICKS
        event.bid_volume = self.bid_volume
        event.ask_volume = self.ask_volume
        self.count += 1


def volume_of(least: float, d: Draw) -> float:
    """A whole volume with a power-law tail."""
    return float(math.ceil(least * math.exp(min(8.0, d.volume / VOLUME_EXPONENT))))


def queue_of(d: Draw) -> float:
    """The volume at a price that had stood behind the best one."""
    return float(math.ceil(QUEUE / 2.0 * math.exp(0.6 * d.slow)))


market_at = Pointer(Market)
draw_at = Pointer(Draw)


def run(address: int) -> None:
    """Steps until the random numbers are used up or there is no room for two more events."""
    market = market_at(address)
    while market.row < market.rows and market.count + 2 <= market.room:
        market.step(draw_at(market.draws + DRAW_BYTES * market.row))
        market.row += 1


@cache
def _compiled() -> Any:
    image = build.loop("synthetic market", run, Market)
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(image.addresses["run"])


def market_events(events: int, seed: int = 0, instrument: int = 0, start_ns: int = 0, *, compiled: bool = True
                  ) -> Iterator[Events]:  # fmt: skip
    """The first `events` events of one instrument, in pieces."""
    market = Market.new()
    market.instrument, market.ts, market.fair, market.volatility = instrument, start_ns, 100.0 * TICKS, 1.0
    market.bid, market.ask = int(100 * TICKS), int(100 * TICKS) + 1
    market.bid_volume = market.ask_volume = QUEUE
    step, done, block = _compiled() if compiled else run, 0, 0
    while done < events:
        rng = np.random.Generator(np.random.PCG64([seed, instrument, block]))
        draws = np.empty((BLOCK, WIDTH))
        draws[:, :4] = rng.standard_exponential((BLOCK, 4))
        draws[:, 4:8] = rng.random((BLOCK, 4))
        draws[:, 8:] = rng.standard_normal((BLOCK, 4))
        room = min(2 * BLOCK, events - done + 1)  # a trade and its quote may be one too many
        out = blank(room + 1)
        market.draws, market.rows, market.row = draws.ctypes.data, BLOCK, 0
        market.out, market.room, market.count = out.ctypes.data, room + 1, 0
        step(market._address)
        if market.row < BLOCK and market.count < events - done:
            raise DataError(f"synthetic market: stopped at step {market.row} of block {block}; report the seed {seed}.")
        piece = out[: min(market.count, events - done)]
        done, block = done + len(piece), block + 1
        yield piece


def market_tape(events: int = EVENTS, seed: int = 0, start: str = "2024-01-02", instruments: int = 1) -> Tape:
    """A synthetic market as a tape: `events` quotes and trades in all, of instruments SYNTH or SYNTH0, SYNTH1, …

    Made once, streaming, then mapped from the cache. Times are UTC without nights; `recv` is `ts` and about half a
    millisecond. Raises ConfigError for arguments out of range, DataError for a full disk.
    """
    if instruments < 1 or events < instruments:
        raise ConfigError(f"synthetic market: events={events}, instruments={instruments}; one event each at least.")
    names = ["SYNTH"] if instruments == 1 else [f"SYNTH{i}" for i in range(instruments)]
    infos = tuple(InstrumentInfo(name, tick=1 / TICKS) for name in names)
    about = f"synthetic market of {events:,} events, seed {seed}"
    digest = text_hash("market", VERSION, schema_hash(), str(events), str(seed), start, to_json(infos))
    path = cache_dir("tapes") / f"{digest}.tape"
    if path.is_file():
        try:
            return read_tape(path)
        except DataError:  # A cached tape that was cut or is of an older layout: make it again below.
            path.unlink(missing_ok=True)
    shares = [events // instruments + (i < events % instruments) for i in range(instruments)]
    first = to_ns(start, "start") or 0
    sources = [market_events(share, seed, i, first) for i, share in enumerate(shares)]
    with tempfile.TemporaryDirectory(prefix=".runs-", dir=path.parent) as scratch, \
            write_tape(path, infos, digest, about) as writer, progress(events, about, "events") as bar:  # fmt: skip
        for piece in merge.spill(sources, Path(scratch)):
            writer.append(piece)
            bar.update(len(piece))
    return read_tape(path)
