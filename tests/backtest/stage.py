"""A stage for the venue: a few hand-written bars, wishes by the number of the bar, and what the venue reported.

Bar n opens at minute n and closes at minute n + 1. A wish under n is made at the close of bar n, so that the order
meets bar n + 1 first. Everything runs uncompiled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backtest.audit import audit
from backtest.drive import Drive
from backtest.run import prepare
from engine.kernel import codes
from engine.kernel.events import Bar, Event, Report
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, frozen

MINUTE = 60_000_000_000
START = 20_000 * 86_400_000_000_000
Row = tuple[float, ...]
WISHES: dict[int, Sequence[Callable[[Ctx], Any]]] = {}
REPLIES: list[Callable[[Report, Ctx], Any]] = []


class Staged(Strategy):
    """Wishes at the close of each bar of instrument 0 what the test wrote down. It runs uncompiled only."""

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        if bar.instrument == 0:
            for wish in WISHES.get((bar.ts - START) // MINUTE - 1, ()):
                wish(ctx)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        for reply in REPLIES:
            reply(report, ctx)


def bars(*rows: Row, minutes: Sequence[int] | None = None, others: Sequence[Sequence[Row]] = (), **info: Any) -> Tape:
    """A tape from rows (open, high, low, close[, volume]); `others` are the rows of further instruments."""
    found = []
    for i, series in enumerate([rows, *others]):
        for n, row in enumerate(series):
            event = np.zeros(1, Event.dtype)
            event["kind"], event["instrument"] = codes.BAR, i
            event["ts"] = event["recv"] = START + ((minutes[n] if minutes else n) + 1) * MINUTE
            for name, value in zip(("open", "high", "low", "close", "volume"), (*row, 1e6)[:5], strict=True):
                event[name] = value
            found.append(event)
    return tape_of(found, 1 + len(others), **info)


def action(kind: int, minute: float, amount: float, instrument: int = 0) -> "np.ndarray[Any, Any]":
    """A split, a dividend or a funding payment at a minute."""
    event = np.zeros(1, Event.dtype)
    event["kind"], event["amount"], event["instrument"] = kind, amount, instrument
    event["ts"] = event["recv"] = START + int(minute * MINUTE)
    return event


def tape_of(events: Sequence["np.ndarray[Any, Any]"], instruments: int = 1, **info: Any) -> Tape:
    """Events in order of time, in the order given where times are equal."""
    ordered = sorted(events, key=lambda e: int(e["ts"][0]))
    rows = np.concatenate([e.view(np.uint8) for e in ordered]).view(Event.dtype)
    infos = tuple(InstrumentInfo(f"I{i}", **{"bar_ns": MINUTE, **info}) for i in range(instruments))
    return Tape(frozen(rows), infos, "0" * 16, "stage")


class Played:
    """What happened, without the acknowledgements."""

    def __init__(self, drive: Drive) -> None:
        self.drive, self.outputs = drive, drive.outputs()
        self.reports = [_shown(row) for row in self.outputs.reports if row["code"] != codes.ACK]
        self.refused = [codes.NAMES["reason"][int(r)] for r in self.outputs.refusals["reason"]]
        self.fees = [float(r["fee"]) for r in self.outputs.reports if r["code"] == codes.FILL]
        self.cash = drive.machine.kernel.cash
        self.net = drive.machine.table("markets_at")["net"].tolist()


def _shown(row: Any) -> tuple[Any, ...]:
    """(word, minute, lots, price) of a fill, (word, minute, reason) of anything else."""
    code, minute = int(row["code"]), float((int(row["ts"]) - START) / MINUTE)
    word = codes.NAMES["report"][code]
    if code == codes.FILL:
        return (word, minute, int(row["qty"]), round(float(row["price"]), 9))
    if code == codes.REPLACED:
        return (word, minute, int(row["qty"]))
    return (word, minute, codes.NAMES["reason"].get(int(row["fee"]), "") if row["fee"] else "")


def play(tape: Tape, wishes: dict[int, Any], *, cash: float = 1e6, strategies: int = 1, **settings: Any) -> Played:
    """Run the wishes (one callable or several for each bar) over the tape; the account is audited at the end."""
    WISHES.clear()
    WISHES.update({n: w if isinstance(w, list | tuple) else [w] for n, w in wishes.items()})
    given = [Staged() for _ in range(strategies)]
    drive = prepare(
        given, tape, cash=cash, compiled=False, **{"leverage": 1e9, "self_match": False, **settings}
    ).drive()
    assert drive.advance() == 0, drive.machine.kernel.halt
    played = Played(drive)
    assert audit(drive, played.outputs) == []
    return played
