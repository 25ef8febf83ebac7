"""What is measured: the cases, their rules, who takes part, and what a right answer is.

Every case is a fixed rule on fixed data (`bench.data`), so that engines can be compared at all:
one unit per order in the average crossings, so that equity never runs out and final equities agree.
This module imports nothing, because every peer's environment reads it.
"""

from dataclasses import dataclass, field

FAST, SLOW = 10, 50  # bars of the two averages
FEE = 0.0005  # 5 bps of the value of each fill
CASH = 1_000_000.0
QTY = 1.0
BARS = 1_000_000
INSTRUMENTS, DAYS = 500, 2_520
LONG_DAYS, SKIP_DAYS, HELD = 252, 21, 50  # 12-1 momentum: return from 252 to 21 days ago, the best 50
TICKS = 5_000_000
TICK = 0.01
FEED_NS, LATENCY_NS = 500_000, 1_000_000  # of market data; of orders and of reports, each way
MOST, SKEW, HALF = 20.0, 0.25, 0.5  # largest inventory, ticks of skew for one unit of it, half spread in ticks
MAKER, TAKER = -0.00001, 0.0002  # fees, shares of the value
SECOND_NS = 1_000_000_000
DEPTH_ROWS, DEPTH_TICK, DEPTH_LOT, DEPTH_QTY = 10_000_000, 0.1, 0.001, 0.01  # a recorded book and its trades, looped
SWEEP_BARS, SWEEP_SLOWEST = 100_000, 256  # of a sweep; longest average of its grids
HALVES, SKEWS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5), (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
MADE = [(half, skew) for half in HALVES for skew in SKEWS]  # of ticks-sweep, in ticks
INVESTED = 0.95  # of the equity, valued at the close that decides; the rest is room for gaps, so no buy is cut


def grid(lanes: int) -> list[tuple[int, int]]:
    """(fast, slow) of each lane of a sweep of 1,000 or 10,000."""
    fasts, slows = (range(5, 30), range(30, 230, 5)) if lanes == 1_000 else (range(2, 52), range(52, 252))
    return [(fast, slow) for fast in fasts for slow in slows]


@dataclass(frozen=True)
class Peer:
    """One engine in one environment; `n` is a reduced size for those too slow for the whole case."""

    name: str
    environment: str
    includes: str
    module: str = ""
    engine: str = ""
    n: int = 0

    @property
    def script(self) -> str:
        """The module that runs it, with the interpreter of its environment."""
        return f"bench.peers.{self.module or self.environment}"


@dataclass(frozen=True)
class Case:
    """`bounds`: what a right outcome of ours lies within, by key of the outcome."""

    name: str
    title: str
    bars: int
    ours: str
    limit: str
    peers: tuple[Peer, ...]
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    processes: int = 1  # that a peer takes, one for each lane; one of them is run


TICKS_FULL = "orders, fills, equity curve, risk checks, account, queue positions, order and report latency"
HFT = "state of the account, queue positions, order and report latency"
FULL = "orders, fills, equity curve, risk checks, account"
VBT = "final value and trade count (curve and records on demand)"
RAPTOR = "fills, equity curve, 48 metrics"

SWEPT = "final value, Sharpe, Sortino, drawdown, round trips, fees, exposure of each lane"


SWEEPER = Peer("raptorbt", "raptorbt", RAPTOR)
SWEEPERS = (
    SWEEPER,
    Peer("vectorbt-rust", "vectorbt", VBT, engine="auto"),
    Peer("vectorbt-metrics", "vectorbt", VBT + ", Sharpe, drawdown", engine="metrics"),
)


def sweep_case(name: str, lanes: int, bounds: dict[str, tuple[float, float]], peers: tuple[Peer, ...]) -> Case:
    """A sweep of the average crossing; the sums of its outcome tell whether an engine ran the same lanes."""
    return Case(
        name,
        f"{lanes:,} lanes x {SWEEP_BARS:,} one-minute bars, SMA crosses, long-flat, 1 unit, next open, 5 bps",
        lanes * SWEEP_BARS,
        ours=FULL.replace("equity curve", SWEPT),
        limit="final value, trades, return moments, drawdown of each lane",
        peers=peers,
        bounds=bounds,
    )


MAKERS = (
    Peer("hftbacktest-roi", "hftbacktest", HFT, engine="roi"),
    Peer("hftbacktest-hashmap", "hftbacktest", HFT, engine="hashmap"),
)

CASES = {
    case.name: case
    for case in (
        Case(
            "bars-single",
            f"{BARS:,} one-minute bars, SMA {FAST}/{SLOW}, long-flat, 1 unit, next open, 5 bps",
            BARS,
            ours=FULL,
            limit="equity curve, fills, return moments, drawdown",
            peers=(
                Peer("vectorbt-rust", "vectorbt", VBT, engine="auto"),
                Peer("vectorbt", "vectorbt", VBT, engine="numba"),
                Peer("raptorbt", "raptorbt", RAPTOR),
                Peer("backtesting.py", "backtesting", "equity curve, trades, its metrics"),
                Peer("backtrader", "backtrader", "final value, orders", n=100_000),
            ),
            bounds={"trades": (13_729, 13_730), "final_equity": (998_543.9, 998_544.1)},
        ),
        Case(
            "bars-portfolio",
            f"{INSTRUMENTS} x {DAYS:,} daily bars, SMA {FAST}/{SLOW} on each, 1 unit, next open, 5 bps, one account",
            INSTRUMENTS * DAYS,
            ours=FULL,
            limit="equity curve of the shared account, fills, drawdown",
            peers=(
                Peer("vectorbt-rust", "vectorbt", VBT + "; independent accounts", engine="auto"),
                Peer("vectorbt", "vectorbt", VBT + "; independent accounts", engine="numba"),
                Peer("raptorbt", "raptorbt", RAPTOR + "; equal-weight budgets instead of 1 unit"),
                Peer("backtrader", "backtrader", "final value, orders", n=25),
            ),
            # On one day two averages tie to the last decimal; which side of it rounding falls moves equity by 0.71.
            bounds={"trades": (16_986, 16_990), "final_equity": (998_849.6, 998_850.5)},
        ),
        Case(
            "bars-momentum",
            f"{INSTRUMENTS} x {DAYS:,} daily bars, 12-1 momentum, best {HELD} at equal weight, decided at the "
            "first close of a month, next open, 5 bps, one account",
            INSTRUMENTS * DAYS,
            ours=FULL,
            limit="equity curve of the shared account, fills, drawdown",
            peers=(
                Peer("vectorbt-rust", "vectorbt", VBT, engine="auto"),
                Peer("vectorbt", "vectorbt", VBT, engine="numba"),
                Peer("bt", "bt", "final value, positions; fills at the same close"),
            ),
            bounds={"orders": (6_704, 6_704), "final_equity": (961_388.8, 961_389.1)},
        ),
        sweep_case(
            "bars-sweep", 1_000, {"trades": (832_000, 833_000), "final_equity": (999_920_000, 999_920_100)}, SWEEPERS
        ),
        sweep_case(
            "bars-sweep-10k",
            10_000,
            {"trades": (6_530_000, 6_550_000), "final_equity": (9_999_365_000, 9_999_365_500)},
            (SWEEPER,),
        ),  # the slower ones would take an hour and 13 GB
        Case(
            "ticks-mm",
            f"{TICKS:,} quotes and trades, quotes on both sides with inventory skew, renewed each second, queues, 1 ms",
            TICKS,
            ours=TICKS_FULL,
            limit="fills and cash of one order a side, queue and latency",
            peers=MAKERS,
            bounds={"fills": (70_000, 90_000)},
        ),
        Case(
            "ticks-mm-every",
            f"{TICKS:,} quotes and trades, the same quotes, renewed at each event",
            TICKS,
            ours=TICKS_FULL,
            limit="fills and cash of one order a side, queue and latency",
            peers=MAKERS,
            bounds={"fills": (380_000, 540_000)},
        ),
        Case(
            "ticks-sweep",
            f"{len(MADE)} lanes of ticks-mm: half spreads and skews, {TICKS:,} quotes and trades each, on all cores",
            len(MADE) * TICKS,
            ours=TICKS_FULL.replace("equity curve", SWEPT),
            limit="one lane by hand, on one core: fills and cash of one order a side, queue and latency",
            peers=tuple(
                Peer(
                    m.name,
                    m.environment,
                    f"{HFT}; one of 64 processes, each for one lane",
                    engine=m.engine,
                )
                for m in MAKERS
            ),
            bounds={"fills": (3_800_000, 3_920_000)},
            processes=len(MADE),
        ),
        Case(
            "depth",
            f"{DEPTH_ROWS:,} updates of a recorded book and its trades, quotes renewed each second, queues",
            DEPTH_ROWS,
            ours=TICKS_FULL + ", the whole book twice: at the venue and in the kernel",
            limit="the whole book, fills and cash of one order a side, queue and latency",
            peers=(
                Peer("hftbacktest-roi", "hftbacktest", HFT, engine="roi"),
                Peer("hftbacktest-roi-book", "hftbacktest", "the book alone, no orders", engine="roi-book"),
            ),
            bounds={"fills": (8_000, 9_000), "final_equity": (999_600, 999_760)},
        ),
    )
}
