"""The gate, by a table of what must not pass, and compiled against uncompiled; and what keeps what it sets aside."""

import base64
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from engine.kernel import codes
from engine.live import gate
from engine.live.gate import Admission
from engine.live.quarantine import Quarantine
from tests.live.events import BASE, events, quote, quotes, same

NOW = BASE + 10**9


def judged(rows: Any, admission: Admission) -> tuple[Any, list[int]]:
    """What passed, and the reasons of what did not."""
    rows = rows.view("V64").copy().view(rows.dtype)
    rows["recv"] = 2  # the line that they came on
    kept = admission(rows.ctypes.data, len(rows), NOW)
    count, aside = admission.refused()
    spoiled = (aside["kind"] == codes.DEPTH) & (aside["recv"] != gate.INSTRUMENT)  # each leaves a gap
    assert kept + count == len(rows) + spoiled.sum()
    market = rows[:kept][rows["kind"][:kept] != codes.GAP]
    shown = admission.shown
    assert shown[2, market["instrument"]].all() and not shown[:2].any() and not shown[3:].any()
    return rows[:kept], aside["recv"].tolist()


def after_a_quote(change: dict[str, Any]) -> Any:
    """A good quote, then one with a change."""
    rows = quotes(2)
    for name, value in change.items():
        rows[1][name] = value
    return rows


@pytest.mark.parametrize(("change", "why"), [
    ({"bid": 10.01}, 0), ({"kind": codes.REPORT}, gate.KIND), ({"kind": codes.COMMAND}, gate.KIND),
    ({"kind": codes.CORRECTION}, gate.KIND), ({"kind": 0}, gate.KIND), ({"kind": 200}, gate.KIND),
    ({"instrument": 3}, gate.INSTRUMENT), ({"instrument": 0xFFFFFFFF}, gate.INSTRUMENT),
    ({"bid": math.nan}, gate.PRICE), ({"ask": math.inf}, gate.PRICE), ({"bid": -1.0}, gate.PRICE),
    ({"ask_volume": -1.0}, gate.PRICE), ({"bid": 0.0, "bid_volume": 0.0}, 0), ({"ts": BASE - 1}, gate.LATE),
    ({"ts": BASE}, 0), ({"ts": NOW + 61 * 10**9}, gate.EARLY), ({"bid": 100.0, "ask": 101.0}, gate.ABSURD),
    ({"kind": codes.TRADE, "price": 0.0, "traded": 1.0, "side": 1}, gate.PRICE),
    ({"kind": codes.TRADE, "price": 10.0, "traded": 1.0, "side": 2}, gate.PRICE),
    ({"kind": codes.TRADE, "price": 10.0, "traded": 1.0, "side": 0, "ts": BASE - 1}, 0),
    ({"kind": codes.DEPTH, "price": 10.0, "traded": 0.0, "side": 0}, gate.PRICE),
    ({"kind": codes.BAR, "open": 10.0, "high": 11.0, "low": 10.5, "close": 10.7, "volume": 1.0}, gate.PRICE),
    ({"kind": codes.SPLIT, "amount": 0.0}, gate.PRICE), ({"kind": codes.FUNDING, "amount": -0.1}, 0),
    ({"kind": codes.GAP}, 0),
])  # fmt: skip
def test_what_passes(change: dict[str, Any], why: int) -> None:
    rows = after_a_quote(change)
    passed, reasons = judged(rows, Admission(3, 0.0, 60.0, 0.5))
    assert reasons == ([why] if why else [])
    if why and change.get("kind") == codes.DEPTH:
        assert passed["kind"].tolist() == [codes.QUOTE, codes.GAP] and passed["amount"][1] == 1.0
    else:
        assert same(passed, rows[: 1 if why else 2])


def test_a_second_absurd_price_that_agrees_is_the_new_truth() -> None:
    admission = Admission(3, 0.0, 60.0, 0.5)
    prices = [10.0, 100.0, 10.0, 100.0, 101.0, 102.0, 10.0]
    rows = np.concatenate([quote(n, 0, p, p).view("V64") for n, p in enumerate(prices)]).view(quote().dtype)
    passed, reasons = judged(rows, admission)
    assert passed["bid"].tolist() == [10.0, 10.0, 101.0, 102.0] and reasons == [gate.ABSURD] * 3
    admission.forget()
    assert judged(quote(-5, 0, 1.0, 1.0), admission)[1] == []


def test_a_split_moves_the_price_and_limits_can_be_off() -> None:
    split = quote(1)
    split[0]["kind"], split[0]["amount"] = codes.SPLIT, 4.0
    rows = np.concatenate([r.view("V64") for r in (quote(0), split, quote(2, 0, 2.5, 2.5))]).view(quote().dtype)
    assert judged(rows, Admission(3, 0.0, 60.0, 0.5))[1] == []
    late = after_a_quote({"ts": BASE - 10**9, "bid": 1000.0})
    assert judged(late, Admission(3, math.inf, math.inf, math.inf))[1] == []


@given(rows=events())
def test_compiled_is_uncompiled(rows: Any) -> None:
    rows["volume"][::3] *= -1
    rows["ts"][::4] -= 50
    both = [judged(rows, Admission(3, 0.0, 60.0, 0.5, compiled=one)) for one in (True, False)]
    assert both[0][1] == both[1][1]
    assert same(both[0][0], both[1][0])


def test_quarantine_tells_once_and_keeps_what_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "aside" / "quarantine.jsonl"
    kept = Quarantine(path, limit=600)
    with caplog.at_level(logging.WARNING, "tandem.live"):
        for n in range(20):
            kept.put("malformed", "md.a.raw", "too short", bytes([n]) * 3)
        kept.put("schema", "md.b.raw", "version 9", b"x")
    kept.close()
    assert kept.counts == {"malformed": 20, "schema": 1}
    told = [r.getMessage() for r in caplog.records]
    assert len([t for t in told if "malformed" in t]) == 1 and len([t for t in told if "is full" in t]) == 1
    assert "md.a.raw" in told[0] and "too short" in told[0] and str(path) in told[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert 3 <= len(lines) <= 8 and base64.b64decode(lines[2]["payload"]) == b"\x02" * 3
    assert path.stat().st_size < 600 + 300
