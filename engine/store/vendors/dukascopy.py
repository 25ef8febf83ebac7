"""Dukascopy bi5: one LZMA file of quotes for each hour, <INSTRUMENT>/<year>/<month from 00>/<day>/<hour>h_ticks.bi5."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.store import blocks
from engine.store.vendors import Rows

RECORD = np.dtype([("ms", ">u4"), ("ask", ">u4"), ("bid", ">u4"), ("ask_volume", ">f4"), ("bid_volume", ">f4")])
MILLION = 1e6
POINTS = {"JPY": 1e-3, "RUB": 1e-3, "XAU": 1e-3, "XAG": 1e-3}  # of everything else 1e-5
PATH = "…/EURUSD/2024/00/31/23h_ticks.bi5 (months count from 00)"


@dataclass(frozen=True)
class Options:
    """`point`: the price of one step, where it is not 1e-3 (yen, roubles, metals) or 1e-5 (other currencies)."""

    point: float | None = None


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files, one after another; place and hour are in the path. An empty file is an hour without quotes."""
    import polars as pl

    for named, source in sources:
        path = Path(source)
        name, hour = _place(path)
        if path.stat().st_size == 0:
            yield Rows("quotes", pl.DataFrame(schema={"instrument": pl.String}), str(path), notes={"empty hours": 1})
            continue
        raw = blocks.content(path)
        if len(raw) % RECORD.itemsize:
            raise DataError(f"{path}: {len(raw)} bytes are no whole number of quotes ({RECORD.itemsize} bytes each); "
                            "fetch it again.")  # fmt: skip
        rows = np.frombuffer(raw, RECORD)
        point = options.point or next((p for word, p in POINTS.items() if word in name), 1e-5)
        digits = max(0, round(-float(np.log10(point))))
        ts = hour + rows["ms"].astype(np.int64) * 1_000_000
        body = {side: np.round(rows[side].astype(float) * point, digits) for side in ("bid", "ask")}
        # Volumes are millions as 32-bit floats; cents of a unit are noise of that form.
        body |= {f"{side}_volume": np.round(rows[f"{side}_volume"].astype(float) * MILLION, 2) for side in body}
        yield Rows("quotes", pl.DataFrame({
            "instrument": pl.Series([named or name]).new_from_index(0, len(rows)),
            "row": np.arange(1, len(rows) + 1), "ts": ts, "recv": ts, **body}), str(path))  # fmt: skip


def _place(path: Path) -> tuple[str, int]:
    """Instrument and start of the hour (ns UTC) from a path. Raises DataError for another form."""
    try:
        name, year, month, day, file = path.parts[-5:]
        moment = datetime(int(year), int(month) + 1, int(day), int(file[: file.index("h")]), tzinfo=UTC)
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: the place of a bi5 file says its hour: {PATH}.") from error
    return name, int(moment.timestamp()) * 10**9
