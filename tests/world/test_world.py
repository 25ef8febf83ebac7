"""With the same rules the fills and the final equity are those of backtesting.py and of vectorbt.

The same rules: decisions at the close, market orders filled at the next open, a proportional fee, a fixed quantity.
The indicators of the others are their own or pandas'; nothing of ours runs in their process.

What is compared
* Fills, by bar: time, side, quantity in lots (all exact) and price (1e-12). backtesting.py reverses a position by
  closing it and opening another, at the same price: its fills of one bar and price are added up.
* Final equity to 1e-9, with the position that is still open marked at the last close. (backtesting.py would close it
  at the open of the last bar with `finalize_trades`, a price from before the decision; it is left off.)

Ties. Where prices lie on a coarse grid, two averages are often equal (NEAR: 110 of 40,320 minutes for 5 and 20), and
which one rounding makes the larger is chance, in every engine. So where a decision hangs on a tie of `Momentum`, the
two fills that it may cause are left out, and only those: the ties are found in integers, from the decimals of the
prices. And the same cross is compared with a rule that no rounding can turn (`Banded`), nothing left out.
That no other decision was near its threshold is asserted too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backtest import backtest
from backtest.result import Result
from bench.peers.__main__ import PINS
from engine.kernel import codes
from tests.world.rules import BAND, Case
from tests.world.sources import SOURCES, Source

pytestmark = pytest.mark.slow

NOISE = 1e-11  # how near to its threshold a decision may not come, relative (averages) or in points (RSI)
PEERS = ("backtesting", "vectorbt")
TIED = ("MSFT", "ftx-minutes", "link-minutes", "near-minutes", "bac-minutes")


def of(name: str, rule: str, **rest: Any) -> Case:
    """A case with the quantity that suits the instrument: 10 units, or 0.123 where there are fractions."""
    fraction = name in ("ftx-minutes", "link-minutes", "near-minutes")
    return Case(name, rule, *((123, 1e-3) if fraction else (10, 1.0)), **rest)


MARKET = [of(name, rule, short=short) for name in SOURCES for rule in ("cross", "rsi") for short in (False, True)]
MARKET += [of(name, "cross", short=short, band=BAND) for name in TIED for short in (False, True)]
# These accounts can pay ten units at times only. Of an order that the last close shows to be too large the kernel says
# so before it is sent, so the rule for backtesting.py does the same; at the open the venues decide.
CASH = {"GOOG": 1_500.0, "IBM": 800.0}  # no series with exact ties of averages: a path of cash never forgets one
POOR = [of(name, "cross", cash=cash, checked=True) for name, cash in CASH.items()]
WORKING = [
    of(name, rule, length=10) for name in ("AAPL", "IBM", "MSFT", "goog-daily", "nvda-daily", "bac-minutes")
    for rule in ("bracket", "fade", "reverse")
]  # fmt: skip
JOBS = {"backtesting": [*MARKET, *POOR, *WORKING], "vectorbt": MARKET}
RUNS: dict[str, Result] = {}

Fills = list[tuple[int, int, float]]
Ask = Callable[[str, list[Case]], dict[str, Any]]


def ours(case: Case, source: Source, **venue: Any) -> Result:
    """Our run of a case; kept, as several tests look at it."""
    if case.id not in RUNS:
        bps = case.fee * 1e4
        given = {"cash": case.cash, "taker_bps": bps, "maker_bps": bps, **source.options, **venue}
        RUNS[case.id] = backtest(case.strategy(), source.data, **given)
    return RUNS[case.id]


def net(fills: list[list[float]], lot: float) -> Fills:
    """Fills as (bar, signed lots, price), in order; those of one bar, price and side are one."""
    merged: list[list[Any]] = []
    for bar, units, price in sorted(fills, key=lambda fill: (fill[0], fill[2], fill[1])):
        lots = round(units / lot)
        assert units == pytest.approx(lots * lot, rel=1e-12)
        last = merged[-1] if merged else None
        if last and last[0] == bar and abs(last[2] - price) <= 1e-12 * price and last[1] * lots > 0:
            last[1] += lots
        else:
            merged.append([bar, lots, price])
    return [(bar, lots, price) for bar, lots, price in merged]


def at_opens(result: Result, source: Source) -> Fills:
    """Our fills; each must carry the very time at which its bar opened."""
    opens, fills = source.bars["opened"], result.fill_columns
    bars = np.searchsorted(opens, fills.ts)
    np.testing.assert_array_equal(opens[bars], fills.ts)
    return list(zip(bars.tolist(), fills.lots.tolist(), fills.price.tolist(), strict=True))


def equal(mine: Fills, theirs: Fills) -> None:
    """Exact in bar, side and quantity, to 1e-12 in price."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    wrong = next((f"fill {i}: we {a}, they {b}" for i, (a, b) in pairs if a[:2] != b[:2]), "")
    assert not wrong, f"{wrong} (of {len(mine)} and {len(theirs)}; bar, lots, price)"
    assert len(mine) == len(theirs)
    np.testing.assert_allclose([f[2] for f in mine], [f[2] for f in theirs], rtol=1e-12)


