"""What the report of a sweep says: shares of variance, where the edge dies, the front; on tables with known answers."""

import numpy as np
import polars as pl
import pytest

from backtest.report import surface


def table(**columns: object) -> pl.DataFrame:
    return pl.DataFrame(columns)


def test_an_additive_objective_is_explained_axis_by_axis() -> None:
    a, b = (x.ravel().astype("f8") for x in np.meshgrid(np.arange(5), np.arange(4)))
    lanes = table(**{"strategy.a": a, "strategy.b": b, "sharpe": 3.0 * a + b})
    shares = surface.sensitivity(lanes, ["strategy.a", "strategy.b"], "sharpe")
    wanted = {"strategy.a": np.var(3.0 * a), "strategy.b": np.var(b)}
    assert shares == pytest.approx({k: v / np.var(3.0 * a + b) for k, v in wanted.items()})
    assert sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("returns", "words", "at"),
    [
        ([0.04, 0.02, -0.02], "breaks even at venue.taker_bps = 7.5", 7.5),
        ([0.04, 0.02, 0.01], "still earns at venue.taker_bps = 10", np.nan),
        ([-0.01, -0.02, -0.03], "earns nothing from venue.taker_bps = 0 on", np.nan),
    ],
)
def test_where_the_edge_dies(returns: list[float], words: str, at: float) -> None:
    lanes = table(**{"venue.taker_bps": [0.0, 5.0, 10.0, 0.0], "strategy.a": [1, 1, 1, 2],
                     "total_return": [*returns, -9.0]})  # fmt: skip
    said, where = surface.break_even(lanes, "venue.taker_bps", ["strategy.a"])
    assert words in said and where == pytest.approx(at, nan_ok=True)


def test_a_surface_is_the_median_and_has_holes() -> None:
    lanes = table(a=[1.0, 1.0, 1.0, 2.0], b=[1.0, 1.0, 1.0, 2.0], sharpe=[1.0, 2.0, 9.0, np.nan])
    x, y, cells = surface.matrix(lanes, "a", "b", "sharpe")
    assert x.tolist() == y.tolist() == [1.0, 2.0] and cells[0, 0] == 2.0 and np.isnan(cells).sum() == 3


def test_many_values_are_binned() -> None:
    values = np.random.default_rng(0).random(1000)
    names, which = surface.levels(values)
    assert len(names) == surface.BINS and np.bincount(which).min() > 30 and (np.diff(names) > 0).all()


@pytest.mark.parametrize(("sought", "best"), [("sharpe", 5.0), ("-sharpe", 0.0)])
def test_the_best_of_a_chart_is_what_was_sought(sought: str, best: float) -> None:
    """In its curves and in its colours, and each axis of the parallel coordinates has room for its name."""
    a, b = (x.ravel().astype("f8") for x in np.meshgrid(np.arange(4), np.arange(6)))
    lanes = table(**{"strategy.a": a, "strategy.b": b, "sharpe": b})
    about = {"objectives": [sought], "axes": ["strategy.a", "strategy.b"]}
    charts = {c["data"][0]["type"]: c for c in reversed(surface.charts(about, lanes))}
    heat, lines = charts["heatmap"]["data"][0], charts["parcoords"]["data"][0]["line"]
    assert heat["colorscale"] == lines["colorscale"] == surface.SCALE
    assert heat["reversescale"] is lines["reversescale"] is sought.startswith("-")
    assert charts["parcoords"]["layout"]["margin"]["t"] > 40
    by_a = next(c for c in surface.charts(about, lanes) if " by a:" in c["title"])
    tenth = next(line for line in by_a["data"] if line["name"] == "best tenth")
    assert all(abs(y - best) <= 0.5 for y in tenth["y"])


def test_both_libraries_know_the_scale() -> None:
    """A name that plotly.js does not know is drawn in another scale, without a word."""
    import matplotlib
    from plotly.offline import get_plotlyjs

    assert surface.SCALE.lower() in matplotlib.colormaps and f"{surface.SCALE}:[[0," in get_plotlyjs()
