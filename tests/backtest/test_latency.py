"""Latencies that are no constants: measured ones by time, and sampled ones; nothing overtakes within a direction."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest.check import check_strategy
from backtest.latency import normal, read_latencies, seeded
from backtest.records import Draws
from backtest.run import prepare
from engine.config import VenueModel
from engine.errors import ConfigError, DataError
from engine.kernel import codes
from engine.kernel.events import Report
from engine.kernel.signals import Ctx
from strategies.market_making import MarketMaking
from tests.backtest.test_ticks import BOOK, MS, START, Trader, buy, play, q, random_ticks, sell, tape


def table(folder: Path, *rows: tuple[float, ...], name: str = "late.csv") -> str:
    """A table from rows (time, order, report[, feed]), all in milliseconds, the time from the start of the tape."""
    names = ("time", "order_ns", "report_ns", "feed_ns")
    columns = zip(*rows, strict=True)
    frame = pl.DataFrame({n: [round(x * MS) for x in c] for n, c in zip(names, columns, strict=False)})
    frame = frame.with_columns(pl.col("time") + START)
    path = folder / name
    if name.endswith(".csv"):
        frame.write_csv(path)
    else:
        frame.with_columns(pl.from_epoch("time", "ns")).write_parquet(path)
    return str(path)


MOVES = [q(10.00 + 0.01 * n, 5, 10.02 + 0.01 * n, 4) for n in range(9)]  # the ask says when an order has arrived
# rows of the table; when and at what market orders of events 0 and 3 are filled
MEASURED: list[tuple[list[tuple[float, ...]], list[tuple[float, float]]]] = [
    ([(0, 1, 0)], [(1, 10.03), (4, 10.06)]),
    ([(0, 1, 0), (3, 2.5, 0)], [(1, 10.03), (5.5, 10.07)]),  # the latest measurement holds
    ([(0, 1, 0), (4, 9, 0)], [(1, 10.03), (4, 10.06)]),  # one that comes later does not
    ([(2, 0.5, 0)], [(0.5, 10.02), (3.5, 10.05)]),  # before the first row, the first
    ([(0, 6, 0), (3, 1, 0)], [(6, 10.08), (6, 10.08)]),  # what was sent later does not overtake
]


@pytest.mark.parametrize(("rows", "filled"), MEASURED)
@pytest.mark.parametrize("name", ["late.csv", "late.parquet"])
def test_measured(tmp_path: Path, rows: Any, filled: list[tuple[float, float]], name: str) -> None:
    wishes = {0: buy(1), 3: buy(1)}
    found = play(tape(*MOVES), wishes, latency=table(tmp_path, *rows, name=name))
    assert found == [("fill", at, 1, price) for at, price in filled]


class Hears(Trader):
    """Notes when it hears of fills and of market events."""

    def on_report(self, report: Report, ctx: Ctx) -> None:
        if report.code == codes.FILL:
            HEARD.append((ctx.now - START) / MS)


HEARD: list[float] = []


def heard(wishes: dict[int, Any], late: str) -> list[float]:
    """When the kernel heard of the fills, ms."""
    from tests.backtest import test_ticks

    HEARD.clear()
    test_ticks.WISHES.clear()
    test_ticks.WISHES.update({n: [w] for n, w in wishes.items()})
    prepare(Hears(), tape(*[BOOK] * 9), cash=1e6, compiled=False, latency=late).run()
    return list(HEARD)


def test_measured_on_the_way_back(tmp_path: Path) -> None:
    late = table(tmp_path, (0, 0, 3), (2, 0, 0.5), (4, 0, 1))
    assert heard({0: buy(1), 2: buy(1), 4: buy(1)}, late) == [3, 3, 5]  # the second waits for the first


def test_measured_on_the_way_of_the_feed(tmp_path: Path) -> None:
    """What leaves before 2 ms may take until 4, nothing later overtakes it: quotes come at 2, 3, 4, 4, 4.5 ms."""
    late = table(tmp_path, (0, 0, 0, 2), (2, 0, 0, 0.5))
    found = play(tape(*MOVES), {n: buy(1) for n in range(5)}, latency=late)
    assert found == [("fill", at, 1, price) for at, price in
                     ((2, 10.04), (3, 10.05), (4, 10.06), (4, 10.06), (4.5, 10.06))]  # fmt: skip


def test_sampled_latencies_do_not_overtake_and_depend_on_the_seed() -> None:
    """Sigma 1.5 about 2 ms, an order a millisecond: they arrive in order, though every second draw is smaller."""
    wishes = {n: (buy, sell)[n % 2](1) for n in range(60)}
    runs = [[r[1] for r in play(tape(*[BOOK] * 200), wishes, order_ms=2.0, jitter=1.5, seed=s)] for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert len(runs[0]) == 60 and runs[0] == sorted(runs[0])
    assert np.std(np.diff(runs[0])) > 0.5


def test_the_draws_are_normal() -> None:
    draws = Draws.new()
    for seed in (0, 7):
        seeded(draws, seed)
        found = np.array([normal(draws) for _ in range(20_000)])
        assert abs(found.mean()) < 0.03 and abs(found.std() - 1.0) < 0.03
        assert abs((np.abs(found) < 1.0).mean() - 0.6827) < 0.01
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.03


def test_laws(tmp_path: Path) -> None:
    """Chunks, snapshots, plain Python and causality with a table for all directions, and with draws on top."""
    rng = np.random.default_rng(3)
    late = table(tmp_path, *[(40.0 * n, *rng.uniform(0.1, 30.0, 3)) for n in range(200)])
    model = VenueModel(latency=late, jitter=0.7, seed=5, queue="power")
    done = check_strategy(MarketMaking(qty=2.0, limit=8.0), random_ticks(4, 1200), short=300, tries=3, venue=model)
    assert done.fills > 10


WRONG: dict[str, tuple[str, str]] = {
    "time,order_ns\n2024-01-01,5\n": ("no column report_ns", "a column is missing"),
    "time,order_ns,report_ns\n": ("no row|empty", "no row"),
    "time,order_ns,report_ns\n2024-01-02,5,5\n2024-01-01,5,5\n": ("row 2 is older", "unsorted"),
    "time,order_ns,report_ns\n2024-01-02,-5,5\n": ("order_ns must hold whole ns", "negative"),
    "time,order_ns,report_ns\n2024-01-02,5,0.5\n": ("report_ns must hold whole ns", "a fraction"),
    "when,order_ns,report_ns\nx,5,5\n": ("no time column", "no time"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=[what for _, what in WRONG.values()])
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "late.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=WRONG[text][0]):
        read_latencies(str(path))


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"venue.latency=none.csv: no such file; give"):
        prepare(Trader(), tape(BOOK), compiled=False, latency="none.csv")
    with pytest.raises(ConfigError, match="jitter"):
        VenueModel(jitter=-1.0)


@pytest.mark.parametrize("key", ["order_ms", "report_ms", "feed_ms"])
def test_a_table_and_a_constant_contradict(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"venue.latency is a table in place of venue.{key}; give one"):
        VenueModel(latency="late.csv", **{key: 1.0})  # type: ignore[arg-type]
