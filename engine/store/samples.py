"""Sample datasets that make themselves on first use, from a package of PyPI and without a network.

`equities`: daily AAPL, GOOG, IBM, MSFT from 2000 (GOOG 2004) to March 2013, adjusted for splits and dividends.
`equities_raw`: the same as traded, with SPLIT and DIVIDEND events.
`ticks`: quotes and trades of a synthetic market, about nine hours of the invented instrument SYNTH; a tape in the
cache and no dataset.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from engine.errors import DataError
from engine.store.tape import Tape

NAMES = ("AAPL", "GOOG", "IBM", "MSFT")
EQUITY = {"calendar": "XNYS", "timezone": "America/New_York", "currency": "USD"}
ABOUT = "PyPI bokeh_sampledata, stocks.csv.gz"


def _equities(name: str, adjust: str, root: Path) -> None:
    """Import the sample. `close` of `equities` is the vendor's adjusted close, and the other prices are scaled by
    the same factor; all are rounded to six decimals, hence a tick of 1e-6. A cent of AAPL in 2000 is 0.0003 after
    adjustment, so adjusted prices lie on no grid of cents, and a coarser tick would move them.
    The dividends follow the ex-date close (C / (C + D)), which the amounts confirm: 3.08 for MSFT in 2004."""
    import polars as pl

    from engine.store.importer import import_bars

    spec = find_spec("bokeh_sampledata")
    file = Path(str(spec.origin)).parent / "_data" / "stocks.csv.gz" if spec else None
    if file is None or not file.is_file():
        raise DataError(f"dataset {name!r} comes from the package bokeh_sampledata, which is not installed; "
                        "run: pip install bokeh_sampledata")  # fmt: skip
    table = pl.read_csv(file, infer_schema=False)
    frames = {one: table.filter(pl.col("Ticker") == one) for one in NAMES}
    import_bars(frames, name, root, columns={"instrument": "Ticker", "adj_close": "Adj Close"}, adjust=adjust,
                dividend_base="ex", timezone="America/New_York", instruments=EQUITY, source=ABOUT)  # fmt: skip


def _ticks(root: Path) -> Tape:
    """The synthetic market with its defaults; nothing is written under the datasets root."""
    from engine.store.market import market_tape

    return market_tape()


# A maker writes a dataset below the root, or gives a tape.
SAMPLES: dict[str, Callable[[Path], Tape | None]] = {
    "equities": partial(_equities, "equities", "apply"),
    "equities_raw": partial(_equities, "equities_raw", "events"),
    "ticks": _ticks,
}
