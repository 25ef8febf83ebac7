"""Orders, refusals, reports and positions between records and protobuf.

Law: record -> message -> record gives the same bytes; for a report but for `recv`, which is the receiver's: until he
sets it, it is the lots of the order that are filled with a fill, by the venue's own count, 0 where it does not say.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live.codec import SCHEMA, BadMessage, Names
from engine.live.wire import order_pb2, position_pb2, report_pb2

Rows = np.ndarray[Any, Any]
SIDES = {codes.BUY: order_pb2.SIDE_BUY, codes.SELL: order_pb2.SIDE_SELL, 0: order_pb2.SIDE_UNSPECIFIED}
SIGNS = {number: side for side, number in SIDES.items()}
REASONS = codes.NAMES["reason"]
REASON = {word: code for code, word in REASONS.items()}
REPORTS = codes.NAMES["report"]
WITH_REASON = (codes.REJECT, codes.CANCEL_REJECT, codes.CANCELLED)  # the reason travels in `fee`


def parsed(kind: Any, payload: bytes) -> Any:
    """A message of ours that carries a schema. Raises BadMessage."""
    try:
        found = kind.FromString(payload)
    except DecodeError as error:
        raise BadMessage("malformed", f"no {kind.DESCRIPTOR.name} of ours ({error})") from error
    if found.schema != SCHEMA:
        raise BadMessage("schema", f"{kind.DESCRIPTOR.name} schema {found.schema}; this program reads {SCHEMA}")
    return found


def number_of(names: Names, name: str) -> int:
    """An instrument's number. Raises BadMessage for one that is not ours."""
    if name not in names.index:
        raise BadMessage("instrument", f"no instrument {name!r} here")
    return names.index[name]


def order_batch(orders: Rows, names: Names, **head: Any) -> Any:
    """An OrderBatch of order rows; `head`: account, engine, token, connection, batch."""
    made = order_pb2.OrderBatch(schema=SCHEMA, **head)
    add = made.orders.add
    for row in orders.tolist():
        cause_id, cause, ts, qty, price, stop, i, strategy, action, side, kind, tif, mask, priority, life = row
        add(order_id=cause_id, cause=cause, ts=ts, instrument=names.names[i], strategy=strategy, action=action,
            side=SIDES[side], type=kind, tif=tif, qty=qty, price=price, stop=stop, flags=mask, priority=priority,
            post_only=bool(mask & codes.POST_ONLY), reduce_only=bool(mask & codes.REDUCE_ONLY), life_ms=life,
        )  # fmt: skip
    return made


def orders_of(batch: Any, names: Names) -> Rows:
    """Order rows of an OrderBatch. Raises BadMessage for an unknown instrument, a word or number out of range."""
    rows = np.zeros(len(batch.orders), Order.dtype)
    for n, one in enumerate(batch.orders):
        flags = one.flags | codes.POST_ONLY * one.post_only | codes.REDUCE_ONLY * one.reduce_only
        if one.action not in codes.NAMES["action"] or (one.qty <= 0 and one.action != codes.CANCEL):
            raise BadMessage("order", f"order {one.order_id}: action {one.action} with qty {one.qty}")
        known = one.type in codes.NAMES["type"] and one.tif in codes.NAMES["tif"] and SIGNS.get(one.side, 0)
        if one.action == codes.NEW and not known:
            raise BadMessage("order", f"order {one.order_id}: no side, type or time in force that is known here")
        try:
            rows[n] = (one.order_id, one.cause, one.ts, one.qty, one.price, one.stop, number_of(names, one.instrument),
                       one.strategy, one.action, SIGNS.get(one.side, 0), one.type, one.tif, flags, one.priority,
                       one.life_ms)  # fmt: skip
        except OverflowError as error:
            raise BadMessage("order", f"order {one.order_id}: a number out of range ({error})") from error
    return rows


def refusal_batch(refusals: Rows, names: Names, engine: str) -> Any:
    """A RefusalBatch of refusal rows."""
    made = order_pb2.RefusalBatch(schema=SCHEMA, engine=engine)
    for row in refusals:
        made.refusals.add(
            ts=int(row["ts"]), cause=int(row["seq"]), order_id=int(row["order_id"]), qty=int(row["qty"]),
            instrument=names.names[int(row["instrument"])], strategy=int(row["strategy"]), price=float(row["price"]),
            reason=REASONS.get(int(row["reason"]), str(int(row["reason"]))), value=float(row["value"]),
            limit=float(row["limit"]), breach=codes.NAMES["breach"].get(int(row["breach"]), ""),
        )  # fmt: skip
    return made


def report_batch(reports: Rows, names: Names, account: str, last_exec: int) -> Any:
    """A ReportBatch of REPORT events."""
    made = report_pb2.ReportBatch(schema=SCHEMA, account=account, last_exec=last_exec)
    for row in reports:
        code, fee = int(row["code"]), float(row["fee"])
        one = made.reports.add(
            exec_id=int(row["exec_id"]), order_id=int(row["order_id"]), code=code, qty=int(row["qty"]),
            instrument=names.names[int(row["instrument"])], price=float(row["price"]), ts=int(row["ts"]),
        )  # fmt: skip
        if code in WITH_REASON:
            one.reason = REASONS.get(int(fee), str(int(fee))) if fee else ""
        elif code == codes.REPLACED:
            one.stop = fee
        else:
            one.fee, one.filled = fee, int(row["recv"]) if code == codes.FILL else 0
    return made


def reports_of(batch: Any, names: Names, source: int = 0) -> tuple[Rows, list[tuple[int, str, bytes]]]:
    """REPORT events of a ReportBatch, and what cannot be one: (exec_id, why, payload) each."""
    rows = np.zeros(len(batch.reports), Event.dtype)
    aside: list[tuple[int, str, bytes]] = []
    n = 0
    for one in batch.reports:
        number = names.index.get(one.instrument, -1)
        finite = math.isfinite(one.price + one.fee + one.stop)  # else cash would be no number, and no limit would hold
        if number < 0 or one.code not in REPORTS or one.exec_id == 0 or not finite or one.filled >> 63:
            why = f"report {one.exec_id}: code {one.code}, instrument {one.instrument!r}, price {one.price}"
            aside.append((one.exec_id, why, one.SerializeToString()))
            continue
        row = rows[n]
        row["ts"], row["kind"], row["code"], row["source"] = one.ts, codes.REPORT, one.code, source
        row["instrument"], row["price"], row["qty"] = number, one.price, one.qty
        row["order_id"], row["exec_id"], row["recv"] = one.order_id, one.exec_id, one.filled
        if one.code in WITH_REASON:
            row["fee"] = float(REASON.get(one.reason, codes.OK))
        else:
            row["fee"] = one.stop if one.code == codes.REPLACED else one.fee
        n += 1
    return rows[:n], aside


def position_batch(held: Iterable[tuple[int, int, float]], names: Names, account: str, exec_id: int, ts: int) -> Any:
    """A PositionBatch of (instrument, signed lots, average price)."""
    made = position_pb2.PositionBatch(schema=SCHEMA, account=account, exec_id=exec_id, ts=ts)
    for i, qty, average in held:
        if qty:
            made.positions.add(instrument=names.names[i], qty=qty, average=average)
    return made


def positions_of(batch: Any, names: Names) -> Mapping[int, tuple[int, float]]:
    """Instrument -> (signed lots, average price) of a PositionBatch. Raises BadMessage for an unknown instrument."""
    return {number_of(names, one.instrument): (one.qty, one.average) for one in batch.positions}
