"""The twin: a journal's market events through the simulated venue, beside what really happened.

A replay asks whether the logic is the same; the twin asks whether the simulated venue is like the real one, and its
answer is numbers. Law: orders differ only after an execution report, a command or a correction has differed; so where
the venue is the one that was traded at, nothing differs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backtest.drive import Drive, SimulatedVenue, program, uncompiled
from engine.config import VenueModel
from engine.errors import DataError
from engine.journal import Journal
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import codes
from engine.plan import Find, Plan
from engine.replay import CHUNK, at_reloads, pieces, rebuilt
from engine.session import halt_error
from engine.store.tape import frozen

Rows = np.ndarray[Any, Any]
MARKET = (codes.BAR, codes.QUOTE, codes.TRADE, codes.DEPTH, codes.FUNDING, codes.SPLIT, codes.DIVIDEND)
TICKS = (codes.QUOTE, codes.TRADE, codes.DEPTH)


@dataclass(frozen=True)
class Side:
    """One of the two: counts, the share of the ordered lots that was filled, slippage (bps of the last price when the
    order was sent, worse is positive, weighted by lots), ms from order to first report, fees and gain in cash."""

    orders: int
    fills: int
    fill_ratio: float
    slippage_bps: float
    latency_ms: float
    fees: float
    gain: float


@dataclass(frozen=True)
class Twin:
    """What happened, and what the simulated venue makes of the same market.

    `same`: how many orders from the first on are equal byte for byte. `tracking_bps`: standard deviation of the
    difference of the two equities' changes over `points` stretches, in bps of the equity at the start.
    """

    happened: Side
    simulated: Side
    same: int
    tracking_bps: float
    points: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        words = {"orders": "Orders", "fills": "Fills", "fill_ratio": "Filled of the ordered lots",
                 "slippage_bps": "Slippage, bps", "latency_ms": "Order to report, ms, median", "fees": "Fees",
                 "gain": "Gain"}  # fmt: skip
        rows = [f"{'':<28}{'happened':>14}{'simulated':>14}"]
        for name, word in words.items():
            shown = (f"{getattr(side, name):>14,.4g}" if name.endswith(("ratio", "ms", "bps")) else
                     f"{getattr(side, name):>14,.2f}" if name in ("fees", "gain") else
                     f"{getattr(side, name):>14,}" for side in (self.happened, self.simulated))  # fmt: skip
            rows.append(f"{word:<28}" + "".join(shown))
        same = f"the first {self.same:,} orders are the same; tracking error {self.tracking_bps:.3g} bps "
        return "\n".join([*rows, f"{same}over {self.points} stretches", *self.notes])


def twin(folder: Path | str, find: Find, venue: VenueModel | None = None, *, exact: bool = True,
         points: int = 100) -> Twin:  # fmt: skip
    """Run a journal's market events through the simulated venue and compare.

    Raises JournalError, ImageError as `replay` does; DataError for a journal without market data; KernelHalted when
    the twin's kernel stops for another reason than a risk limit.
    """
    journal = Journal(folder)
    events, orders = journal.rows(EVENTS), journal.rows(ORDERS)
    market = frozen(events[np.isin(events["kind"], MARKET)].view("V64").copy().view(events.dtype))
    if not len(market):
        raise DataError(f"{journal.name} has no market data; there is nothing to simulate.")
    plan = Plan.of(journal.header, find, exact=exact)
    model = venue or VenueModel()
    ticks = bool(np.isin(market["kind"], TICKS).any())
    simulated = SimulatedVenue(plan.rows, plan.cash, model, plan.limits["leverage"], plan.sizes.orders, ticks)
    drive = Drive(plan.machine(), simulated, market, 0, False, program(ticks) if plan.compiled else uncompiled(ticks))
    if drive.advance() == codes.HALTED and drive.machine.kernel.halt != codes.HALT_RISK:
        raise halt_error(drive.machine)
    outputs = drive.outputs()
    times, curve, last = equities(journal, find, exact, max(1, len(events) // points))
    at = np.searchsorted(outputs.curve["ts"], np.array(times, np.int64), side="right") - 1
    other = np.where(at >= 0, outputs.curve["equity"][np.maximum(at, 0)], plan.cash)
    gaps = np.diff(np.concatenate([[0.0, 0.0], np.array(curve) - other]))
    reports = events[events["kind"] == codes.REPORT]
    k = drive.machine.kernel
    same = next((n for n, (a, b) in enumerate(zip(orders, outputs.orders, strict=False)) if a.tobytes() != b.tobytes()),
                min(len(orders), len(outputs.orders)))  # fmt: skip
    return Twin(side(plan, market, orders, reports, last - plan.cash),
                side(plan, market, outputs.orders, outputs.reports, k.cash + k.value - plan.cash), same,
                float(np.std(gaps)) / plan.cash * 1e4, len(curve), notes_of(journal, events))  # fmt: skip


def notes_of(journal: Journal, events: Rows) -> list[str]:
    """What the journal holds that the twin does not repeat."""
    words = {codes.COMMAND: "commands", codes.CORRECTION: "corrections", codes.GAP: "gaps", codes.TIMER: "timers"}
    counts = {word: int((events["kind"] == kind).sum()) for kind, word in words.items()}
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return [*([f"not repeated by the twin: {', '.join(said)}"] if said else []), *([journal.torn] * bool(journal.torn))]


def equities(journal: Journal, find: Find, exact: bool, stretch: int) -> tuple[list[int], list[float], float]:
    """Times and equities of what happened, at the end of a moment in about every `stretch` events; the last equity."""
    rerun, times, found = rebuilt(journal, find, exact), list[int](), list[float]()
    session, k = rerun.session, rerun.session.machine.kernel
    for piece in pieces(journal.blocks(), min(stretch, CHUNK)):
        rerun.reloads |= piece.reloads
        for events in at_reloads(piece.events):
            end = moment_end(events)
            for part, ended in ((events[:end], end > 0), (events[end:], False)):
                if not session.halted:
                    session.advance(part, closing=False)
                if ended:
                    times.append(k.ts)
                    found.append(k.cash + k.value)
            if len(events) and events["kind"][-1] == codes.COMMAND and events["code"][-1] == codes.RELOAD:
                rerun.put(rerun.reloads[int(events["order_id"][-1])])
    return times, found, k.cash + k.value


def moment_end(events: Rows) -> int:
    """Where the last moment of market data ends that is surely over among the events; 0 when none is."""
    market = np.isin(events["kind"], MARKET)
    over = (events["recv"][1:] > events["recv"][:-1]) | ~market[1:]
    ends = np.flatnonzero(market[:-1] & over)
    return int(ends[-1]) + 1 if len(ends) else 0


def side(plan: Plan, market: Rows, orders: Rows, reports: Rows, gain: float) -> Side:
    """The numbers of one side."""
    new = orders[orders["action"] == codes.NEW]
    fills = reports[reports["code"] == codes.FILL]
    by_id = np.argsort(new["id"], kind="stable")
    place = np.minimum(np.searchsorted(new["id"], fills["order_id"], sorter=by_id), max(len(new) - 1, 0))
    ours = new["id"][by_id[place]] == fills["order_id"] if len(new) else np.zeros(len(fills), bool)
    fills, order = fills[ours], new[by_id[place[ours]]] if len(new) else new
    before = last_prices(market, order["instrument"], order["ts"])
    good = before > 0.0
    lots = np.abs(fills["qty"])
    worse = (fills["price"] - before) * np.sign(fills["qty"])
    bps = worse[good] / before[good] * 1e4
    slippage = float(np.average(bps, weights=lots[good])) if good.any() else 0.0
    ordered = int(new["qty"].sum())
    return Side(len(orders), len(fills), float(lots.sum()) / ordered if ordered else 0.0, slippage,
                first_answer_ms(new, reports), float(fills["fee"].sum()), gain)  # fmt: skip


def first_answer_ms(new: Rows, reports: Rows) -> float:
    """Median of the time from sending an order to the first report about it."""
    ids, first = np.unique(reports["order_id"], return_index=True)
    at = np.searchsorted(ids, new["id"])
    known = np.flatnonzero(at < len(ids))
    known = known[ids[at[known]] == new["id"][known]]
    waits = reports["recv"][first[at[known]]] - new["ts"][known]
    return float(np.median(waits)) / 1e6 if len(waits) else 0.0


def last_prices(market: Rows, instruments: Rows, times: Rows) -> "np.ndarray[Any, Any]":
    """The last price of each instrument that was received by a time: middle of the quote, close, or trade; 0 = none."""
    found = np.zeros(len(times))
    quotes = market["kind"] == codes.QUOTE
    prices = np.select(
        [quotes, market["kind"] == codes.BAR], [0.5 * (market["bid"] + market["ask"]), market["close"]], 0.0
    )
    if not (prices > 0.0).any():
        prices = np.where(market["kind"] == codes.TRADE, market["price"], 0.0)
    for i in np.unique(instruments).tolist():
        rows = np.flatnonzero((market["instrument"] == i) & (prices > 0.0))
        mine = np.flatnonzero(instruments == i)
        at = np.searchsorted(market["recv"][rows], times[mine], side="right") - 1
        found[mine] = np.where(at >= 0, prices[rows[np.maximum(at, 0)]], 0.0) if len(rows) else 0.0
    return found
