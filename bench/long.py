"""One long tape: cost per event and memory from 100,000 to 100,000,000 bars, the rule of bars-single.

    python -m bench long --json     builds bench/data/long.tape once (6.4 GB), then one process for each size

`ns` is the time of one run over its events: the kernel, the venue, all outputs, the equity curve. Anonymous memory is
the largest seen while it ran; pages of the mapped tape do not count, and neither do those of spooled outputs.
"""

import argparse
import json
import resource
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import cases, data, measure
from engine.kernel import codes

TAPE = data.FOLDER / "long.tape"
SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)
PIECE = 4_000_000
LIMIT_MB = 512


def make(path: Path, bars: int) -> None:
    """A geometric random walk of minutes, in pieces: their prices are not rounded, and follow each other."""
    from engine.store.instruments import InstrumentInfo
    from engine.store.tape import blank, write_tape

    rng, last, start = np.random.default_rng(7), 100.0, np.datetime64("1990-01-01T00:00:00", "ns").astype("i8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_tape(path, (InstrumentInfo("X", tick=1e-9),), f"{bars:064d}", "long") as writer:
        for first in range(0, bars, PIECE):
            n = min(PIECE, bars - first)
            steps = rng.standard_normal(n) * 0.0005 - 0.5 * 0.0005**2 - (np.log(last) - np.log(100.0)) / PIECE
            close = last * np.exp(np.cumsum(steps))
            events = blank(n)
            events["ts"] = events["recv"] = start + (first + np.arange(1, n + 1)) * data.MINUTE_NS
            events["kind"] = codes.BAR
            events["open"] = np.concatenate([[last], close[:-1]])
            events["close"], events["volume"], last = close, 3000.0, float(close[-1])
            events["high"] = np.maximum(events["open"], close) * 1.0002
            events["low"] = np.minimum(events["open"], close) * 0.9998
            writer.append(events)


def anonymous_mb() -> float:
    """Anonymous memory of this process; nan where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


def child(n: int) -> dict[str, Any]:
    """The first `n` bars: warm once, then runs for at least a second."""
    from backtest import prepare
    from bench.ours import Crossing
    from engine.store.tape import Tape, read_tape

    whole = read_tape(TAPE)
    tape = Tape(whole.events[:n], whole.instruments, f"{n:064d}", f"long-{n}")
    prepared = prepare(Crossing(), tape, cash=cases.CASH, taker_bps=cases.FEE * 1e4)
    peak, done = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(anonymous_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    seconds: list[float] = []
    used = resource.getrusage(resource.RUSAGE_SELF)
    while len(seconds) < 2 or (sum(seconds) < 2.0 and len(seconds) < 50):
        begin = time.perf_counter()
        result = prepared.run()
        seconds.append(time.perf_counter() - begin)
        fills = int((result.raw["reports"]["code"] == codes.FILL).sum())
        del result
    done.set()
    thread.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    runs = len(seconds)
    median = statistics.median(seconds[1:])
    return {
        "n": n, "ns": median / n * 1e9, "seconds": median, "first": seconds[0], "fills": fills,
        "anonymous_mb": round(max(peak), 1), "cpu_ns": (after.ru_utime - used.ru_utime) / runs / n * 1e9,
        "system_ns": (after.ru_stime - used.ru_stime) / runs / n * 1e9,
    }  # fmt: skip


def run(sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Every size in a process of its own; the line of the case."""
    if not TAPE.exists() or TAPE.stat().st_size < max(sizes) * 64:
        make(TAPE, max(sizes))
    lines = [measure.child(sys.executable, "bench.long", str(n)) for n in sizes]
    wrong = [line["error"] for line in lines if "error" in line]
    if wrong:
        return {"case": "long", "failed": wrong}
    return {
        "case": "long",
        "ns_per_event": {f"{line['n']:,}": round(line["ns"], 2) for line in lines},
        "longest_over_shortest": round(lines[-1]["ns"] / lines[0]["ns"], 3),
        "anonymous_mb": max(line["anonymous_mb"] for line in lines),
        "within_memory": max(line["anonymous_mb"] for line in lines) <= LIMIT_MB,
        "sizes": lines,
        "includes": cases.FULL,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("n", type=int)
    sys.stdout.write(json.dumps(child(parser.parse_args().n)) + "\n")
