"""A live session against what it has to do: throughput without loss, latency, memory, pauses. See bench/engine.py.

    python -m bench live --json                         all cases, some fifteen minutes
    python -m bench.live raw json --seconds 5           two of them, shorter: to see that they work

The journal is on, orders are on the disk before they are sent. Servers, publisher, venue and engine share the machine:
measure on one that does nothing else. `within`: whether each bound of the case is kept.
"""

import argparse
import json
import math
import os
import sys
from typing import Any

from bench import engine

# events per second, seconds, one order in so many quotes (a few a second, as a person would have), encoding, bounds
CASES: dict[str, tuple[float, float, int, str, dict[str, float]]] = {
    "raw": (200_000, 60, 20_000, "raw", {"lost": 0}),
    "json": (50_000, 60, 5_000, "json", {"lost": 0}),
    "latency-1k": (1_000, 30, 50, "raw", {"lost": 0, "tick_to_order_us.p50": 700, "tick_to_order_us.p99": 2_000}),
    "latency-10k": (10_000, 30, 500, "raw", {"lost": 0, "inside_us.p50": 15, "inside_us.p99": 200}),
    "latency-50k": (50_000, 30, 2_500, "raw", {"lost": 0, "tick_to_order_us.p50": 800}),
    "memory": (5_000, 600, 50, "raw", {"lost": 0, "growth_mb": 8, "gc_ms": 5}),
}


def case(name: str, seconds: float | None = None) -> dict[str, Any]:
    """The line of one case."""
    rate, usual, every, encoding, bounds = CASES[name]
    said = argparse.Namespace(rate=rate, seconds=seconds or usual, every=every, encoding=encoding, sync_ms="0")
    found = {"case": name, **vars(said), **engine.run(said), "cores": os.cpu_count()}
    found["growth_mb"] = round(found["rss_mb"]["end"] - found["rss_mb"]["warm"], 1)
    found["within"] = {key: value(found, key) <= most for key, most in bounds.items()}
    found["within"]["orders"] = found["orders"] == found["arrived"] > 0
    found["within"]["rate"] = found["published"] >= 0.95 * rate * said.seconds  # else the publisher was too slow
    return found


def value(found: dict[str, Any], key: str) -> float:
    """A number of a line, by its dotted name; nan where there is none."""
    where: Any = found
    for part in key.split("."):
        where = (where or {}).get(part, math.nan)
    return abs(float(where))


def run(names: tuple[str, ...] = tuple(CASES), seconds: float | None = None) -> dict[str, Any]:
    """The line of all of them; `failed` names the bounds that are not kept."""
    lines = []
    for name in names:
        sys.stderr.write(f"live {name}: {seconds or CASES[name][1]:g} s and a start\n")
        lines.append(case(name, seconds))
        sys.stderr.write(json.dumps(lines[-1]) + "\n")
    failed = [f"{line['case']}: {key}" for line in lines for key, kept in line["within"].items() if not kept]
    return {"case": "live", "lines": lines, **({"failed": failed} if failed else {})}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.live")
    parser.add_argument("cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seconds", type=float)
    told = parser.parse_args()
    line = run(tuple(told.cases), told.seconds)
    sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(int("failed" in line))
