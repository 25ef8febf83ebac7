"""What the README shows is what the program does."""

import re
from pathlib import Path

import pytest

from engine import registry
from engine.kernel import indicators
from engine.kernel.layout import Record
from engine.kernel.signals import Ctx
from engine.kernel.strategy import HANDLERS, Strategy
from engine.modes import MODES
from tests.app.readme import README, executed


@pytest.mark.slow
def test_commands_and_programs_print_what_is_shown(compiled: None) -> None:
    text = README.read_text()
    assert text.count("```console") >= 4 and "Total return" in text
    assert executed(text) == text, "if this is meant: python -m tests.app.readme, and review the difference"


def test_make_has_the_targets(root: Path) -> None:
    named = set(re.findall(r"(?:^|\$ |[`;] ?)make (\w+)", README.read_text(), re.MULTILINE))
    assert {"backtest", "test", "ui", "check", "slow"} <= named
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_all_that_ctx_and_the_indicators_offer_is_named() -> None:
    text = README.read_text()
    table = text.partition("| `ctx.` |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)(?:\([^`]*\))?`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    inner = {*vars(Record), "fields", "dtype", "capacity", "strategy", "fault"}  # of the record, and for the kernel
    assert named == {name for name in vars(Ctx) if not name.startswith("_")} - inner
    listed = set(re.findall(r"`(\w+)`", text.partition("\nIndicators (")[2].partition("\n\n")[0]))
    assert set(indicators.__all__) - {"Indicator"} == listed - {"update", "help"}
    assert all(f"`{name}`" in text for name in HANDLERS)
    assert "engine.kernel.signals.Ctx" in str(Strategy.__doc__) and "engine.kernel.indicators" in str(Strategy.__doc__)


def test_modes_and_strategies_are_listed() -> None:
    text = README.read_text()
    assert all(f"| `{mode}` | {about} |" in text for mode, (_, _, about) in MODES.items())
    assert all(f"`{name}`" in text for name in registry.names())


def test_the_first_strategy_is_short() -> None:
    body = README.read_text().partition("# file: ideas.py\n")[2].partition("```")[0].partition("class ")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 16
