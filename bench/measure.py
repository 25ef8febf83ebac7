"""How a number is taken: one child process, its first run, then warm runs of the same work.

`seconds` is the median wall time of the warm runs: from data in memory to the outcome, indicators included.
`first` is the first run of the process, compilation included; `cold` is from the start of the process to the
end of its first run, imports and data included. The peak of memory is that of the whole process.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STARTED = "BENCH_STARTED"
ENOUGH_SECONDS, MOST_RUNS, SLOW_SECONDS = 5.0, 51, 20.0  # a slow first run may have been compilation: one warm run

Run = Callable[[], dict[str, Any]]


def peak_rss_mb() -> float:
    """Peak resident memory of this process. The kernel's own mark, where there is one, forgets the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(mark.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def arguments() -> argparse.Namespace:
    """What the parent says to a child."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--engine", default="")
    parser.add_argument("-n", type=int, default=0, help="only the first n bars or instruments")
    parser.add_argument("--warm", type=int, default=-1, help="timed runs after the first; -1: as many as make sense")
    return parser.parse_args()


def take(run: Run, bars: int, version: str, warm: int = -1) -> None:
    """Run once cold, then warm, and print one JSON line."""
    begin = time.perf_counter()
    outcome = run()
    first = time.perf_counter() - begin
    cold = time.time() - float(os.environ[STARTED]) if STARTED in os.environ else None
    if warm < 0:
        warm = 1 if first > SLOW_SECONDS else 3
    seconds: list[float] = []
    while len(seconds) < warm or (warm >= 3 and sum(seconds) < ENOUGH_SECONDS and len(seconds) < MOST_RUNS):
        gc.collect()
        begin = time.perf_counter()
        outcome = run()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds or [first])
    line = {
        "seconds": median,
        "best": min(seconds or [first]),
        "runs": len(seconds),
        "first": first,
        "cold": cold,
        "rate": bars / median,
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "version": version,
        "outcome": {key: float(value) for key, value in outcome.items()},
    }
    sys.stdout.write(json.dumps(line) + "\n")


def child(python: Path | str, module: str, *words: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `module` in another process and return its line, or {'error': the last thing it said}."""
    told = {**os.environ, **(env or {}), STARTED: repr(time.time())}
    command = [str(python), "-W", "ignore", "-m", module, *words]
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=ROOT, env=told, check=False, **quiet)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
    return {"error": f"{module} ended with {done.returncode}: {said}"}
