"""The twin: at the venue that was traded at nothing differs; at another one the difference is measured."""

import math
from pathlib import Path

import pytest

from backtest.parity import Parity
from backtest.run import prepare
from backtest.twin import Twin, twin
from engine.config import VenueModel
from engine.errors import DataError
from engine.journal import Journal, JournalWriter
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import codes
from engine.session_loop import PROGRAM
from engine.store.synthetic import synthetic_tape
from engine.store.tape import Tape
from strategies import BUILT_IN
from tests.backtest.test_depth import random_depth
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import QUICK

FEES = {"taker_bps": 5.0}


def traded(folder: Path, name: str, tape: Tape, venue: VenueModel) -> None:
    strategy = BUILT_IN[name](**QUICK.get(name, {}))
    prepared = prepare(strategy, tape, venue=venue, leverage=4.0)
    journal = JournalWriter(folder, prepared.plan((name,)).header(PROGRAM), sync_ms=math.inf)
    Parity(prepared, journal).run()
    journal.seal()


def compared(folder: Path, venue: VenueModel) -> Twin:
    return twin(folder, BUILT_IN.__getitem__, venue, points=20)


@pytest.mark.parametrize(
    ("name", "kind"), [("momentum", "bars"), ("market_making", "ticks"), ("market_making", "depth")]
)
def test_the_same_venue_differs_in_nothing(tmp_path: Path, name: str, kind: str) -> None:
    ticks = kind != "bars"
    tape = {"bars": synthetic_tape(100, 2, 5), "ticks": random_ticks(3, 400), "depth": random_depth(3, 400)}[kind]
    venue = VenueModel(order_ms=2.0, report_ms=1.0, **FEES) if ticks else VenueModel(slippage_bps=3.0, **FEES)
    traded(tmp_path / "j", name, tape, venue)
    found = compared(tmp_path / "j", venue)
    assert found.same == found.happened.orders == found.simulated.orders > 0
    assert found.happened.fills > 0 and found.tracking_bps < 1e-6
    for number in ("fills", "fill_ratio", "slippage_bps", "latency_ms", "fees"):
        assert getattr(found.happened, number) == getattr(found.simulated, number), number
    assert found.happened.gain == pytest.approx(found.simulated.gain)
    assert found.happened.latency_ms == (3.0 if ticks else 0.0)


def test_another_venue_is_measured(tmp_path: Path) -> None:
    traded(tmp_path / "j", "momentum", synthetic_tape(100, 2, 5), VenueModel(slippage_bps=10.0, **FEES))
    found = compared(tmp_path / "j", VenueModel(**FEES))
    assert found.happened.slippage_bps - found.simulated.slippage_bps == pytest.approx(10.0, abs=1.0)
    assert found.tracking_bps > 0.0 and found.happened.gain < found.simulated.gain
    said = str(found)
    assert "live     simulated" in said and "Slippage, bps" in said and "tracking error" in said


@pytest.mark.parametrize("ms", [0.0, 4.0])
def test_it_is_given_the_latency_that_was_measured(tmp_path: Path, ms: float) -> None:
    traded(tmp_path / "j", "market_making", random_ticks(3, 600), VenueModel(order_ms=ms, report_ms=ms))
    found = compared(tmp_path / "j", VenueModel())
    assert found.round_trip_ms == pytest.approx(2 * ms)
    assert found.same == found.happened.orders == found.simulated.orders > 20
    assert found.happened.fills == found.simulated.fills > 2
    journal = Journal(tmp_path / "j")
    assert found.happened.orders == len(journal.rows(ORDERS))
    assert found.happened.fills == (journal.rows(EVENTS)["code"] == codes.FILL).sum()
    assert found.happened.gain == pytest.approx(found.simulated.gain) and "All orders are the same" in str(found)


def test_answers_that_took_another_way_are_measured(tmp_path: Path) -> None:
    """The round trip is right and its halves are not: from there on the orders are others."""
    traded(tmp_path / "j", "market_making", random_ticks(3, 600), VenueModel(order_ms=1.0, report_ms=7.0))
    found = compared(tmp_path / "j", VenueModel())
    assert found.round_trip_ms == pytest.approx(8.0)
    assert 0 < found.same < found.happened.orders and f"The first {found.same:,} orders are the same" in str(found)
    assert found.happened.gain != found.simulated.gain


def test_a_journal_without_a_market(tmp_path: Path) -> None:
    prepared = prepare(BUILT_IN["momentum"](), synthetic_tape(10, 1, 5), compiled=False)
    JournalWriter(tmp_path / "j", prepared.plan(("momentum",)).header(PROGRAM)).seal()
    with pytest.raises(DataError, match="journal j has no market data"):
        compared(tmp_path / "j", VenueModel())
