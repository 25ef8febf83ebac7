"""A sweep put to the test, over compiled lanes and through the command line: what it says is what its parts say."""

import numpy as np
import pytest

from backtest.honesty import study as studies
from backtest.honesty.sharpe import effective_lanes
from backtest.honesty.splits import DAY_NS, purged, walk_forward
from backtest.honesty.study import study
from backtest.honesty.validate import extent, of_lanes, validate
from backtest.lanes import evaluate
from backtest.run import prepare
from engine import ledger
from engine import tracking_names as names
from strategies import Momentum

TABLE = {"strategy.fast": [10, 5, 20, 30], "strategy.slow": [50, 60, 80, 120]}


@pytest.mark.slow
def test_a_study_is_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(Momentum(qty=100.0), "equities", end="2004-01-01")
    found = study(prepared, TABLE, folds=3)
    whole = evaluate(prepared, TABLE, returns=np.float32)
    assert (found.lanes == whole.returns.T).all() and found.returns == pytest.approx(whole.returns[0])
    assert found.effective == pytest.approx(effective_lanes(whole.returns.T))
    apart = validate(of_lanes(prepared), TABLE, walk_forward(*extent(prepared), folds=3))
    assert found.validation is not None and found.validation.choices == apart.choices
    assert study(prepared, TABLE, split="none").validation is None
    gaps = study(prepared, TABLE, split="purged", folds=3, purge_days=9)
    days = 9 * DAY_NS
    assert gaps.validation is not None
    assert gaps.validation.folds == purged(*extent(prepared), folds=3, purge=days, embargo=days)
    # Of more lanes than there is room for, a sample with the best one first.
    monkeypatch.setattr(studies, "NUMBERS", 2 * len(whole.ends) + 99)
    few = study(prepared, TABLE, split="none")
    assert few.lanes.shape[1] < 4 and (few.lanes[:, 0] == found.lanes[:, 0]).all()
    assert 1 <= few.effective <= 4
    said = found.judge(ledger.Ledger(4, found.effective, 1, 0, 4, 0.5, 0.1), True)
    assert said.figures[names.OOS_SHARPE] == pytest.approx(apart.figures["sharpe"])
    assert studies.shared(said.figures).keys() == set(studies.SHARED)
