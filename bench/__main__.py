"""Measure one case, or all of them, beside the hand-written limit and the peers.

    python -m bench bars-single --json     one case; its last line is one JSON object
    python -m bench long --json            cost per event and memory up to 100,000,000 bars
    python -m bench commands --json        the command line: warm, with an edited strategy, tracked
    python -m bench live --json            a live session on real servers: loss, latency, memory, pauses; 15 minutes
    python -m bench replay --json          a journal of 10,000,000 events, driven again; and recovery: a restart
    python -m bench all                    every case; writes bench/RESULTS.md

Ours runs first with an empty cache, then with the images of that run alone: the difference of the two cold
starts is `compile_s`. Then it runs with everything in place, for the other numbers; then the limit; then every
peer in its own environment. A peer that is not installed is named under `missing`, one that
failed under `failed`; an outcome of ours outside the bounds of its case is an error, never a number.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import commands, journal, live, long, measure, table
from bench.cases import CASES, Case, Peer
from bench.peers.__main__ import python, ready

ALONE = {"long": long.run, "commands": commands.run, "replay": journal.replay,
         "recovery": journal.recovery}  # beside nobody  # fmt: skip


@dataclass
class Measured:
    """All lines of one case: ours without a cache, with images only, with everything; the limit; the peers by name."""

    case: Case
    empty: dict[str, Any]
    imaged: dict[str, Any]
    ours: dict[str, Any]
    limit: dict[str, Any]
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """What went wrong, by who."""
        ours = {"ours, empty cache": self.empty, "ours, images only": self.imaged, "ours": self.ours}
        lines = {**ours, "limit": self.limit, **self.peers}
        wrong = {name: line["error"] for name, line in lines.items() if "error" in line}
        for key, (low, high) in self.case.bounds.items() if "error" not in self.ours else ():
            value = self.ours["outcome"].get(key)
            if value is None or not low <= value <= high:
                wrong["outcome"] = f"{key} of ours is {value}, it must lie in {low} to {high}"
        return wrong

    def ratio(self, line: dict[str, Any]) -> float | None:
        """Our rate over theirs."""
        return None if "error" in self.ours or "error" in line else round(self.ours["rate"] / line["rate"], 3)

    def apart(self) -> dict[str, float]:
        """Where a peer takes a process for each lane: the seconds of all, from start to end, over ours."""
        known = {name: line for name, line in self.peers.items() if "error" not in line}
        many = self.case.processes
        return {} if many == 1 or "error" in self.ours else {
            name: round(many * line["cold"] / self.ours["cold"], 1) for name, line in known.items()}  # fmt: skip

    def line(self) -> dict[str, Any]:
        """The JSON object of the case."""
        known = "error" not in self.ours
        compiled = "error" not in self.empty and "error" not in self.imaged
        return {
            "case": self.case.name,
            "seconds": self.ours["seconds"] if known else None,
            "rate": self.ours["rate"] if known else None,
            "limit": self.ratio(self.limit),
            "peers": {name: self.ratio(line) for name, line in self.peers.items()},
            "compile_s": round(self.empty["cold"] - self.imaged["cold"], 3) if compiled else None,
            "cold_s": round(self.ours["cold"], 3) if known else None,
            "peak_rss_mb": self.ours["peak_rss_mb"] if known else None,
            "outcome": self.ours["outcome"] if known else None,
            "includes": {
                "ours": self.case.ours,
                "limit": self.case.limit,
                **{peer.name: peer.includes for peer in self.case.peers if peer.name in self.peers},
            },
            **({"one_process_for_each_lane": self.apart()} if self.case.processes > 1 else {}),
            "limit_seconds": self.limit.get("seconds"),
            "peer_rates": {name: line.get("rate") for name, line in self.peers.items()},
            "missing": self.missing,
            "failed": self.failed,
        }


def run_peer(peer: Peer, case: Case) -> dict[str, Any]:
    """One peer in its own environment, with a numba cache of its own that is filled once before."""
    words = [case.name, "-n", str(peer.n), "--engine", peer.engine]
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        return measure.child(python(peer.environment), peer.script, *words, env={"NUMBA_CACHE_DIR": cache})


def ours_with(cache: Path, case: Case, *words: str) -> dict[str, Any]:
    """Our side in a process of its own, with this cache."""
    return measure.child(sys.executable, "bench.ours", case.name, *words, env={"TANDEM_CACHE": str(cache)})


def run_case(case: Case, chosen: list[str]) -> Measured:
    """Everything of one case, one process after the other."""
    say(f"{case.name}: ours")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cache = Path(folder)
        empty = ours_with(cache, case, "--warm", "0")
        for entry in cache.iterdir():
            if entry.name != "images":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        imaged = ours_with(cache, case, "--warm", "0")
        ours = ours_with(cache, case)
    say(f"{case.name}: limit")
    measured = Measured(case, empty, imaged, ours, measure.child(sys.executable, "bench.limits", case.name))
    for peer in case.peers:
        if chosen and peer.name not in chosen:
            continue
        if not ready(peer.environment):
            measured.missing[peer.name] = f"bench/.venvs/{peer.environment} is absent or out of date: run make peers"
            continue
        say(f"{case.name}: {peer.name}")
        measured.peers[peer.name] = run_peer(peer, case)
    return measured


def say(text: str) -> None:
    """Progress and complaints go to stderr; stdout is for results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(words: list[str]) -> int:
    """The command line; the exit code is 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside the limit and the peers.")
    parser.add_argument("case", choices=[*CASES, *ALONE, "live", "all"])
    parser.add_argument("--json", action="store_true", help="print one JSON line as the last line")
    parser.add_argument("--peers", default="", help="only these peers, separated by commas")
    said = parser.parse_args(words)
    if said.case in ALONE or said.case == "live":
        line = live.run() if said.case == "live" else ALONE[said.case]()
        sys.stdout.write(json.dumps(line) + "\n")
        return int("failed" in line)
    subprocess.run([sys.executable, "-m", "bench.data"], cwd=measure.ROOT, check=True)
    chosen = [name for name in said.peers.split(",") if name]
    cases = list(CASES.values()) if said.case == "all" else [CASES[said.case]]
    done = [run_case(case, chosen) for case in cases]
    for measured in done:
        for name, why in (measured.missing | measured.failed).items():
            say(f"{measured.case.name}: {name}: {why}")
        sys.stdout.write((json.dumps(measured.line()) if said.json else table.of(measured)) + "\n")
    if any(measured.failed for measured in done):
        say("something failed, so bench/RESULTS.md stays as it was" if said.case == "all" else "something failed")
        return 1
    if said.case == "all":
        table.write(done, [measure_alone() for measure_alone in ALONE.values()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
