"""Conservation: what the kernel, the venue and the reports say about one account must be the same.

Law 1: nothing here is taken from the kernel's own running totals; they are what is examined.
Law 2: lots agree exactly, money to 1e-9 of the largest sum that took part.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from backtest.drive import Drive, Outputs
from engine.kernel import codes
from engine.kernel.orders import OPEN
from engine.kernel.records import Kernel

NEAR = 1e-9
ACTIONS = (codes.SPLIT, codes.DIVIDEND, codes.FUNDING, codes.CORRECTION)


def audit(drive: Drive, outputs: Outputs) -> list[str]:
    """Every disagreement in words; empty when all is conserved. `outputs` is everything since the start of the run."""
    k = drive.machine.kernel
    past = drive.events[: drive.loop.index]
    return [
        *_positions(drive, outputs, past),
        *_account(drive, outputs, past),
        *_orders(drive, outputs),
        *_venue(drive, k),
    ]


def _near(problem: str, found: float, wanted: float, scale: float) -> Iterator[str]:
    if not abs(found - wanted) <= NEAR * max(abs(found), abs(wanted), scale, 1.0):
        yield f"{problem}: {found!r}, but it must be {wanted!r}"


def _fills(outputs: Outputs) -> "np.ndarray[Any, Any]":
    reports: np.ndarray[Any, Any] = outputs.reports[outputs.reports["code"] == codes.FILL]
    return reports


def _owners(outputs: Outputs) -> dict[int, int]:
    new = outputs.orders[outputs.orders["action"] == codes.NEW]
    return dict(zip(new["id"].tolist(), new["strategy"].tolist(), strict=True))


def _positions(drive: Drive, outputs: Outputs, past: "np.ndarray[Any, Any]") -> Iterator[str]:
    """Sum of fills = position, for each strategy and instrument, and over strategies = net."""
    machine, k = drive.machine, drive.machine.kernel
    held = machine.table("positions_at")["qty"].reshape(k.strategies, k.instruments)
    net = machine.table("markets_at")["net"]
    if not np.array_equal(held.sum(axis=0), net):
        yield f"positions of the strategies add up to {held.sum(axis=0).tolist()}, the net positions are {net.tolist()}"
    if k.halt != codes.RUNNING:
        return  # what is halted no longer hears of fills
    if drive.ticks and drive.loop.taken < drive.loop.reports_n:
        return  # fills that the kernel has not heard of yet
    summed = np.zeros_like(held)
    owners = _owners(outputs)
    for row in _fills(outputs):
        summed[owners[int(row["order_id"])], row["instrument"]] += row["qty"]
    netted = outputs.refusals[outputs.refusals["reason"] == codes.NETTED]
    np.add.at(summed, (netted["strategy"], netted["instrument"]), netted["qty"])
    moved = np.isin(past["kind"], (codes.SPLIT, codes.CORRECTION))
    same = ~np.isin(np.arange(k.instruments), past["instrument"][moved])
    for s, i in np.argwhere((summed != held) & same):
        yield f"strategy {s}, instrument {i}: fills add up to {summed[s, i]} lots, the position is {held[s, i]}"


def _account(drive: Drive, outputs: Outputs, past: "np.ndarray[Any, Any]") -> Iterator[str]:
    """Cash follows from the fills; cash + value = start + realised + unrealised - fees; totals = their sums."""
    machine, k = drive.machine, drive.machine.kernel
    markets, positions = machine.table("markets_at"), machine.table("positions_at")
    fills = _fills(outputs)
    under_way = drive.ticks and drive.loop.taken < drive.loop.reports_n
    unit = machine.table("instruments_at")["unit"]
    flows = fills["qty"] * fills["price"] * unit[fills["instrument"]]
    values = markets["net"] * markets["mark"] * unit
    scale = max(k.start_equity, float(np.abs(flows).sum()), float(np.abs(values).sum()))
    if k.halt == codes.RUNNING and not under_way and not np.isin(past["kind"], ACTIONS).any():
        yield from _near("cash", k.cash, k.start_equity - float(flows.sum()) - float(fills["fee"].sum()), scale)
    yield from _near("value of all positions", k.value, float(values.sum()), scale)
    yield from _near("gross exposure", k.gross, float(np.abs(values).sum()), scale)
    margins = machine.table("instruments_at")["margin"]
    yield from _near("margin in use", k.used, float((np.abs(values) * margins).sum()), scale)
    if k.held != np.count_nonzero(markets["net"]):
        yield f"the kernel counts {k.held} held instruments, there are {np.count_nonzero(markets['net'])}"
    if k.held == 0 and (k.value, k.gross, k.used) != (0.0, 0.0, 0.0):
        yield f"nothing is held, yet value, gross and margin are {(k.value, k.gross, k.used)}"
    which = np.tile(np.arange(k.instruments), k.strategies)
    unrealised = positions["qty"] * (markets["mark"][which] - positions["average"]) * unit[which]
    wanted = k.start_equity + k.realised + float(unrealised.sum()) - k.fees
    yield from _near("cash + value against start + realised + unrealised - fees", k.cash + k.value, wanted, scale)


def _orders(drive: Drive, outputs: Outputs) -> Iterator[str]:
    """The counts of open orders are what the order table says."""
    machine, k = drive.machine, drive.machine.kernel
    table = machine.table("open_at")
    rows = table[OPEN[table["state"]] == 1]
    if k.opened != len(rows):
        yield f"the kernel counts {k.opened} open orders, its table holds {len(rows)}"
    more = np.where(rows["asked"] > 0, np.maximum(rows["asked"] - rows["qty"], 0), 0)
    left = rows["qty"] - rows["filled"] + more
    market = rows["type"] == codes.MARKET
    buy = rows["side"] > 0
    counts = {"certain": (market, left * rows["side"]), "buys": (~market & buy, left), "sells": (~market & ~buy, left)}
    for name, (chosen, lots) in counts.items():
        wanted = np.zeros(k.instruments, np.int64)
        np.add.at(wanted, rows["instrument"][chosen], lots[chosen])
        found = machine.table("markets_at")[name]
        if not np.array_equal(found, wanted):
            yield f"lots of open orders ({name}) are counted as {found.tolist()}, the table says {wanted.tolist()}"
    towards = (rows["mask"] & codes.BY_TARGET) != 0
    pending = np.zeros(k.instruments * k.strategies, np.int64)
    where = rows["strategy"].astype(np.int64) * k.instruments + rows["instrument"]
    np.add.at(pending, where[towards], (left * rows["side"])[towards])
    found = machine.table("positions_at")["pending"]
    if not np.array_equal(found, pending):
        yield f"pending lots are {found.tolist()}, the table says {pending.tolist()}"
    kept = int((outputs.refusals["reason"] != codes.NETTED).sum())
    if k.refused != kept:
        yield f"the kernel refused {k.refused} times, {kept} records of it came out"
    if np.any(table["state"] == codes.RESERVED):
        yield "an order slot stays reserved after the event that reserved it"


def _venue(drive: Drive, k: Kernel) -> Iterator[str]:
    """The venue's account is the kernel's."""
    lp = drive.loop
    if k.halt != codes.RUNNING or (drive.ticks and (lp.arrived < lp.orders_n or lp.taken < lp.reports_n)):
        return  # what is under way between them, only one of them knows
    v, held = drive.venue.header, drive.venue.markets["net"]
    net = drive.machine.table("markets_at")["net"]
    if not np.array_equal(held, net):
        yield f"the venue holds {held.tolist()} lots, the kernel {net.tolist()}"
    if v.opened != k.opened:
        yield f"the venue holds {v.opened} orders, the kernel counts {k.opened}"
    if not np.isin(drive.events["kind"], (codes.CORRECTION,)).any():
        yield from _near("cash of the venue", v.cash, k.cash, max(k.start_equity, k.turnover))
