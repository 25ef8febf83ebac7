"""A session and its twin: where nothing differs but the seat, nothing differs."""

import math
from pathlib import Path

import pytest

from backtest.parity import Parity
from backtest.run import prepare
from backtest.twin import twin
from engine import registry
from engine.errors import DataError
from engine.journal import Journal, JournalWriter
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import codes
from engine.session import PROGRAM
from strategies import MarketMaking
from tests.backtest.test_ticks import random_ticks


def traded(folder: Path, events: int = 600, **venue: float) -> None:
    """A session on quotes and trades, in plain Python, with its journal."""
    prepared = prepare(MarketMaking(qty=2), random_ticks(3, events), compiled=False, **venue)
    journal = JournalWriter(folder, prepared.plan(["market_making"]).header(PROGRAM), sync_ms=math.inf)
    Parity(prepared, journal).run()
    journal.seal()


@pytest.mark.parametrize("ms", [0.0, 4.0])
def test_the_same_but_for_the_seat(tmp_path: Path, ms: float) -> None:
    traded(tmp_path / "j", order_ms=ms, report_ms=ms)
    found = twin(tmp_path / "j", registry.find)
    assert found.round_trip_ms == pytest.approx(2 * ms)
    assert found.live == pytest.approx(found.backtest)
    assert found.same == found.live["Orders"] > 20 and found.live["Fills"] > 2
    journal = Journal(tmp_path / "j")
    assert found.live["Orders"] == len(journal.rows(ORDERS))
    assert found.live["Fills"] == (journal.rows(EVENTS)["code"] == codes.FILL).sum()
    assert "all orders are the same" in str(found) and f"{found.live['Profit and loss']:,.2f}" in str(found)


def test_a_difference_is_measured(tmp_path: Path) -> None:
    """The venue's answers to some orders came late: from there on the orders are others."""
    traded(tmp_path / "j", order_ms=1.0, report_ms=7.0)
    found = twin(tmp_path / "j", registry.find)
    assert found.round_trip_ms == pytest.approx(8.0)
    assert 0 < found.same < found.live["Orders"] and f"the first {found.same:,} orders are the same" in str(found)
    assert found.live["Profit and loss"] != found.backtest["Profit and loss"]


def test_no_market_data(tmp_path: Path) -> None:
    prepared = prepare(MarketMaking(), random_ticks(3, 50), compiled=False)
    JournalWriter(tmp_path / "j", prepared.plan(["market_making"]).header(PROGRAM)).seal()
    with pytest.raises(DataError, match="journal j holds no market data"):
        twin(tmp_path / "j", registry.find)
