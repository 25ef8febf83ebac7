"""Polars frames of a result, each built from plain columns when it is first asked for.

Times are UTC with nanoseconds; instruments, strategies and codes are words; quantities are units, not lots.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.history import History
from backtest.metrics import underwater
from backtest.quality import HORIZONS, Executions
from backtest.trades import Actions, Fills, Trades, moments, split_factors
from engine.kernel import codes

if TYPE_CHECKING:
    import polars as pl

DONE = {codes.FILL: "filled", codes.REJECT: "rejected", codes.CANCELLED: "cancelled", codes.EXPIRED: "expired"}


def _time(ts: Any) -> "pl.Series":
    import polars as pl

    return pl.Series(np.ascontiguousarray(ts, "i8")).cast(pl.Datetime("ns", "UTC"))


def _words(words: Sequence[str], index: Any) -> "pl.Series":
    """The word of each index; null where there is none (-1)."""
    import polars as pl

    rows = pl.Series(np.asarray(index, "i8"))
    return pl.Series([*words, None], dtype=pl.String).gather(rows.replace({-1: len(words)}))


def _coded(kind: str, values: Any) -> "pl.Series":
    names = codes.NAMES[kind]
    least = min(names)
    return _words([names.get(i, str(i)) for i in range(least, max(names) + 1)], np.asarray(values, "i8") - least)


def orders(rows: Any, reports: Any, instruments: Sequence[str], strategies: Sequence[str], lot: Any) -> "pl.DataFrame":
    """What was sent: one row for each instruction, with what its venue made of the order (`filled`, `status`)."""
    import polars as pl

    ids, slot = np.unique(rows["id"], return_inverse=True)
    filled = np.zeros(len(ids), "i8")
    done = reports[np.isin(reports["code"], list(DONE)) & np.isin(reports["order_id"], ids)]
    where = np.searchsorted(ids, done["order_id"])
    np.add.at(filled, where, np.where(done["code"] == codes.FILL, np.abs(done["qty"]), 0))
    status = np.full(len(ids), "working", dtype=object)
    status[where] = [DONE[int(code)] for code in done["code"]]
    asked = np.zeros(len(ids), "i8")
    np.maximum.at(asked, slot, rows["qty"])
    part = (status == "filled") & (filled < asked)
    status[part] = "part filled"
    unit = lot[rows["instrument"]]
    return pl.DataFrame({
        "time": _time(rows["ts"]), "id": rows["id"].copy(), "instrument": _words(instruments, rows["instrument"]),
        "strategy": _words(strategies, rows["strategy"]), "action": _coded("action", rows["action"]),
        "side": _coded("side", rows["side"]), "type": _coded("type", rows["type"]), "tif": _coded("tif", rows["tif"]),
        "qty": rows["qty"] * unit, "price": rows["price"].copy(), "stop": rows["stop"].copy(),
        "filled": filled[slot] * unit, "status": pl.Series(status[slot].tolist(), dtype=pl.String),
        "seq": rows["seq"].copy(), "flags": rows["mask"].copy(),
    })  # fmt: skip


def fills(rows: Fills, instruments: Sequence[str], strategies: Sequence[str], lot: Any,
          done: Executions | None = None) -> "pl.DataFrame":  # fmt: skip
    """Each (partial) execution of our orders; `qty` in units, positive. On quotes and trades with what it met and won:
    `mark`, `spread` and mark-outs in price, `ahead` in units, `rested` in seconds (see `quality`)."""
    import polars as pl

    more: dict[str, Any] = {}
    if done is not None:
        more = {
            "maker": done.maker,
            "mark": done.mark,
            "spread": done.spread,
            "ahead": done.ahead,
            "rested": done.rested,
            **{f"markout_{h:g}s": m for h, m in zip(HORIZONS, done.markouts, strict=True)},
        }
    return pl.DataFrame({
        "time": _time(rows.ts), "instrument": _words(instruments, rows.instrument),
        "strategy": _words(strategies, rows.strategy), "side": _coded("side", np.sign(rows.lots)),
        "qty": np.abs(rows.lots) * lot[rows.instrument], "price": rows.price, "fee": rows.fee,
        "order_id": pl.Series(rows.order_id).replace({-1: None}), **more,
    })  # fmt: skip


def trades(rows: Trades, instruments: Sequence[str], strategies: Sequence[str], curve_ts: Any) -> "pl.DataFrame":
    """Round trips, first in first out; `bars`: points of the equity curve after the entry, up to the exit."""
    import polars as pl

    bars = np.searchsorted(curve_ts, rows.exit_ts, "right") - np.searchsorted(curve_ts, rows.entry_ts, "right")
    return pl.DataFrame({
        "instrument": _words(instruments, rows.instrument), "strategy": _words(strategies, rows.strategy),
        "side": _words(["long", "short"], np.where(rows.side > 0, 0, 1)), "qty": rows.qty,
        "entry_time": _time(rows.entry_ts), "exit_time": _time(rows.exit_ts), "entry_price": rows.entry_price,
        "exit_price": rows.exit_price, "pnl": rows.pnl, "return": rows.returns, "fees": rows.fees,
        "dividends": rows.dividends, "bars": bars,
        "duration": pl.Series(rows.exit_ts - rows.entry_ts).cast(pl.Duration("ns")),
        "open": rows.open, "entry_order": rows.entry_order, "exit_order": rows.exit_order,
    })  # fmt: skip


def positions(rows: Fills, history: History, instruments: Sequence[str], lot: Any) -> "pl.DataFrame":
    """Position of the account in each instrument after each fill and each split; `qty` in signed units."""
    import polars as pl

    actions: Actions = history.actions
    parts, times = [], moments(rows, actions)
    for index in np.unique(rows.instrument):
        mine, split = rows.instrument == index, (actions.instrument == index) & (actions.ratio != 1.0)
        # A split only counts while something is held, so it is a row of zero lots that the factor turns into a change.
        ts, when = (np.concatenate((actions.ts[split], column[mine])) for column in (rows.ts, times))
        lots = np.concatenate((np.zeros(np.count_nonzero(split)), rows.lots[mine]))
        order = np.argsort(when, kind="stable")
        factor = split_factors(when[order], actions, actions.instrument == index)
        held = np.cumsum(lots[order] * factor) / factor
        held = np.round(held, 9) * lot[index]
        real = (lots[order] != 0) | (np.concatenate(([0.0], held[:-1])) != held)
        parts.append((ts[order][real], np.full(np.count_nonzero(real), index), held[real]))
    ts, index, held = (np.concatenate(c) for c in zip(*parts, strict=True)) if parts else [np.empty(0)] * 3
    order = np.argsort(ts, kind="stable")
    return pl.DataFrame({"time": _time(ts[order]), "instrument": _words(instruments, index[order]), "qty": held[order]})


def equity(curve: Any, start_equity: float) -> "pl.DataFrame":
    """The equity curve as the driver recorded it, and its drawdown (a fraction, zero or negative)."""
    import polars as pl

    worth = np.ascontiguousarray(curve["equity"])
    return pl.DataFrame({
        "time": _time(curve["ts"]), "equity": worth, "cash": curve["cash"].copy(), "gross": curve["gross"].copy(),
        "drawdown": underwater(worth, start_equity) if len(worth) else worth,
    })  # fmt: skip


def refusals(rows: Any, instruments: Sequence[str], strategies: Sequence[str], lot: Any) -> "pl.DataFrame":
    """What risk refused: the reason, and the value that was compared with the limit."""
    import polars as pl

    return pl.DataFrame({
        "time": _time(rows["ts"]), "instrument": _words(instruments, rows["instrument"]),
        "strategy": _words(strategies, rows["strategy"]), "reason": _coded("reason", rows["reason"]),
        "qty": rows["qty"] * lot[rows["instrument"]], "price": rows["price"].copy(), "value": rows["value"].copy(),
        "limit": rows["limit"].copy(), "breach": _coded("breach", rows["breach"]), "order_id": rows["order_id"].copy(),
    })  # fmt: skip
