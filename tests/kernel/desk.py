"""A kernel on a desk: events in by hand, orders and refusals out, uncompiled (law 5 makes that valid)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.kernel import codes, step
from engine.kernel.events import Bar, Event, Report
from engine.kernel.machine import Machine, Placed, Sizes, python_handlers, set_grids
from engine.kernel.records import Instrument
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
START = 20_000 * DAY
Wish = Callable[[Ctx], Any]
WISHES: dict[int, list[Wish]] = {}  # what each strategy wishes at its next bar
ON_REPORT: list[Callable[[Report, Ctx], Any]] = []


class Scripted(Strategy):
    """Wishes what the test put into WISHES. It runs uncompiled only."""

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        for wish in WISHES.pop(ctx.strategy, []):
            wish(ctx)

    def on_report(self, report: Report, ctx: Ctx) -> None:
        for reply in ON_REPORT:
            reply(report, ctx)


def grid(tick: float) -> Instrument:
    """An instrument with this tick."""
    rows = np.zeros(1, Instrument.dtype)
    rows["tick"] = tick
    set_grids(rows)
    return Instrument.view(rows, 0)


class Desk:
    """One kernel; `now` moves one second with each event unless told otherwise."""

    def __init__(
        self,
        limits: dict[str, float] | None = None,
        *,
        breach: dict[int, int] | None = None,
        cash: float = 1e6,
        instruments: int = 2,
        strategies: int = 1,
        sizes: Sizes | None = None,
        **info: Any,
    ) -> None:
        rows = np.zeros(instruments, Instrument.dtype)
        for name, value in {
            "tick": 0.01,
            "lot": 1.0,
            "multiplier": 1.0,
            "margin": 1.0,
            "allowed": 1,
            "shortable": 1,
            **info,
        }.items():
            rows[name] = value
        places = [Placed(Scripted(), tuple(range(instruments)), python_handlers(Scripted)) for _ in range(strategies)]
        small = sizes or Sizes(orders=16, signals=32, outbox=64, refusals=64)
        self.machine = Machine(places, rows, cash=cash, limits=limits, breach=breach, sizes=small)
        self.k, self.ctx, self.now, self.exec_id = self.machine.kernel, self.machine.ctx, START, 0
        WISHES.clear()
        ON_REPORT.clear()

    def event(self, kind: int, after: int = SECOND, **fields: Any) -> None:
        """One event, `after` ns later."""
        self.now += after
        row = np.zeros(1, Event.dtype)
        row["ts"] = row["recv"] = self.now
        row["kind"] = kind
        for name, value in fields.items():
            row[name] = value
        event = Event.view(row)
        step.step(self.k, self.ctx, event)
        if kind == codes.BAR:
            step.close_slice(self.k, self.ctx, event)

    def bar(self, price: float = 100.0, i: int = 0, after: int = SECOND) -> None:
        """A bar that closes at a price."""
        self.event(codes.BAR, after, instrument=i, open=price, high=price, low=price, close=price, volume=1e6)

    def wish(
        self, *wishes: Wish, price: float = 100.0, i: int = 0, s: int = 0, after: int = SECOND
    ) -> list[dict[str, Any]]:
        """Strategy s wishes at a bar; the orders that come out."""
        WISHES[s] = list(wishes)
        self.bar(price, i, after)
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        """Takes the orders out of the outbox."""
        rows = self.machine.table("outbox_at")[: self.k.orders_out]
        found = [dict(zip(rows.dtype.names or (), row.item(), strict=True)) for row in rows]
        self.k.orders_out = 0
        return found

    def refused(self) -> list[tuple[str, float, float]]:
        """Takes the refusals out: reason, value, limit."""
        rows = self.machine.table("refusals_at")[: self.k.refusals_out]
        found = [(codes.NAMES["reason"][int(r["reason"])], float(r["value"]), float(r["limit"])) for r in rows]
        self.k.refusals_out = 0
        return found

    def reasons(self) -> list[str]:
        """Takes the refusals out: reasons only."""
        return [reason for reason, _, _ in self.refused()]

    def report(
        self,
        order: dict[str, Any] | int,
        code: int,
        qty: int = 0,
        price: float = 100.0,
        fee: float = 0.0,
        exec_id: int | None = None,
    ) -> None:
        """The venue says something of an order; `exec_id` counts up by itself."""
        self.exec_id += 1
        known = isinstance(order, dict)
        self.event(
            codes.REPORT,
            0,
            code=code,
            order_id=order["id"] if known else order,
            qty=qty,
            price=price,
            fee=fee,
            instrument=order["instrument"] if known else 0,
            exec_id=self.exec_id if exec_id is None else exec_id,
        )

    def fill(self, order: dict[str, Any], qty: int | None = None, price: float = 100.0, fee: float = 0.0) -> None:
        """The venue fills an order, whole unless told otherwise."""
        self.report(order, codes.FILL, (order["qty"] if qty is None else qty) * order["side"], price, fee)

    def hold(self, qty: float, i: int = 0, s: int = 0, price: float = 100.0) -> None:
        """Give a strategy a position by trading."""
        for order in self.wish(lambda ctx: ctx.target(qty), i=i, s=s, price=price):
            self.fill(order, price=price)
        assert self.position(i, s) == round(qty / self.machine.table("instruments_at")["lot"][i])

    def position(self, i: int = 0, s: int = 0) -> int:
        """Lots held."""
        return int(self.machine.table("positions_at")["qty"][s * self.k.instruments + i])

    def market(self, name: str, i: int = 0) -> Any:
        """A field of the market table."""
        return self.machine.table("markets_at")[name][i].item()

    def state(self, order: dict[str, Any]) -> str:
        """The state of an order as the kernel knows it."""
        row = self.machine.table("open_at")[order["id"] & self.k.order_mask]
        return codes.NAMES["state"][int(row["state"])] if row["id"] == order["id"] else "gone"


def buy(qty: float, limit: float = 0.0, **more: Any) -> Wish:
    return lambda ctx: ctx.buy(qty, limit, **more)


def sell(qty: float, limit: float = 0.0, **more: Any) -> Wish:
    return lambda ctx: ctx.sell(qty, limit, **more)


def target(qty: float) -> Wish:
    return lambda ctx: ctx.target(qty)
