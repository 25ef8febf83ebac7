"""The report of a sweep: the best lanes, the surface of the objective, what each axis does to it, where the edge dies.

Law 1: what is drawn of many lanes is the median over all other axes, never the best of them: a maximum of noise is no
       surface.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.figures import LABELS, figure
from backtest.report.charts import BLUE, GREY, RED, axis, layout, plain

if TYPE_CHECKING:
    import polars as pl

SHOWN = ("total_return", "annual_return", "sharpe", "sortino", "max_drawdown", "trades", "win_rate", "profit_factor")
# Of an axis with more values than MOST; lines of parallel coordinates, twice; values that are all written at an axis.
BINS, MOST, LINES, TICKS = 24, 80, 1_000, 12
QUANTILES = (("median", 0.5, BLUE), ("best tenth", 0.9, GREY), ("worst tenth", 0.1, RED))  # of what is maximised
SCALE = "Viridis"  # plotly.js and matplotlib both know it: a name that plotly.js does not know is another scale
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;max-width:1100px;margin:24px auto;padding:0 16px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:3px 12px;text-align:right}
td{white-space:nowrap}th{border-bottom:1px solid #c6ccd4}
h1{font-size:22px}h2{font-size:17px;margin-top:32px}.chart{height:460px}
</style><script>$plotly</script></head><body><h1>$title</h1><p>$about</p><p><b>$lead</b></p><p>$rest</p>$table$charts
<script>for (const c of $data) Plotly.newPlot(c.id, c.data, c.layout, {responsive: true, displaylogo: false})</script>
</body></html>"""


def short(key: str) -> str:
    """An axis as people call it: `fast`, but `venue.taker_bps`."""
    return key.removeprefix("strategy.")


def objective(about: Mapping[str, Any]) -> str:
    """The first figure that was sought."""
    return str(about["objectives"][0]).removeprefix("-")


def minimised(about: Mapping[str, Any]) -> bool:
    """Whether the best of it is the least."""
    return str(about["objectives"][0]).startswith("-")


def axes_of(about: Mapping[str, Any], table: "pl.DataFrame") -> list[str]:
    """The axes that are numbers and have more than one value."""
    return [k for k in about["axes"] if table[k].dtype.is_numeric() and table[k].n_unique() > 1]


def levels(values: Any) -> tuple[Any, Any]:
    """The levels of an axis, and for each lane which one is its: its values, or bins of equal counts."""
    found, which = np.unique(values, return_inverse=True)
    if len(found) <= MOST:
        return found, which
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
    which = np.clip(np.searchsorted(edges, values, "right") - 1, 0, BINS - 1)
    return np.array([np.median(values[which == n]) if (which == n).any() else np.nan for n in range(BINS)]), which


def column(table: "pl.DataFrame", key: str) -> Any:
    """A column as float64."""
    return table[key].to_numpy().astype("f8")


def by_level(which: Any, size: int, score: Any, share: float = 0.5) -> Any:
    """A quantile (the median) of the score at each level; nan where no lane has a figure."""
    known = ~np.isnan(score)
    return np.array([np.quantile(score[mine], share) if (mine := known & (which == n)).any() else np.nan
                     for n in range(size)])  # fmt: skip


def sensitivity(table: "pl.DataFrame", keys: Sequence[str], goal: str) -> dict[str, float]:
    """How much of the variance of the objective each axis explains by itself: Var(E[y | x]) / Var(y).

    Source: I. M. Sobol, Global sensitivity indices for nonlinear mathematical models, 2001 (first order).
    """
    score = column(table, goal)
    known = np.isfinite(score)
    total = float(np.var(score[known])) if known.any() else 0.0
    found = {}
    for key in keys:
        names, which = levels(column(table, key))
        means = [(score[m].mean(), m.sum()) for n in range(len(names)) if (m := known & (which == n)).any()]
        values, weights = (np.array(x, "f8") for x in zip(*means, strict=True)) if means else (np.zeros(1), np.ones(1))
        centre = np.average(values, weights=weights)
        found[key] = float(np.average((values - centre) ** 2, weights=weights)) / total if total > 0 else 0.0
    return found


