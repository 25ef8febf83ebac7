"""The verdict on a sweep through the command line: in the terminal, in the reports, and in what the tracker hears."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import tracking_names as names
from tests.app.words import QUICK, Said


@pytest.mark.slow
def test_through_the_command_line(tandem: Callable[..., Said], place: Path) -> None:
    words = ("-m", "data=equities", "end=2003-01-01", "strategy.fast=5,10,20", "strategy.slow=40,60", "sweep.folds=3")
    said = tandem(*words, "track=false", "sweep.best=1")
    assert said.code == 0, said
    flat = " ".join(said.out.split())
    assert "Out of sample: Sharpe ratio" in flat and "Of 6 lanes tried of Momentum" in flat
    assert "The tracker was not heard" in flat  # it was not asked: track=false
    (where,) = place.glob("outputs/*-sweep")
    about = json.loads((where / "sweep.json").read_text())
    figures = about["verdict"]["figures"]
    told = json.loads((where / "track.json").read_text())
    assert {names.OOS_SHARPE, names.DSR, names.PBO, names.SPA, names.LANES} <= set(told["parent"]["metrics"])
    assert told["parent"]["metrics"][names.LANES] == figures[names.LEDGER_LANES] == 6
    assert max(2.0, told["parent"]["metrics"][names.LANES_EFFECTIVE]) == figures[names.LEDGER_EFFECTIVE]
    assert len(about["verdict"]["choices"]) == 3
    for page in (where / "sweep.html", where / "best" / "1" / "report.html"):
        assert about["verdict"]["lead"] in page.read_text()
    # What promotion asks for is on the lane's own run: its own deflated Sharpe, the sweep's out-of-sample figure.
    (child,) = told["children"]
    assert child["tags"][names.KIND] == names.LANE
    assert child["metrics"][names.OOS_SHARPE] == figures[names.OOS_SHARPE]
    assert child["metrics"][names.DSR] == pytest.approx(figures[names.DSR], abs=1e-6)
    apart = tandem(*words, *QUICK, "sweep.split=none", "sweep.best=0", "name=apart")
    assert "Out of sample: untested" in apart.out
