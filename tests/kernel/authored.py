"""Strategies from source text, as a user writes them in a file; bars to run them on; programs of their own process."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.kernel.strategy import Strategy

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """\
import math
import random
import time

import numpy as np

from engine.kernel import codes
from engine.kernel.indicators import Mean
from engine.kernel.layout import Array, PerInstrument, Record
from engine.kernel.strategy import Strategy, param
"""
_numbers = count()


def module(folder: Path, text: str, name: str = "") -> Any:
    """A module from source text, imported from a file of its own."""
    name = name or f"authored_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def strategy(folder: Path, body: str, above: str = "") -> type[Strategy]:
    """Class S with this body, in a file that imports the usual names, below the lines `above`."""
    text = (
        IMPORTS + textwrap.dedent(above) + "\n\nclass S(Strategy):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    found: type[Strategy] = module(folder, text).S
    return found


def bars(n: int, instruments: int = 1, seed: int = 1) -> pl.DataFrame:
    """One-minute bars of a random walk, all instruments at the same times."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2024-01-01T00:00", "ns") + np.arange(1, n + 1) * np.timedelta64(60, "s")
    parts = []
    for i in range(instruments):
        close = np.round(100 + np.cumsum(rng.normal(0, 0.5, n)), 2)
        opened = np.round(close + rng.normal(0, 0.2, n), 2)
        high, low = np.maximum(opened, close) + 0.1, np.minimum(opened, close) - 0.1
        parts.append(pl.DataFrame({"time": time, "instrument": [f"I{i}"] * n, "open": opened, "high": high, "low": low,
                                   "close": close, "volume": np.full(n, 1e6)}))  # fmt: skip
    return pl.concat(parts).sort("time", maintain_order=True)


def same(a: Any, b: Any) -> bool:
    """Whether two results have the same bytes: orders, reports, refusals, curve."""
    return all(a.raw[name].tobytes() == b.raw[name].tobytes() for name in ("orders", "reports", "refusals", "curve"))


def run(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own, in `folder`."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    paths = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run([sys.executable, str(path)], cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": paths, **environment})  # fmt: skip
