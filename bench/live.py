"""A live session against what it has to do: throughput without loss, latency, memory, pauses. See bench/engine.py.

    python -m bench live --json                         all cases, some fifteen minutes
    python -m bench.live raw json --seconds 5           two of them, shorter: to see that they work

The journal is on, and orders are on the disk before they are sent, but for the cases `spin`: there the engine has a
processor for itself (`spin_cpu`), and the disk is left to the system (`sync_ms=inf`). Servers, publisher, venue and
engine share the machine: measure on one that does nothing else. `within`: whether each bound of the case is kept.
"""

import argparse
import json
import math
import os
import sys
from typing import Any

from bench import engine

Bounds = dict[str, float]
INSIDE: Bounds = {"lost": 0, "inside_us.p50": 15, "inside_us.p99": 200}


def order_within(p50: float, **more: float) -> Bounds:
    """Nothing is lost, and half of the orders arrive within so many microseconds."""
    return {"lost": 0, "tick_to_order_us.p50": p50, **{f"tick_to_order_us.{part}": most for part, most in more.items()}}


# events per second, seconds, one order in so many quotes (a hundred a second where latency counts), encoding, whether
# the engine has a processor that never sleeps and leaves it to the system when the disk is forced, bounds
CASES: dict[str, tuple[float, float, int, str, bool, Bounds]] = {
    "raw": (200_000, 60, 20_000, "raw", False, {"lost": 0}),
    "json": (50_000, 60, 5_000, "json", False, {"lost": 0}),
    "latency-1k": (1_000, 30, 10, "raw", False, order_within(700, p99=2_000)),
    "latency-10k": (10_000, 30, 100, "raw", False, INSIDE),
    "latency-50k": (50_000, 30, 500, "raw", False, order_within(800)),
    "spin-1k": (1_000, 30, 10, "raw", True, order_within(700, p99=2_000)),
    "spin-10k": (10_000, 30, 100, "raw", True, INSIDE),
    "spin-50k": (50_000, 30, 500, "raw", True, order_within(800)),
    "memory": (5_000, 600, 50, "raw", False, {"lost": 0, "growth_mb": 8, "gc_ms": 5}),
}


def case(name: str, seconds: float | None = None) -> dict[str, Any]:
    """The line of one case."""
    rate, usual, every, encoding, spin, bounds = CASES[name]
    said = argparse.Namespace(rate=rate, seconds=seconds or usual, every=every, encoding=encoding, spin=spin,
                              sync_ms="inf" if spin else "0")  # fmt: skip
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