def ties(case: Case, source: Source) -> set[int]:
    """Bars on which the two averages are equal, in integers: prices have at most eight decimals."""
    units = np.rint(source.bars["close"] * 1e8).astype("i8")
    np.testing.assert_allclose(units * 1e-8, source.bars["close"], rtol=1e-12)
    sums = np.concatenate(([0], np.cumsum(units)))
    slow = sums[case.slow :] - sums[: -case.slow]
    fast = (sums[case.fast :] - sums[: -case.fast])[case.slow - case.fast :]
    return set((np.flatnonzero(fast * (case.slow // case.fast) == slow) + case.slow - 1).tolist())


def decided_by(fills: Fills, ties: set[int]) -> Fills:
    """Without the fills that a tie can cause: a position hangs on the bar before, a fill on two positions."""
    return [fill for fill in fills if not {fill[0] - 1, fill[0] - 2} & ties]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", MARKET, ids=lambda case: case.id)
def test_market_orders(case: Case, peer: str, source: Callable[[str], Source], told: Ask) -> None:
    bars = source(case.bars)
    found = told(peer, JOBS[peer])["cases"][case.id]
    result = ours(case, bars)
    mine, theirs = at_opens(result, bars), net(found["fills"], case.lot)
    tied = ties(case, bars) if case.rule == "cross" and not case.band else set()
    assert len(tied) < len(mine) / 4
    assert bool(tied) <= (case.bars in TIED)
    assert tied or found["nearest"] > NOISE
    equal(decided_by(mine, tied), decided_by(theirs, tied))
    assert len(mine) >= 4
    if not tied:
        assert result.curve[1][-1] == pytest.approx(found["equity"], rel=1e-9)


@pytest.mark.parametrize("case", POOR, ids=lambda case: case.id)
def test_too_little_cash(case: Case, source: Callable[[str], Source], told: Ask) -> None:
    """An order for more than the account can pay is not filled, as a whole, and asked for again on the next bar."""
    bars = source(case.bars)
    found = told("backtesting", JOBS["backtesting"])["cases"][case.id]
    result = ours(case, bars)
    assert result.refusals.height > 0  # before they were sent
    assert (result.raw["reports"]["code"] == codes.REJECT).sum() > 0  # and at the open
    equal(at_opens(result, bars), net(found["fills"], case.lot))
    assert result.curve[1][-1] == pytest.approx(found["equity"], rel=1e-9)


@pytest.mark.parametrize("case", WORKING, ids=lambda case: case.id)
def test_working_orders(case: Case, source: Callable[[str], Source], told: Ask) -> None:
    """Limits and stops against backtesting.py, with `touch`, because its limits fill when they are touched.

    Where the rules differ, and what these strategies therefore avoid:
    * A limit that is only touched: filled there, not here unless `touch`; a touch does not say who was served.
    * A stop-limit whose stop the open has gapped through: filled there at the stop, a price that was not traded any
      more, here at the open. A stop-limit whose limit is better than its stop: there from the next bar on only, here
      in the same bar too when the close proves it.
    * A bar that opens at the target or beyond and falls to the stop: there the stop is filled, here the target, as the
      open came first. Such fills, and only such, may differ in price, and the equity by what they differ.
    * A stop or target set together with a market order (`sl=`, `tp=`) may be filled in the bar of the entry there;
      here an order that follows from a fill is sent at the close of the bar, as the strategy sees it only then.
    * An order without cash for it: both cancel it; at a reversal backtesting.py still closes the old position.
    """
    bars = source(case.bars)
    found = told("backtesting", JOBS["backtesting"])["cases"][case.id]
    # With bars that last 1 ns the time of a fill tells the bar, also where one bar opens as the last one closes.
    options = {**bars.options.get("open_options", {}), "instrument_info": {"bar_ns": 1}}
    result = ours(case, bars, touch=True, open_options=options)
    fills = result.fill_columns
    places = np.searchsorted(result.tape.events["ts"], fills.ts).tolist()
    units = (fills.lots * case.lot).tolist()
    mine = net([list(fill) for fill in zip(places, units, fills.price.tolist(), strict=True)], case.lot)
    theirs, gained = net(found["fills"], case.lot), 0.0
    if case.rule == "bracket":
        theirs, gained = with_targets_at_open(case, bars, mine, theirs)
    equal(mine, theirs)
    assert result.curve[1][-1] == pytest.approx(found["equity"] + gained, rel=1e-9)
    assert len(mine) >= 10


def with_targets_at_open(case: Case, source: Source, mine: Fills, theirs: Fills) -> tuple[Fills, float]:
    """Their fills, with the open in place of a stop that the bar reached after it had opened above; and what it earns.

    Only on the coarsest grid (a cent is the whole width of a bracket on BAC) does a bar see both.
    """
    moved, gained = [], 0.0
    for (bar, lots, price), (same, _, stop) in zip(mine, theirs, strict=False):
        low, opened = source.bars["low"][bar], source.bars["open"][bar]
        if same == bar and lots < 0 and price == opened and stop < price and stop >= low * (1 - 1e-12):
            moved.append((bar, lots, stop))
            gained += -lots * case.lot * (price - stop) * (1 - case.fee)
    assert len(moved) <= (50 if case.bars == "bac-minutes" else 0)
    prices = {(bar, lots, stop): source.bars["open"][bar] for bar, lots, stop in moved}
    return [(bar, lots, prices.get((bar, lots, price), price)) for bar, lots, price in theirs], gained


@pytest.mark.parametrize("peer", PEERS)
def test_versions_are_the_pinned_ones(peer: str, told: Ask) -> None:
    pins = (PINS / f"{peer}.txt").read_text().splitlines()
    assert f"{peer}=={told(peer, JOBS[peer])['version']}" in pins