def break_even(table: "pl.DataFrame", key: str, others: Sequence[str]) -> tuple[str, float]:
    """Where the best lane stops earning as one assumption worsens, in words and as a number (nan: nowhere seen).

    Along lanes that agree with the best one in all other axes; where there are none, along the median of all lanes.
    """
    best, same = table.row(0, named=True), np.ones(table.height, bool)
    for other in others:
        same &= (table[other] == best[other]).to_numpy()
    x, y = column(table, key), column(table, "total_return")
    whose = "The best lane"
    if len(np.unique(x[same])) < 2:
        whose, (x, which) = "The median lane", levels(x)
        y = by_level(which, len(x), y)
    else:
        x, y = x[same], y[same]
    order = np.argsort(x)
    x, y = x[order][~np.isnan(y[order])], y[order][~np.isnan(y[order])]
    name = short(key)
    if len(x) < 2:
        return f"{name}: too few lanes to tell where the edge dies.", np.nan
    cross = np.flatnonzero((y[:-1] > 0) & (y[1:] <= 0))
    if len(cross):
        n = cross[0]
        at = float(x[n] + (x[n + 1] - x[n]) * y[n] / (y[n] - y[n + 1]))
        return f"{whose} breaks even at {name} = {at:.3g}.", at
    words = f"still earns at {name} = {x[-1]:g}" if y[-1] > 0 else f"earns nothing from {name} = {x[0]:g} on"
    return f"{whose} {words}.", np.nan


def edges(about: Mapping[str, Any], table: "pl.DataFrame") -> list[str]:
    """One sentence for each swept assumption about the venue."""
    keys = axes_of(about, table)
    return [break_even(table, k, [o for o in about["axes"] if o != k])[0] for k in keys if k.startswith("venue.")]


def matrix(table: "pl.DataFrame", first: str, second: str, goal: str) -> tuple[Any, Any, Any]:
    """Levels of two axes and the median objective of each pair, (second, first)."""
    (xs, of_x), (ys, of_y) = levels(column(table, first)), levels(column(table, second))
    cells = by_level(of_y * len(xs) + of_x, len(xs) * len(ys), column(table, goal))
    return xs, ys, cells.reshape(len(ys), len(xs))


def charts(about: Mapping[str, Any], table: "pl.DataFrame") -> list[dict[str, Any]]:
    """Plotly specifications: heat map and surface over the two axes that matter most, parallel coordinates, axes."""
    goal, keys, less = objective(about), axes_of(about, table), minimised(about)
    shares = sensitivity(table, keys, goal)
    keys = sorted(keys, key=lambda k: -shares[k])
    name, found = LABELS.get(goal, goal), pareto(about, table)
    if len(keys) >= 2:
        x, y, cells = matrix(table, keys[0], keys[1], goal)
        spec = {"x": plain(x), "y": plain(y), "z": [plain(row) for row in cells],
                "colorscale": SCALE, "reversescale": less}  # fmt: skip
        titles = {f"{side}axis": {**axis(short(key)), **({"tickvals": plain(at)} if len(at) <= TICKS else {})}
                  for side, key, at in zip("xy", keys, (x, y), strict=False)}  # fmt: skip
        margins = {"hovermode": "closest", "margin": {"l": 64, "r": 16, "t": 28, "b": 48}}
        found.append({"title": f"{name}, median over all other axes", "layout": layout(**titles, **margins),
                      "data": [{"type": "heatmap", **spec, "hoverongaps": False}]})  # fmt: skip
        scene: dict[str, Any] = {f"{a}axis": {"title": {"text": t}}
                                 for a, t in zip("xyz", (*map(short, keys[:2]), name), strict=True)}  # fmt: skip
        scene["camera"] = {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.15}}
        found.append({"title": "Surface", "layout": layout(scene=scene, **margins),
                      "data": [{"type": "surface", **spec, "showscale": False}]})  # fmt: skip
    for key in keys:
        x, which = levels(column(table, key))
        score = column(table, goal)
        lines = [{"type": "scatter", "mode": "lines+markers", "x": plain(x), "name": text, "line": {"color": color},
                  "y": plain(by_level(which, len(x), score, 1 - share if less else share))}
                 for text, share, color in QUANTILES]  # fmt: skip
        found.append({"title": f"{name} by {short(key)}: explains {shares[key]:.0%} of its variance", "data": lines,
                      "layout": layout(xaxis=axis(short(key)), yaxis=axis(name),
                                       margin={"l": 64, "r": 16, "t": 24, "b": 48})})  # fmt: skip
    rows = np.unique(np.concatenate((np.arange(min(LINES, table.height)),
                                     np.linspace(0, table.height - 1, LINES).astype("i8"))))  # fmt: skip
    few, score = table[rows], column(table, goal)[rows]
    some = few[[k for k in [*keys, goal] if few[k].is_not_null().all()]].to_dict(as_series=False)
    dimensions = [{"label": short(k), "values": plain(np.array(v, "f8"))} for k, v in some.items()]
    color = {"color": plain(np.nan_to_num(score)), "colorscale": SCALE, "reversescale": less}
    found.append({"title": "Lanes: the best thousand and a thousand of all",
                  "layout": layout(margin={"l": 64, "r": 64, "t": 56, "b": 32}),
                  "data": [{"type": "parcoords", "dimensions": dimensions, "line": color}]})  # fmt: skip
    return [{"id": f"chart{n}", **chart} for n, chart in enumerate(found)]


