"""The ledger of lanes: counted from plain rows, and from a real store with a million lanes in it."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.honesty.verdict import judge
from backtest.report import tables
from engine import ledger, tracking
from engine import tracking_names as names

pytestmark = pytest.mark.filterwarnings("ignore")  # the client that reads back is MLflow's own


def sweep(sharpe: Any, content: str = "", span: tuple[int, int] | None = None) -> dict[str, Any]:
    tags = {names.KIND: names.SWEEP} | ({names.CONTENT: content} if content else {})
    tags |= {names.FIRST_NS: str(span[0]), names.LAST_NS: str(span[1])} if span else {}
    return {"tags": tags, "metrics": ledger.figures(sharpe)}


def single(sharpe: float, content: str) -> dict[str, Any]:
    return {"tags": {names.KIND: names.BACKTEST, names.CONTENT: content}, "metrics": {names.SHARPE: sharpe}}


SHARPES = st.lists(st.floats(-5, 5), min_size=1, max_size=12)


@given(st.lists(SHARPES, max_size=5), SHARPES)
def test_moments_of_groups_are_those_of_all_lanes(groups: list[list[float]], alone: list[float]) -> None:
    runs = [sweep(g) for g in groups] + [single(s, f"one {i}") for i, s in enumerate(alone)]
    found = ledger.count(runs)
    every = np.concatenate([*(np.array(g) for g in groups), alone])
    assert found.lanes == found.scored == found.effective == len(every)
    assert (found.sweeps, found.backtests) == (len(groups), len(alone))
    assert found.mean == pytest.approx(every.mean(), abs=1e-12)
    assert found.var == pytest.approx(every.var(ddof=1) if len(every) > 1 else 0.0, abs=1e-9)


@given(st.permutations([sweep([1, 2], "a"), sweep([1], "a"), single(3, "b"), single(3, "b"), sweep([5.0], "c")]))
def test_of_repetitions_the_largest_counts_in_any_order(runs: list[dict[str, Any]]) -> None:
    found = ledger.count(runs)
    assert (found.lanes, found.sweeps, found.backtests) == (4, 2, 1)
    assert found.mean == pytest.approx(11 / 4)


ROWS = st.builds(sweep, SHARPES, st.sampled_from(["", "a", "b"])) | st.builds(single, st.floats(-5, 5), st.just("a"))


@given(st.lists(ROWS, max_size=8).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_the_order_of_rows_changes_nothing(both: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    assert ledger.count(both[0]) == ledger.count(both[1])


def test_all_strategies_of_an_experiment_count() -> None:
    """To choose among twenty classes is a choice among twenty, whatever they are called."""
    rows = [single(float(n), str(n)) for n in range(20)]
    for n, row in enumerate(rows):
        row["tags"] |= {names.STRATEGY: f"Class{n}"}
    assert ledger.count(rows).lanes == 20


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2])
def test_what_was_pruned_widens_the_spread(kept: float) -> None:
    """A sweep whose lower part was not run has the variance of the whole one, where the cut was clean."""
    every = np.sort(np.random.default_rng(4).normal(0.5, 1.3, 200_000))
    gone = int((1.0 - kept) * len(every))
    sharpe = np.concatenate([np.full(gone, np.nan), every[gone:]])
    found = ledger.figures(sharpe, pruned=gone)
    assert found[names.LANES] == len(every)
    assert found[names.SHARPE_VAR] == pytest.approx(every.var(ddof=1), rel=0.02)
    assert ledger.figures(sharpe)[names.SHARPE_VAR] < 0.9 * found[names.SHARPE_VAR]


@pytest.mark.parametrize(
    ("span", "counts"),
    [((0, 9), False), ((0, 10), True), ((15, 15), True), ((20, 30), True), ((21, 30), False), ((0, 99), True)],
)
def test_only_overlapping_data_count(span: tuple[int, int], counts: bool) -> None:
    assert ledger.count([sweep([1.0, 2.0], "x", span)], 10, 20).lanes == (2 if counts else 0)


def test_who_does_not_say_what_it_saw_counts_and_other_kinds_do_not() -> None:
    others = [{"tags": {names.KIND: kind}, "metrics": {names.SHARPE: 1.0}} for kind in (names.LANE, names.LIVE)]
    assert ledger.count([sweep([1.0]), *others, {"tags": {}, "metrics": {}}], 10, 20).lanes == 1


def test_lanes_without_a_figure_are_evaluated_lanes() -> None:
    nothing = {"tags": {names.KIND: names.BACKTEST}, "metrics": {}}
    found = ledger.count([sweep([np.nan, np.nan]), nothing, sweep([2.0, np.nan])])
    assert (found.lanes, found.scored, found.mean) == (5, 2, 2.0)


def test_a_sweep_of_several_structures_saw_the_data_of_all() -> None:
    from types import SimpleNamespace

    import polars as pl

    from backtest.run import prepare
    from engine.modes_upload import counted
    from strategies import Momentum

    early, late = (
        prepare(Momentum(), "equities", start=a, end=b)
        for a, b in (("2000-01-01", "2001-01-01"), ("2008-01-01", "2009-01-01"))
    )
    table = pl.DataFrame({"sharpe": [0.5, 1.0], "status": [0, 0]})
    rows = [
        counted(SimpleNamespace(structures=[SimpleNamespace(prepared=p) for p in ran]), {"hash": "h"}, table, 2.0)
        for ran in ([early], [late], [early, late], [early, late])
    ]
    spans = [(int(p.tape.events["ts"][0]), int(p.tape.events["ts"][-1])) for p in (early, late)]
    assert [ledger.count([row], *spans[1]).lanes for row in rows[:3]] == [0, 2, 2]
    assert ledger.count(rows, *spans[0]).lanes == 4 and len({row["tags"][names.CONTENT] for row in rows}) == 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Any) -> Any:
    """Sweeps of forty thousand lanes each, 25 of them, in a real store; one of them was deleted in the UI."""
    from mlflow.entities import Metric, RunTag

    uri = new_store(tmp_path_factory.mktemp("ledger"))
    with tracking._contained(uri, None):
        client = tracking._client(uri)
        experiment = tracking._experiment(client, "momentum", uri)
        for n in range(25):
            run = client.create_run(experiment).info.run_id
            row = sweep(np.random.default_rng(n).normal(0, 1, 40_000), f"sweep {n}", (n, n + 10))
            figures = [Metric(k, v, 0, 0) for k, v in row["metrics"].items()]
            client.log_batch(run, figures, tags=[RunTag(k, v) for k, v in row["tags"].items()])
        client.delete_run(run)
    return uri


@pytest.mark.slow
def test_a_million_lanes_are_counted_in_under_a_second(store: str) -> None:
    ledger.read("momentum", tracking_uri=store)  # MLflow is imported by now
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        found = ledger.read("momentum", tracking_uri=store)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 1.0
    assert (found.lanes, found.sweeps) == (1_000_000, 25)
    assert (found.mean, found.var) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert ledger.read("momentum", 0, 4, tracking_uri=store).sweeps == 5
    nobody = ledger.read("nobody had this idea", tracking_uri=store)
    assert nobody == ledger.Ledger(idea="in experiment nobody had this idea")
    with tracking.Helper(store) as helper:
        assert ledger.read("momentum", tracking_uri=store, helper=helper) == found


@pytest.mark.slow
def test_single_backtests_are_in_the_ledger(crossing: Any, store: str) -> None:
    again = False
    for fast in (10, 20, 10):
        result = crossing(fast=fast)
        result.track(experiment="crossings", tracking_uri=store)
        assert (result.verdict.many, result.verdict.figures[names.LEDGER_LANES]) == (fast != 10 or again, 1 + again)
        again = True
    client = tracking._client(store)
    (run, *_) = client.search_runs([client.get_experiment_by_name("crossings").experiment_id])
    assert run.data.metrics[names.LEDGER_LANES] == 2 and run.data.metrics[names.DSR] < run.data.metrics[names.PSR]
    assert "Of 2 lanes tried in experiment crossings" in run.data.tags["mlflow.note.content"]
    page = tables.verdict(result.verdict)
    assert (
        "Of 2 lanes tried in experiment crossings" in page
        and "Out of sample: untested" in page
        and page.count("<tr>") >= 8
    )
    assert tables.verdict(None) == ""
    span = int(result.tape.events["ts"][0]), int(result.tape.events["ts"][-1])
    found = ledger.read("crossings", *span, tracking_uri=store)
    assert (found.lanes, found.backtests) == (2, 2)
    assert ledger.read("crossings", span[1] + 1, tracking_uri=store).lanes == 0


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_is_told_of(crossing: Any) -> None:
    found = judge(crossing(), "crossings", "http://127.0.0.1:9")
    assert "The tracker was not heard" in found.sentence and not found.many
