"""Which session an engine goes on with: the one that the settings describe, also after reloads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.kernel.machine import python_handlers
from engine.kernel.strategy import Strategy
from engine.live.opening import opened
from engine.plan import Plan
from tests.kernel.desk import SECOND
from tests.session.test_session import CLASSES, T0, Fails, Run, Sells, Steps, plan


def begun(root: Path, *kinds: type[Strategy]) -> Run:
    """A session of an engine, two bars long."""
    root.mkdir()
    run = Run(root / "00000001", *kinds)
    run.bars(1, 2)
    return run


def again(root: Path, wanted: Plan) -> Any:
    """The session that an engine with these settings goes on with."""
    back, fresh = opened(root, wanted, CLASSES.__getitem__, False, {}, 0.0, 0, lambda note: None)
    assert not fresh
    back.session.journal.close()  # type: ignore[union-attr]
    return back.session


def test_settings_as_a_reload_left_them_go_on_with_the_session(tmp_path: Path) -> None:
    """An edited file is what runs already once it was reloaded; its old code is nowhere to be had any more."""
    run = begun(tmp_path / "e", Steps, Steps)
    run.session.reload(T0 + 3 * SECOND, 1, Fails(step=3.0), python_handlers(Fails), name="Fails", image="uncompiled")
    run.session.reload(T0 + 4 * SECOND, 1, Sells(step=7.0), python_handlers(Sells), name="Sells", image="uncompiled")
    run.session.journal.close()  # type: ignore[union-attr]
    for wanted in (plan(Steps, Steps), plan(Steps, Sells),
                   replace(plan(Steps, Sells), strategies=(Steps(), Sells(step=7.0)))):  # fmt: skip
        session = again(tmp_path / "e", wanted)
        assert session.running(1).values == {"step": 7.0} and session.state() == run.session.state()
    for wanted in (plan(Sells, Steps), plan(Steps, Fails), plan(Steps),
                   replace(plan(Steps, Sells), strategies=(Steps(), Sells(step=8.0)))):  # fmt: skip
        with pytest.raises(ConfigError, match="strategies differ from those of the session"):
            again(tmp_path / "e", wanted)


def test_code_that_was_never_reloaded_is_another_strategy(tmp_path: Path) -> None:
    begun(tmp_path / "e", Steps).session.journal.close()  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="strategies differ from those of the session"):
        again(tmp_path / "e", plan(Sells))