def whole(about: Mapping[str, Any]) -> str:
    """What was swept, on which data and dates, and what of it was tested on data that the choice had not seen."""
    data, tests, objectives = about["data"], about["verdict"]["tested"], about["objectives"]
    some = data["instruments"]
    named = ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")
    tested = (f"tested out of sample by {about['verdict']['split'].replace('_', '-')} from {tests[0]} to {tests[1]}"
              if tests else "no span was tested out of sample")  # fmt: skip
    return (f"{about['strategy']} on {data['name']} ({named}), {data['first']} to {data['last']}: {about['lanes']:,} "
            f"lanes by {', '.join(objectives)}; {tested}.")  # fmt: skip


def pareto(about: Mapping[str, Any], table: "pl.DataFrame") -> list[dict[str, Any]]:
    """Of several objectives the first two against each other, with the lanes that no other beats in all."""
    if "front" not in table.columns:
        return []
    names = [o.removeprefix("-") for o in about["objectives"][:2]]
    best, rest = table.filter(table["front"]).sort(names[0]), table.filter(~table["front"])[: 2 * LINES]
    data = [{"type": "scatter", "mode": mode, "name": name, "marker": {"color": color, "size": size},
             "x": plain(column(part, names[0])), "y": plain(column(part, names[1]))}
            for part, mode, name, color, size in ((rest, "markers", "other lanes", GREY, 4),
                                                  (best, "lines+markers", "front", BLUE, 8))]  # fmt: skip
    titles = {"xaxis": axis(LABELS.get(names[0], names[0])), "yaxis": axis(LABELS.get(names[1], names[1]))}
    return [{"title": f"Pareto front: {best.height:,} lanes that no other beats in every objective", "data": data,
             "layout": layout(**titles, hovermode="closest", margin={"l": 64, "r": 16, "t": 8, "b": 48})}]  # fmt: skip


def lead(about: Mapping[str, Any], table: "pl.DataFrame") -> str:
    """What one should know first: the figure out of sample, how likely the rest is luck, where the edge dies."""
    return " ".join([about["verdict"]["text"], *edges(about, table)])


