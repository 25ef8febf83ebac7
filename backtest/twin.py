"""The twin: a journal's market events through the simulated venue, beside what really happened.

A replay asks whether the logic is the same; the twin asks whether the simulated venue is like the real one, and its
answer is numbers.

Law 1: the twin is given what the session was given: strategies, instruments, limits, cash, and, where the venue's model
       says nothing else, the time that orders and reports took (the median of the journal, half each way).
Law 2: orders differ only after an execution report, a command or a correction has differed; so where the venue is the
       one that was traded at, nothing differs. From there on the difference is measured, not explained away.
"""

from dataclasses import dataclass, field, replace
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
from engine.store.calendars import hours_of
from engine.store.tape import frozen

Rows = np.ndarray[Any, Any]
MARKET = (codes.BAR, codes.QUOTE, codes.TRADE, codes.DEPTH, codes.FUNDING, codes.SPLIT, codes.DIVIDEND)
SAME = ("instrument", "strategy", "action", "side", "type", "tif", "qty", "price", "stop")  # what an order asks for
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

    `same`: how many orders from the first on ask for the same. `round_trip_ms`: from an order to the first report about
    it, as measured. `tracking_bps`: standard deviation of the
    difference of the two equities' changes over `points` stretches, in bps of the equity at the start.
    """

    happened: Side
    simulated: Side
    same: int
    round_trip_ms: float
    tracking_bps: float
    points: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        words = {"orders": "Orders", "fills": "Fills", "fill_ratio": "Filled of what was ordered, %",
                 "slippage_bps": "Slippage, bps", "latency_ms": "From order to report, ms", "fees": "Fees",
                 "gain": "Profit"}  # fmt: skip
        rows = [f"{'Twin':<32}{'live':>12}{'simulated':>14}"]
        for name, word in words.items():
            scale, digits = (100.0 if name == "fill_ratio" else 1.0), 0 if name in ("orders", "fills") else 2
            live, other = (scale * getattr(side, name) for side in (self.happened, self.simulated))
            rows.append(f"{word:<32}{live:>12,.{digits}f}{other:>14,.{digits}f}")
        most = max(self.happened.orders, self.simulated.orders)
        same = f"The first {self.same:,} orders are the same; then a report was another, and what follows from it."
        return "\n".join([
            *rows,
            "simulated: the same market and strategy at the simulated venue, whose answers took "
            f"{self.round_trip_ms:.2f} ms, as measured.",
            "All orders are the same." if self.same == most else same,
            f"Over {self.points} stretches of the session the two equities moved apart by {self.tracking_bps:.2g} bps "
            "each (tracking error).",
            *self.notes,
        ])  # fmt: skip


def twin(folder: Path | str, find: Find, venue: VenueModel | None = None, *, exact: bool = True,
         points: int = 100) -> Twin:  # fmt: skip
    """Run a journal's market events through the simulated venue and compare.

    `venue`: what it is like; without latencies of its own it gets those that were measured.
    Raises JournalError, ImageError as `replay` does; DataError for a journal without market data; KernelHalted when
    the twin's kernel stops for another reason than a risk limit.
    """
    journal = Journal(folder)
    events, orders = journal.rows(EVENTS), journal.rows(ORDERS)
    market = frozen(events[np.isin(events["kind"], MARKET)].view("V64").copy().view(events.dtype))
    if not len(market):
        raise DataError(f"{journal.name} has no market data; there is nothing to simulate.")
    plan = Plan.of(journal.header, find, exact=exact)
    reports = events[events["kind"] == codes.REPORT]
    trip = first_answer_ms(orders[orders["action"] == codes.NEW], reports)
    model = venue or VenueModel()
    if model.order_ms == model.report_ms == 0.0 and model.latency is None:
        model = replace(model, order_ms=trip / 2, report_ms=trip / 2)
    ticks = bool(np.isin(market["kind"], TICKS).any())
    sessions, _ = hours_of(plan.infos, int(market["ts"].min()), int(market["ts"].max()))
    simulated = SimulatedVenue(plan.rows, plan.cash, model, plan.limits["leverage"], plan.sizes.orders, ticks,
                               plan.depth, sessions)  # fmt: skip
    drive = Drive(plan.machine(), simulated, market, 0, False, program(ticks) if plan.compiled else uncompiled(ticks))
    if drive.advance() == codes.HALTED and drive.machine.kernel.halt != codes.HALT_RISK:
        raise halt_error(drive.machine)
    outputs = drive.outputs()
    times, curve, last = equities(journal, find, exact, max(1, len(events) // points))
    at = np.searchsorted(outputs.curve["ts"], np.array(times, np.int64), side="right") - 1
    other = np.where(at >= 0, outputs.curve["equity"][np.maximum(at, 0)], plan.cash)
    gaps = np.diff(np.concatenate([[0.0, 0.0], np.array(curve) - other]))
    k = drive.machine.kernel
    happened = side(plan, market, orders, reports, last - plan.cash)
    other_side = side(plan, market, outputs.orders, outputs.reports, k.cash + k.value - plan.cash)
    return Twin(happened, other_side, equal(orders, outputs.orders), trip, float(np.std(gaps)) / plan.cash * 1e4,
                len(curve), notes_of(journal, events))  # fmt: skip


def equal(ours: Rows, theirs: Rows) -> int:
    """How many orders ask for the same, from the first on."""
    n = min(len(ours), len(theirs))
    differ = np.flatnonzero(np.any([ours[name][:n] != theirs[name][:n] for name in SAME], axis=0))
    return int(differ[0]) if len(differ) else n


def notes_of(journal: Journal, events: Rows) -> list[str]:
    """What the journal holds that the twin does not repeat."""
    words = {codes.COMMAND: "commands", codes.CORRECTION: "corrections", codes.GAP: "gaps", codes.TIMER: "timers"}
    counts = {word: int((events["kind"] == kind).sum()) for kind, word in words.items()}
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return [
        *([f"Not repeated in the simulation: {', '.join(said)}."] if said else []),
        *([journal.torn] * bool(journal.torn)),
    ]


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
