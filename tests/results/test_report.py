"""The report: self-contained, escaped, small, and with everything in it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.history import decimate
from backtest.report import notebook_figure, page

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """What a page loads, what it says, and whether its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.ids: dict[str, str] = {}
        self.texts: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = dict(attrs)
        self.loads += [found[k] for k in ("src", "href", "srcset", "data") if k in found]
        self.rows += tag == "tr"
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids[found["id"]] = ""
            self.last = found["id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and self.last == "data" and not self.ids["data"]:
            self.ids["data"] = data
        elif self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def parsed(text: str) -> Page:
    found = Page()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def test_page_loads_nothing_and_holds_everything(crossing: Any) -> None:
    result = crossing()
    text = page(result)
    found = parsed(text)
    assert found.loads == []
    own = re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.S)
    assert len(own) < 400_000, "plotly itself is not counted"
    assert not re.search(r"https?://|@import|url\(", own)
    words = " ".join(found.texts)
    for name in ("momentum fast=10 slow=50", "Sharpe", "Monthly returns", "daily loss", "risk.leverage", "abc123def4"):
        assert name in words
    charts = json.loads(found.ids["data"])
    assert [c["name"] for c in charts["prices"]] == ["I0", "I1"]
    assert len(charts["account"]["data"]) == 3
    assert charts["rolling"]["data"][0]["y"]
    assert sum(charts["distribution"]["data"][0]["y"]) == len(result.periods.returns)
    assert "$" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_nothing_breaks_out_of_the_page(book: Any) -> None:
    evil = '</script><script>alert("1")</script>&amp;'
    tape = book["tape"](book["walk"](80), infos=[book["info"](name=evil)])
    tape.name = evil
    fills = [book["fill"](5, 0, 3, 100.0), book["fill"](9, 0, -3, 101.0)]
    config = {"strategies": [{"class": evil, "params": {evil: evil}}]}
    result = book["run"](tape, fills, strategies=(evil,), config=config, identity={evil: evil})
    text = page(result)
    assert "<script>alert" not in text
    found = parsed(text)
    assert evil in "".join(found.texts)
    assert json.loads(found.ids["data"])["prices"][0]["name"] == evil
    assert "<script>alert" not in result._repr_html_()


def test_a_long_run_makes_a_small_page(book: Any) -> None:
    n = 200_000
    tape = book["tape"]([[1.0]])
    events = np.zeros(n, tape.events.dtype)
    events["ts"] = book["first"] + np.arange(n) * 60_000_000_000
    events["kind"], events["close"] = 1, book["walk"](n)[:, 0]
    tape.events = events
    result = book["run"](book["tape"]([[1.0]]), [])
    curve = np.zeros(n, result.raw["curve"].dtype)
    curve["ts"], curve["equity"] = events["ts"], 1e4 + np.arange(n) % 1000
    result.tape, result.raw["curve"] = tape, curve
    found = parsed(page(result))
    assert len(found.ids["data"]) < 700_000


def test_trades_are_capped_and_months_compound(crossing: Any) -> None:
    result = crossing(fast=1, slow=2, rows=1500)
    found = parsed(page(result))
    total = len(result.trips.pnl)
    assert total > 500
    assert any(f"The latest 500 of {total:,} trades" in t for t in found.texts)
    assert found.rows < 650


@given(st.lists(st.floats(-1e6, 1e6), max_size=500), st.integers(6, 60))
def test_thinning_keeps_ends_and_extremes(values: list[float], points: int) -> None:
    array = np.array(values)
    rows = decimate(array, points)
    assert (np.diff(rows) > 0).all()
    assert len(rows) <= max(points, 4)
    if values:
        assert (rows[0], rows[-1]) == (0, len(values) - 1)
        assert array[rows].max() == array.max()
        assert array[rows].min() == array.min()


def test_image_is_a_png_with_content(crossing: Any, tmp_path: Path) -> None:
    import matplotlib.image

    path = crossing().image(tmp_path / "report.png")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (1000, 1400)
    for part in (pixels[:450], pixels[450:600], pixels[600:]):
        assert part[..., :3].std() > 0.02, "a panel is empty"


def test_notebook_figure_has_three_panels(crossing: Any) -> None:
    figure = notebook_figure(crossing())
    assert {t.yaxis for t in figure.data} == {None, "y2", "y3"}
    assert figure.layout.height == 720


@pytest.mark.parametrize("splits", [True, False])
def test_prices_and_fills_are_told_in_the_same_units(book: Any, splits: bool) -> None:
    from backtest.report.charts import prices

    tape = book["tape"]([[100.0], [100.0], [50.0], [50.0]] if splits else [[50.0]] * 4,
                        actions=[(2, 0, 11, 2.0)] if splits else [])  # fmt: skip
    before = 100.0 if splits else 50.0
    result = book["run"](tape, [book["fill"](1, 0, 2, before), book["fill"](3, 0, -4 if splits else -2, 50.0)])
    chart = prices(result)[0]
    assert [y for trace in chart["data"] for y in trace["y"] if y is not None and y != 50.0] == []
    assert ("splits" in chart["note"]) is splits
