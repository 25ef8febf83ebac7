"""On the same quotes and trades, with the same latencies and its conservative queue, hftbacktest fills what we fill.

Orders are scripted, one after another, so that no fill changes what is sent next. Compared are, order by order, the
fills: time at the venue (exact, in ns), lots (exact), price in ticks (exact; hftbacktest tells the last one of several
at a moment), maker or taker.

* The plain script has orders of one lot, never behind the touch: all fills are equal, and so is the account (1e-9).
* The wild script has sizes, kinds and prices of all sorts. Where an order ends otherwise, a rule of `resting.RULES`
  explains it: plain Python (`resting.becomes`) gives our fills with all switches off, for every order, and theirs with
  the fewest switches on that do. A fill that no rule explains fails the test.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest.run import prepare
from bench.peers.__main__ import PINS, python, ready
from engine.kernel import codes
from engine.store import import_ticks, open_tape
from engine.store.market import market_tape
from engine.store.tape import ROW, Tape, frozen
from tests.world import resting
from tests.world.resting import RULES, Asked, Fill, becomes, by_time
from tests.world.sources import REAL

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ORDER_NS, REPORT_NS = 1_700_003, 2_300_011  # no arrival at the very moment of an event
MAKER, TAKER = -0.5, 4.0  # bps
CASH = {"plain": 1e4, "wild": 1e9}  # little, where the last digits of the account are compared
WORST = 0.08  # share of the orders of a wild script that may end otherwise


@dataclass(frozen=True)
class Side:
    """What one engine did: fills of each order, and its account."""

    fills: dict[int, list[Fill]]
    position: float
    cash: float
    fee: float


def usable(tape: Tape) -> Tape:
    """Quotes and trades alone; the venue's clock never goes back, and nothing arrives before it happened."""
    keep = np.isin(tape.events["kind"], (codes.QUOTE, codes.TRADE))
    keep &= (tape.events["kind"] == codes.TRADE) | (
        (tape.events["bid"] > 0) & (tape.events["ask"] > tape.events["bid"])
    )
    events = tape.events.view(ROW)[keep].copy().view(tape.events.dtype)
    events["ts"] = np.maximum.accumulate(events["ts"])
    events["recv"] = np.maximum(np.maximum.accumulate(events["recv"]), events["ts"])
    first = int(np.argmax(events["kind"] == codes.QUOTE))
    return Tape(frozen(events[first:]), tape.instruments, "0" * 64, tape.name)


def synthetic() -> Tape:
    return usable(market_tape(200_000, seed=1))


def binance(name: str) -> Tape:
    if not REAL.is_dir():
        pytest.skip("no recorded market data beside the repository, only the synthetic market is compared")
    where = import_ticks(
        name.split("/")[0], REAL / "binance_ws" / name, vendor="binance_ws", recv_shift="auto", overwrite=True
    )
    return usable(open_tape(where))


TAPES = {"synthetic": synthetic, "usdm": lambda: binance("usdm/btcusdt_20240808.gz"),
         "spot": lambda: binance("spot/btcusdt_20240808.gz")}  # fmt: skip


def ours(tape: Tape, asked: list[Asked], cash: float) -> Side:
    """Our run, through the compiled loop."""
    info = tape.instruments[0]
    prepared = prepare(
        resting.Scripted(), tape, cash=cash, leverage=1e9, self_match=False, queue="back", order_ms=ORDER_NS / 1e6,
        report_ms=REPORT_NS / 1e6, maker_bps=MAKER, taker_bps=TAKER,
    )  # fmt: skip
    drive = prepared.drive()
    state: Any = drive.machine.state(0)
    resting.fill_tables(state, asked, info.tick, info.lot)
    assert drive.advance() == 0
    result = prepared.result(drive.outputs(), drive, 0.0)
    ids = {state.ids[2 * n]: n for n in range(len(asked))}
    assert len(ids) == len(asked)
    assert set(result.refusals["reason"]) <= {"unknown_order"}  # to cancel what is filled already
    columns, maker = result.fill_columns, result.executions.maker
    ticks = np.rint(columns.price / info.tick).astype("i8")
    np.testing.assert_allclose(ticks * info.tick, columns.price, rtol=1e-12)
    fills: dict[int, list[Fill]] = {n: [] for n in range(len(asked))}
    for order, *fill in zip(columns.order_id.tolist(), columns.ts.tolist(), ticks.tolist(),
                            np.abs(columns.lots).tolist(), maker.tolist(), strict=True):  # fmt: skip
        fills[ids[order]].append((fill[0], fill[1], fill[2], fill[3]))
    k = drive.machine.kernel
    return Side(fills, float(columns.lots.sum()) * info.lot, k.cash - cash, k.fees)


def job(tape: Tape, asked: list[Asked], folder: Path) -> dict[str, Any]:
    """What the peer is told."""
    m, info = resting.market(tape.events, tape.instruments[0].tick, tape.instruments[0].lot), tape.instruments[0]
    columns = {name: np.array(getattr(m, name)) for name in ("ts", "recv", "trade", "bid", "ask", "side")}
    volumes = {name: np.array(getattr(m, name)) * info.lot for name in ("bid_volume", "ask_volume")}
    np.savez(folder / "events.npz", **columns, **volumes)
    rows: list[tuple[Any, ...]] = []
    for n, one in enumerate(asked):
        rows.append((m.recv[one.sent], 1, n + 1, one.side, one.price * info.tick, one.qty * info.lot, one.kind))
        rows.append((m.recv[one.ended], 0, n + 1, one.side, 0.0, 0.0, one.kind))
    names, kinds = ("at", "action", "id", "side", "price", "qty"), list(resting.KINDS)
    script = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
    np.savez(folder / "script.npz", **script, kind=np.array([kinds.index(row[6]) for row in rows]))
    return {"events": str(folder / "events.npz"), "script": str(folder / "script.npz"), "kinds": kinds,
            "tick": info.tick, "lot": info.lot, "order_ns": ORDER_NS, "report_ns": REPORT_NS,
            "maker": MAKER / 1e4, "taker": TAKER / 1e4}  # fmt: skip


