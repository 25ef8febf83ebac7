"""What a session received becomes a dataset: the same events at the same times, and a backtest of them."""

import math
from pathlib import Path

import numpy as np
import pytest

from backtest.parity import Parity
from backtest.run import prepare
from engine.errors import DataError
from engine.journal import JournalWriter
from engine.kernel import codes
from engine.modes import Import, run_import
from engine.session_loop import PROGRAM
from engine.store import open_tape
from engine.store.synthetic import synthetic_tape
from engine.store.tape import Tape
from engine.store.ticks_import import import_ticks
from engine.store.vendors.journal import import_journal
from strategies import MarketMaking, Momentum
from tests.backtest.test_ticks import random_ticks


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA", str(tmp_path / "data"))


def traded(folder: Path, tape: Tape, strategy: type) -> None:
    """A session over a tape, in plain Python."""
    prepared = prepare(strategy(), tape, compiled=False)
    journal = JournalWriter(folder, prepared.plan().header(PROGRAM), sync_ms=math.inf)
    Parity(prepared, journal).run()
    journal.seal()


@pytest.mark.parametrize("tape", [random_ticks(3, 400), synthetic_tape(60, 3, 7)], ids=["ticks", "bars"])
def test_the_same_events_again(tmp_path: Path, tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    traded(tmp_path / "j", tape, MarketMaking if tape.name == "random ticks" else Momentum)
    settings = Import(sources=(str(tmp_path / "j"),), name="traded", vendor="journal")
    assert run_import(settings, str) == 0
    assert "Run      tandem mode=backtest data=traded" in capsys.readouterr().out
    found = open_tape("traded")
    assert [info.name for info in found.instruments] == [info.name for info in tape.instruments]
    assert found.instruments == tape.instruments
    assert len(found.events) == len(tape.events)
    ours, theirs = found.events.copy(), tape.events.copy()
    ours["source"] = theirs["source"] = 0
    assert ours.view("V64").tobytes() == theirs.view("V64").tobytes()


def test_quotes_go_before_bars_and_gaps_are_counted(tmp_path: Path) -> None:
    prepared = prepare(MarketMaking(), random_ticks(3, 50), compiled=False)
    journal = JournalWriter(tmp_path / "j", prepared.plan().header(PROGRAM))
    journal.events(prepared.tape.events[:20])
    other = np.array(prepared.tape.events[20:23])
    other["kind"] = (codes.BAR, codes.GAP, codes.COMMAND)
    journal.events(other)
    journal.close()
    where = import_journal("some", tmp_path / "j")
    assert len(open_tape("some").events) == 20
    text = (where / "dataset.json").read_text()
    assert '"gaps: events were lost before": 1' in text and "bars, left out" in text
    again = import_ticks("again", str(tmp_path / "j"), vendor="journal", book="empty", instruments={"tick": 0.01})
    assert again.name == "again" and len(open_tape("again").events) == 20


def test_nothing_to_import(tmp_path: Path) -> None:
    prepared = prepare(MarketMaking(), random_ticks(3, 50), compiled=False)
    JournalWriter(tmp_path / "j", prepared.plan().header(PROGRAM)).seal()
    with pytest.raises(DataError, match="journal j holds no quotes, trades, depth or bars"):
        import_journal("none", tmp_path / "j")
