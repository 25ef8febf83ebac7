"""Binance public data files: trades, aggTrades, bookTicker and T_DEPTH, told by their columns or number of them.

Files with a header (futures since 2022) and without one (spot, older futures), times in ms or (spot since 2025) us.
`is_buyer_maker` = true is a sale that hit a resting buyer, side -1. Klines are bars: use `import_bars`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.store.vendors import Rows
from engine.store.vendors.tabular import Table, rows_of

MAKER = {"true": -1, "false": 1}
IDS = ("first_update_id", "last_update_id", "pu")
FORMS: dict[str, tuple[tuple[str, ...], Table]] = {
    "trades": (
        ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"),
        Table("trades", {"ts": "time", "price": "price", "volume": "qty", "side": "is_buyer_maker"}, sides=MAKER),
    ),
    "aggTrades": (
        ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker",
         "is_best_match"),
        Table("trades", {"ts": "transact_time", "price": "price", "volume": "quantity", "side": "is_buyer_maker"},
              sides=MAKER),
    ),
    "bookTicker": (
        ("update_id", "best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty", "transaction_time",
         "event_time"),
        Table("quotes", {"ts": "transaction_time", "recv": "event_time", "bid": "best_bid_price",
                         "ask": "best_ask_price", "bid_volume": "best_bid_qty", "ask_volume": "best_ask_qty"}),
    ),
    "T_DEPTH": (
        ("symbol", "timestamp", "first_update_id", "last_update_id", "side", "update_type", "price", "qty", "pu"),
        Table("depth", {"ts": "timestamp", "instrument": "symbol", "side": "side", "snapshot": "update_type",
                        "price": "price", "volume": "qty"}, group=IDS, keep=IDS),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """`form`: trades, aggTrades, bookTicker or T_DEPTH, where the name of the file does not say it."""

    form: str | None = None

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in FORMS:
            raise ConfigError(f"form={self.form!r}; choose one of {', '.join(FORMS)}.")


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files, one after another; the instrument is the part of the file's name before the first hyphen."""
    previous: dict[str, tuple[int, bool]] = {}
    for named, source in sources:
        name = Path(source).name if isinstance(source, str | Path) else ""
        form = options.form or _form(name)
        header, table = FORMS[form]
        own = re.match(r"([A-Z0-9_]+)-", name)
        known = named or (own.group(1) if own and "instrument" not in table.columns else None)
        for rows in rows_of(source, table, known, header):
            yield _in_sequence(rows, previous) if form == "T_DEPTH" else rows


def _in_sequence(rows: Rows, previous: dict[str, tuple[int, bool]]) -> Rows:
    """Mark updates whose `pu` is not the last id of the update before; after a snapshot they may span its id.

    `previous`: of each instrument the last id so far, and whether it is that of a snapshot; it moves on.
    """
    frame = rows.frame
    last, snapshot = frame["last"].to_numpy() == 1, frame["snapshot"].to_numpy() == 1
    first, final, before = (frame[name].to_numpy() for name in IDS)
    bad = np.zeros(frame.height, bool)
    start = 0
    for end in np.flatnonzero(last):
        name = str(frame["instrument"][int(end)])
        known, fresh = previous.get(name, (None, False))
        spans = fresh and known is not None and first[end] <= known <= final[end]
        if not snapshot[end] and known is not None and before[end] != known and not spans:
            bad[start : end + 1] = True
        previous[name] = (int(final[end]), bool(snapshot[end]))
        start = int(end) + 1
    reason = "out of sequence: its pu is not the last update id before it"
    return replace(rows, problems=[(bad, reason)]) if bad.any() else rows


def _form(name: str) -> str:
    plain = name.lower().replace("_", "")
    for form, words in (("aggTrades", "aggtrades"), ("bookTicker", "bookticker"), ("T_DEPTH", "depth"),
                        ("trades", "trades")):  # fmt: skip
        if words in plain:
            return form
    if re.search(r"-\d+[smhdw]-", name):
        raise DataError(f"{name}: klines are bars; import them with import_bars.")
    raise DataError(f"{name}: neither trades, aggTrades, bookTicker nor depth by its name; give form='trades' or so.")
