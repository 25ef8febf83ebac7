"""bench/RESULTS.md: the measured cases as tables, with the machine they were measured on, in general words."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.__main__ import Measured

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = "| engine | version | seconds | rate (1/s) | ours over it | cold s | peak RSS MB | outcome | includes |"
RULE = "|---|---|---:|---:|---:|---:|---:|---|---|"
PREFACE = """# Measured speeds

`make peers && make bench` writes this file. Each number is the median of warm runs in one process: from data in
memory to the outcome, indicators included. "cold" is from the start of a process to the end of its first run.
"ours over it" is our rate divided by theirs: above 1 we are faster. "includes" says which outputs a number pays for.
"""


def machine() -> str:
    """Processor, cores and Python; nothing that names the machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        model = next(named, model).split(":")[-1].strip()
    return f"{os.cpu_count()} x {model}, {platform.system()}, Python {platform.python_version()}"


def row(name: str, line: dict[str, Any], ratio: float | None, includes: str) -> str:
    """One engine."""
    if "error" in line:
        return f"| {name} | | failed | | | | | {line['error']} | |"
    outcome = ", ".join(f"{key.replace('_', ' ')} {value:,.10g}" for key, value in line["outcome"].items())
    beside = "" if ratio is None else f"{ratio:.2f}"
    numbers = (f"{line['seconds']:.4g}", f"{line['rate']:,.0f}", beside, f"{line['cold']:.2f}")
    cells = (name, line["version"], *numbers, f"{line['peak_rss_mb']:.0f}", outcome, includes)
    return f"| {' | '.join(cells)} |"


def of(measured: "Measured") -> str:
    """The table of one case."""
    case = measured.case
    rows = [row("**tandem**", measured.ours, None, case.ours)]
    rows.append(row("*hand-written limit*", measured.limit, measured.ratio(measured.limit), case.limit))
    for peer in case.peers:
        if peer.name in measured.peers:
            line = measured.peers[peer.name]
            size = f"; {peer.n:,} bars or instruments only" if peer.n else ""
            rows.append(row(peer.name, line, measured.ratio(line), peer.includes + size))
        elif peer.name in measured.missing:
            rows.append(f"| {peer.name} | | not measured | | | | | {measured.missing[peer.name]} | |")
    compiled = measured.line()["compile_s"]
    apart = [f"{case.processes} processes of {name}, one by one, take {ratio:.0f} times our one process, by the "
             "seconds of one of them from start to end." for name, ratio in measured.apart().items()]  # fmt: skip
    note = f"An empty cache of images adds {compiled} s to the first start." if compiled is not None else ""
    return "\n".join([f"## {case.name}", "", case.title, "", HEADER, RULE, *rows, "", *apart, note]).rstrip() + "\n"


def alone(line: dict[str, Any]) -> str:
    """The table of a case that is measured beside nobody."""
    if "failed" in line:
        return f"## {line['case']}\n\nFailed: {'; '.join(map(str, line['failed']))}\n"
    if line["case"] == "long":
        rows = [f"| {one['n']:,} | {one['ns']:.1f} | {one['anonymous_mb']:.0f} | {one['fills']:,} |"
                for one in line["sizes"]]  # fmt: skip
        table = ["| bars | ns per bar | anonymous MB | fills |", "|---:|---:|---:|---:|", *rows]
    else:
        rows = [f"| {name} | {value} |" for name, value in line["seconds"].items()]
        table = ["| command | seconds |", "|---|---:|", *rows]
    return "\n".join([f"## {line['case']}", "", f"Includes {line['includes']}.", "", *table]) + "\n"


def write(done: list["Measured"], lines: list[dict[str, Any]]) -> None:
    """All tables, in the order of the cases."""
    head = f"{PREFACE}\nMeasured {datetime.now(UTC):%Y-%m-%d} on {machine()}.\n"
    RESULTS.write_text("\n".join([head, *map(of, done), *map(alone, lines)]))
