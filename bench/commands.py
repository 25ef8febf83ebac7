"""The command line, from shell to the end of the process: first, warm, with an edited strategy, with report and MLflow.

    python -m bench commands --json

A fresh cache and an empty working directory; the sample equities. `edited` changes a number in the strategy's file
before each run, so its handlers are compiled anew each time; `first` compiles the program too.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = 9
STRATEGY = '''\
from engine.kernel.indicators import ATR, Highest, Lowest, Mean
from engine.kernel.strategy import Strategy, param


class Edited(Strategy):
    """Four indicators and a target: about what a first strategy has."""

    entry: int = param(50, ge=2, le=500)
    leave: int = param(25, ge=2, le=500)

    top: Highest
    bottom: Lowest
    trend: Mean
    range: ATR

    def on_bar(self, bar, ctx):
        trend = self.trend.update(bar.close, 100)
        size = 100.0 + 0.0001 * {number}
        if bar.close > self.top.latest and bar.close > trend:
            ctx.target(size / max(self.range.latest, 1.0))
        elif bar.close < self.bottom.latest:
            ctx.target(0.0)
        self.top.update(bar.high, self.entry)
        self.bottom.update(bar.low, self.leave)
        self.range.update(bar.high, bar.low, bar.close, 20)
'''


def run() -> dict[str, Any]:
    """The line of the case; seconds are medians."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, file = Path(name), Path(name) / "edited.py"
        env = {**os.environ, "TANDEM_CACHE": str(folder / "cache"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        env.pop("PYTHONPATH", None)

        def timed(*words: str, mode: str = "mode=backtest") -> float:
            command = [str(Path(sys.executable).parent / "tandem"), mode, *words]
            begin = time.perf_counter()
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
            if done.returncode or "Sharpe" not in done.stdout:
                raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
            return time.perf_counter() - begin

        def table(*words: str) -> float:
            """Until the best lanes are printed; the tests of luck come after them."""
            command = [str(Path(sys.executable).parent / "tandem"), "-m", *words]
            begin = time.perf_counter()
            with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.DEVNULL) as running:  # fmt: skip
                seen = [time.perf_counter() - begin for line in running.stdout or () if line.startswith("rank")]
            return seen[0]

        def edited(number: int) -> float:
            file.write_text(STRATEGY.replace("{number}", str(number)))
            return timed("strategy=edited.py:Edited", "track=false", "report=false")

        first = edited(-1)
        edits = [edited(number) for number in range(RUNS)]
        warm = [timed("strategy=edited.py:Edited", "track=false", "report=false") for _ in range(RUNS)]
        tracked = [timed() for _ in range(4)][1:]
        sweep = ("strategy.fast=range(2,52)", "strategy.slow=range(52,252)", "sweep.split=none",  # 10,000 lanes
                 "track=false", "report=false")  # fmt: skip
        swept, shown = ([measured() for _ in range(4)][1:]
                        for measured in (lambda: timed(*sweep, mode="-m"), lambda: table(*sweep)))  # fmt: skip
        seconds = {"edited": statistics.median(edits), "warm": statistics.median(warm), "first": first,
                   "tracked": statistics.median(tracked), "sweep, to the table": statistics.median(shown),
                   "sweep, with its tests of luck": statistics.median(swept)}  # fmt: skip
        return {
            "case": "commands", "seconds": {key: round(value, 3) for key, value in seconds.items()},
            "best": {"edited": round(min(edits), 3), "warm": round(min(warm), 3), "tracked": round(min(tracked), 3)},
            "python": sys.version.split()[0], "includes": "process start to end, metrics printed",
        }  # fmt: skip