@pytest.fixture(scope="module", params=list(TAPES))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The market, the two scripts, and what both engines did with them."""
    if not ready("hftbacktest"):
        text = "no environment of hftbacktest; build it with: python -m bench.peers hftbacktest"
        if os.environ.get("CI"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    folder = tmp_path_factory.mktemp("hft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_DATA", str(folder / "data"))
        tape = TAPES[request.param]()
        info = tape.instruments[0]
        m = resting.market(tape.events, info.tick, info.lot)
        answer = ORDER_NS + REPORT_NS
        asked = {"plain": resting.script(m, 1, True, answer), "wild": resting.script(m, 2, False, answer)}
        jobs = {}
        for name, orders in asked.items():
            (folder / name).mkdir()
            jobs[name] = job(tape, orders, folder / name)
        (folder / "job.json").write_text(json.dumps(jobs))
        command = [str(python("hftbacktest")), str(HERE / "peer_hftbacktest.py"), str(folder / "job.json"),
                   str(folder / "out.json")]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads((folder / "out.json").read_text())
        assert f"hftbacktest=={told['version']}" in (PINS / "hftbacktest.txt").read_text().splitlines()
        yield {"name": request.param, "market": m, "info": info, "asked": asked,
               "ours": {name: ours(tape, orders, CASH[name]) for name, orders in asked.items()},
               "theirs": {name: theirs(told["cases"][name], info.lot, len(asked[name])) for name in asked}}  # fmt: skip


def theirs(told: dict[str, Any], lot: float, count: int) -> Side:
    """What the peer told."""
    fills: dict[int, list[Fill]] = {n: [] for n in range(count)}
    for order, ts, price, qty, maker in told["fills"]:
        fills[order - 1].append((ts, price, round(qty / 1e8 / lot), bool(maker)))
    return Side(fills, told["position"], told["balance"], told["fee"])


def same(mine: list[Fill], found: list[Fill]) -> bool:
    """Equal in time and lots; in price and role too, but of several fills at one moment they tell the last only."""
    last = {fill[0]: fill for fill in mine}
    return by_time(mine) == by_time(found) and all(
        fill[1] == last[fill[0]][1] and fill[3] == last[fill[0]][3] for fill in found
    )


def test_plain_orders_are_filled_alike(both: dict[str, Any]) -> None:
    """But for those that the market has left behind while they were under way; without any, the accounts are equal."""
    m, mine, found, asked = both["market"], both["ours"]["plain"], both["theirs"]["plain"], both["asked"]["plain"]
    other = [n for n in mine.fills if not same(mine.fills[n], found.fills[n])]
    for n in other:
        assert explained(asked[n], m, found.fills[n]) == ("behind",), (asked[n], mine.fills[n], found.fills[n])
    assert len(other) <= 0.005 * len(asked)
    assert sum(map(len, mine.fills.values())) > len(asked) / 3
    assert {fill[3] for fills in mine.fills.values() for fill in fills} == {True, False}
    print(
        f"\n{both['name']}: {len(asked)} plain orders, {sum(map(len, mine.fills.values()))} fills; {len(other)} other"
    )
    if not other:
        assert mine.position == pytest.approx(found.position, abs=1e-9)
        assert mine.fee == pytest.approx(found.fee, rel=1e-9)
        assert mine.cash == pytest.approx(found.cash - found.fee, rel=1e-9)


def explained(o: Asked, m: resting.Market, found: list[Fill]) -> tuple[str, ...] | None:
    """The fewest rules that turn our fills into theirs."""
    for count in (1, 2):
        for rules in combinations(RULES, count):
            if same(becomes(o, m, ORDER_NS, frozenset(rules)), found):
                return rules
    return None


def test_every_other_fill_has_its_rule(both: dict[str, Any]) -> None:
    m, asked, mine, found = both["market"], both["asked"]["wild"], both["ours"]["wild"], both["theirs"]["wild"]
    plain = [(n, one, mine.fills[n]) for n, one in enumerate(asked)
             if becomes(one, m, ORDER_NS, frozenset()) != mine.fills[n]]  # fmt: skip
    assert not plain, f"{len(plain)} orders end otherwise than the page of plain Python says: {plain[:3]}"
    counts: Counter[str] = Counter()
    for n, one in enumerate(asked):
        if same(mine.fills[n], found.fills[n]):
            counts["equal"] += 1
            continue
        rules = explained(one, m, found.fills[n])
        assert rules, f"order {n} of {both['name']}: {one}: we {mine.fills[n]}, they {found.fills[n]}"
        counts.update([" + ".join(rules)])
    print(f"\n{both['name']}: {len(asked)} orders, {sum(map(len, mine.fills.values()))} fills; {dict(counts)}")
    assert counts["equal"] >= (1 - WORST) * len(asked)
