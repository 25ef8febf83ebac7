"""Deterministic bars, written once to bench/data, and how every engine reads them.

The generator is a geometric random walk of seed 7: the order of its draws is part of the case definition,
because the expected outcomes hang on it. Prices of the single series keep five decimals, so that two averages
practically never tie; those of the panel keep four.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench import cases

FOLDER = Path(__file__).parent / "data"
SINGLE = FOLDER / "bars-single.parquet"
PANEL = FOLDER / "bars-panel.parquet"
QUOTES = FOLDER / "ticks.parquet"
DEPTH = FOLDER / "depth.parquet"
RECORDED = Path(__file__).parents[1] / "../shared/data/real/binance_ws/usdm/btcusdt_20240808.gz"
FIELDS = ("open", "high", "low", "close", "volume")
MINUTE_NS = 60_000_000_000

Columns = dict[str, "np.ndarray[Any, Any]"]


def walk(shape: tuple[int, ...], volatility: float, decimals: int) -> Columns:
    """Open, high, low, close and volume of `shape` (bars first); each open is near the close before it."""
    rng = np.random.default_rng(7)
    steps = rng.standard_normal(shape) * volatility - 0.5 * volatility * volatility
    close = 100.0 * np.exp(np.cumsum(steps, axis=0))
    before = np.concatenate([np.full((1, *shape[1:]), 100.0), close[:-1]])
    open_ = before * np.exp(rng.standard_normal(shape) * volatility * 0.1)
    high = np.maximum(open_, close) * np.exp(np.abs(rng.standard_normal(shape)) * volatility * 0.5)
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.standard_normal(shape)) * volatility * 0.5)
    volume = np.round(np.exp(rng.standard_normal(shape) * 0.7 + 8.0))
    prices = (np.round(column, decimals) for column in (open_, high, low, close))
    return dict(zip(FIELDS, (*prices, volume), strict=True))


def names() -> list[str]:
    """The instruments of the panel, S000 to S499."""
    return [f"S{i:03d}" for i in range(cases.INSTRUMENTS)]


def write(path: Path, columns: dict[str, Any]) -> None:
    """Write one Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(pa.table(columns), part)
    part.replace(path)


def make() -> None:
    """Write what is missing. `time` is when a bar closes, UTC."""
    if not SINGLE.exists():
        start = np.datetime64("2020-01-01T00:00:00", "ns").astype("i8")
        time = (start + np.arange(cases.BARS, dtype="i8") * MINUTE_NS).astype("M8[ns]")
        write(SINGLE, {"time": time, **walk((cases.BARS,), 0.0005, 5)})
    if not PANEL.exists():
        days = np.busday_offset("2015-01-01", np.arange(cases.DAYS), roll="forward").astype("M8[ns]")
        panel = {
            "time": np.repeat(days, cases.INSTRUMENTS),
            "instrument": np.tile(np.array(names()), cases.DAYS),
        }
        columns = walk((cases.DAYS, cases.INSTRUMENTS), 0.02, 4)
        write(PANEL, {**panel, **{name: column.ravel() for name, column in columns.items()}})
    if not QUOTES.exists():
        write(QUOTES, ticks(cases.TICKS))
    if not DEPTH.exists() and RECORDED.exists():
        write(DEPTH, recorded())


def recorded() -> Columns:
    """A recorded session of Binance, its book and its trades, in the order of arrival: `kind` 0 update, 1 trade,
    2 snapshot; prices in ticks; `last` ends a group. `ts` is the venue's time, which is not let go back."""
    import os
    import tempfile

    from engine.kernel import codes
    from engine.store import import_ticks, open_tape

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["TANDEM_CACHE"] = folder
        path = import_ticks("session", RECORDED, vendor="binance_ws", recv_shift="auto", root=folder)
        rows = open_tape(path).events
        rows = rows[(rows["kind"] == codes.DEPTH) | (rows["kind"] == codes.TRADE)]
        trade = rows["kind"] == codes.TRADE
        kind = np.where(trade, 1, np.where(rows["code"] == codes.SNAPSHOT, 2, 0))
        return {"ts": np.maximum.accumulate(rows["ts"]), "kind": kind, "side": rows["side"].copy(),
                "price": np.round(rows["price"] / cases.DEPTH_TICK).astype("i8"), "volume": rows["traded"].copy(),
                "last": np.where(trade, 1, rows["last"])}  # fmt: skip


def looped(n: int = 0) -> Columns:
    """The recorded session again and again, each time a second after the last; `n` rows (0: those of the case)."""
    if not DEPTH.exists():
        raise SystemExit(
            f"{DEPTH} is not here: it is made of {RECORDED.name}, a recording that does not come with this."
        )
    columns, n = load(DEPTH), n or cases.DEPTH_ROWS
    size = columns["ts"].size
    span = columns["ts"][-1] - columns["ts"][0] + cases.SECOND_NS
    rows = np.arange(n)
    found = {name: np.ascontiguousarray(column[rows % size]) for name, column in columns.items()}
    found["ts"] += rows // size * span
    found["last"][-1] = 1
    return found


def ticks(n: int) -> Columns:
    """Top of the book and trades: four in five events are quotes, of which 15 % move the price by a tick; trades are
    at the touch. `kind` 1 is a trade; a trade's row repeats the quote. The mean gap is 10 ms; prices in ticks."""
    rng = np.random.default_rng(7)
    gaps = np.maximum(1, rng.exponential(10e6, n).astype("i8"))
    trade = rng.random(n) < 0.20
    moved = ~trade & (rng.random(n) < 0.15)
    trade[0], moved[0] = False, True
    bid = 10_000 + np.cumsum(np.where(rng.random(n) < 0.5, 1, -1) * moved)
    draw = rng.random(n)
    rows = np.arange(n)
    spread = (1 + (draw < 0.30) + (draw < 0.05))[np.maximum.accumulate(np.where(moved, rows, 0))]
    on_bid = rng.random(n) < 0.5
    volumes = rng.integers(1, 50, n), rng.integers(1, 50, n)
    shown = [volume[np.maximum.accumulate(np.where(~trade & (moved | renewed), rows, 0))].astype("f8")
             for volume, renewed in zip(volumes, (on_bid, ~on_bid), strict=True)]  # fmt: skip
    side = np.where(rng.random(n) < 0.5, 1, -1) * trade
    return {"ts": np.datetime64("2024-01-02T00:00:00", "ns").astype("i8") + np.cumsum(gaps), "kind": trade.astype("i8"),
            "bid": bid, "ask": bid + spread, "bid_volume": shown[0], "ask_volume": shown[1], "side": side,
            "volume": rng.integers(1, 11, n) * trade.astype("f8")}  # fmt: skip


def load(path: Path, n: int = 0) -> Columns:
    """Contiguous columns of the first `n` rows (0: all); `time` as datetime64[ns]."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table = table.slice(0, n) if n else table
    wanted = (name for name in table.column_names if name != "instrument")
    return {name: np.ascontiguousarray(table[name].to_numpy()) for name in wanted}


def load_panel(n: int = 0) -> Columns:
    """The panel as (days, instruments) arrays, the first `n` instruments (0: all), and `time` of length days."""
    columns = load(PANEL)
    shape = (cases.DAYS, cases.INSTRUMENTS)
    time = columns.pop("time").reshape(shape)[:, 0]
    kept = {name: np.ascontiguousarray(c.reshape(shape)[:, : n or None]) for name, c in columns.items()}
    return {"time": np.ascontiguousarray(time), **kept}


if __name__ == "__main__":
    make()
