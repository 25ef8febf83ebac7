"""Memory of the market: datasets in Parquet, tapes compiled from them, importers, synthetic data.

open_tape(data, instruments, start, end)   a tape from a dataset, a file or a polars frame
import_bars(sources, name, ...)            CSV or Parquet bars into a dataset, validated, atomically
import_ticks(name, source, vendor, ...)    quotes, trades, depth of any vendor into a dataset, likewise
fold_bars(data, kind, interval, ...)       bars of ticks as a frame; fold_tape: as a tape
synthetic_tape(bars, instruments, seed)    seeded random walks
market_tape(events, seed)                  a seeded synthetic market: quotes and trades
"""

from typing import TYPE_CHECKING, Any

from engine.store.instruments import InstrumentInfo
from engine.store.opening import open_tape
from engine.store.tape import Tape

if TYPE_CHECKING:
    from engine.store.bars import BarRule, fold_bars, fold_tape
    from engine.store.importer import import_bars
    from engine.store.market import market_tape
    from engine.store.synthetic import synthetic_frame, synthetic_tape, write_synthetic_tape
    from engine.store.ticks_import import import_ticks

LAZY = {"BarRule": "bars", "fold_bars": "bars", "fold_tape": "bars", "import_bars": "importer",
        "import_ticks": "ticks_import", "market_tape": "market", "synthetic_frame": "synthetic",
        "synthetic_tape": "synthetic", "write_synthetic_tape": "synthetic"}  # fmt: skip
__all__ = ["BarRule", "InstrumentInfo", "Tape", "fold_bars", "fold_tape", "import_bars", "import_ticks", "market_tape",
           "open_tape", "synthetic_frame", "synthetic_tape", "write_synthetic_tape"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load what needs Polars only when it is asked for."""
    if name in LAZY:
        from importlib import import_module

        return getattr(import_module(f"engine.store.{LAZY[name]}"), name)
    raise AttributeError(f"engine.store has no {name!r}")