def rows_of(about: Mapping[str, Any], table: "pl.DataFrame", count: int) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the best lanes."""
    goal = objective(about)
    names = [k for s in about["structures"] for k in s["names"]]
    keys = [*dict.fromkeys(names), *about["axes"]]
    shown = list(dict.fromkeys([goal, *(o.removeprefix("-") for o in about["objectives"]), *SHOWN]))
    front = ["front"] if "front" in table.columns else []
    head = ["rank", *front, *map(short, keys), *(LABELS.get(k, k) for k in shown)]
    cells = [[str(n), *("*" if row[k] else "" for k in front), *(value(row[k]) for k in keys),
              *(figure(row, k) if k in LABELS else value(row[k]) for k in shown)]
             for n, row in enumerate(table.head(count).to_dicts(), 1)]  # fmt: skip
    return head, cells


def value(given: Any) -> str:
    """A value of an axis."""
    return f"{given:.6g}" if isinstance(given, float) else "–" if given is None else str(given)


def lane_name(result: Any, about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What tells a lane from the others of its sweep: the value of each axis, the default included."""
    keys = [*dict.fromkeys(k for s in about["structures"] for k in s["names"]), *about["axes"]]
    return " ".join([", ".join(result.strategies), *(f"{short(k)}={value(row[k])}" for k in keys)])


def lanes_text(about: Mapping[str, Any], table: "pl.DataFrame", count: int) -> str:
    """The best lanes as a table for a terminal."""
    head, cells = rows_of(about, table, count)
    wide = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, wide, strict=True)) for row in [head, *cells])


def note(about: Mapping[str, Any], table: "pl.DataFrame") -> str:
    """The description of the run in the tracker, Markdown."""
    head, cells = rows_of(about, table, 5)
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells]]
    return f"{lead(about, table)}\n\n" + "\n".join(lines)


def write(about: Mapping[str, Any], table: "pl.DataFrame", folder: Path) -> None:
    """sweep.html, one page that needs no network, and sweep.png."""
    from string import Template

    from plotly.offline import get_plotlyjs

    drawn = charts(about, table)
    data = json.dumps(drawn, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    head, cells = rows_of(about, table, 20)
    rows = ["".join(f"<th>{escape(c)}</th>" for c in head),
            *("".join(f"<td>{escape(c)}</td>" for c in r) for r in cells)]  # fmt: skip
    places = "".join(f'<h2>{escape(c["title"])}</h2><div class="chart" id="{c["id"]}"></div>' for c in drawn)
    title = f"Sweep of {about['strategy']} over {', '.join(map(short, about['axes']))} on {about['data']['name']}"
    told = about["verdict"]
    rest = " ".join([told["text"].removeprefix(told["lead"]), *edges(about, table)])
    text = Template(PAGE).substitute(title=escape(title), about=escape(whole(about)), lead=escape(told["lead"]),
                                     rest=escape(rest), data=data, charts=places,
                                     table="<table>" + "".join(f"<tr>{r}</tr>" for r in rows) + "</table>",
                                     plotly=get_plotlyjs())  # fmt: skip
    (folder / "sweep.html").write_text(text, encoding="utf-8")
    _image(about, table, folder / "sweep.png")


def _image(about: Mapping[str, Any], table: "pl.DataFrame", path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    goal, keys = objective(about), axes_of(about, table)
    shares = sensitivity(table, keys, goal)
    keys = sorted(keys, key=lambda k: -shares[k])[:2]
    canvas = FigureCanvasAgg(Figure(figsize=(14, 6), dpi=100, layout="constrained"))
    left, right = canvas.figure.subplots(1, 2)
    if len(keys) == 2:
        x, y, cells = matrix(table, keys[0], keys[1], goal)
        drawn = left.pcolormesh(x, y, cells, cmap=SCALE.lower() + ("_r" if minimised(about) else ""), shading="nearest")
        canvas.figure.colorbar(drawn, ax=left)
        left.set(xlabel=short(keys[0]), ylabel=short(keys[1]), title=f"{LABELS.get(goal, goal)}, median")
    for key in keys:
        names, which = levels(column(table, key))
        place = (names - names[0]) / max(names[-1] - names[0], 1e-300)
        right.plot(place, by_level(which, len(names), column(table, goal)),
                   label=f"{short(key)} {names[0]:g} to {names[-1]:g}")  # fmt: skip
    if keys:
        right.legend(frameon=False)
    right.set(title=f"{LABELS.get(goal, goal)} along each axis", xlabel="from its lowest to its highest value")
    canvas.figure.savefig(path, format="png")
