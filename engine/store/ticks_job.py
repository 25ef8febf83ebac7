"""The work of one import of single events: checks, puts aside, numbers and writes the Parquet parts.

Law 1: `seq` is the order of arrival within a source over all its kinds, so that the tape's order is exact.
Law 2: a book is never wrong in silence (see `ticks_check.Gate`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import DataError
from engine.store.dataset import write_manifest
from engine.store.instruments import InstrumentInfo, override
from engine.store.job import write_parquet
from engine.store.ticks import FLAGS, KINDS, MIXED, TIMES, folder
from engine.store.ticks_check import PRICES, Gate, judge
from engine.store.validate import Findings
from engine.store.vendors import Rows

if TYPE_CHECKING:
    import polars as pl

PART = 1 << 20  # rows of one kind and instrument before they are written
FEW = 10_000  # prices below this do not prove a grid that is coarser than a hundredth
STEPS = (25, 10, 5, 2, 1)  # of prices, in their last decimal: 0.25, 0.00005 and other steps that markets have
BOOK = ("depth", "quotes", "trades")  # whose prices tell the tick, best first: hidden trades lie off the grid


@dataclass
class Grid:
    """The decimals that numbers were seen to need, and what all of them are multiples of, in the last decimal."""

    digits: int = 0
    count: int = 0
    common: int = 0

    def see(self, values: "np.ndarray[Any, Any]") -> None:
        """Take numbers into account."""
        flat = values[np.isfinite(values)]
        self.count += len(flat)
        before = self.digits
        while self.digits < 8 and not np.allclose(np.round(flat, self.digits), flat, 1e-12, 10.0 ** (-self.digits - 4)):
            self.digits += 1
        whole = np.rint(np.minimum(np.abs(flat) * 10.0**self.digits, 2.0**62)).astype("i8")
        self.common = math.gcd(self.common * 10 ** (self.digits - before), int(np.gcd.reduce(whole)))

    def step(self, least: int = 0, steps: tuple[int, ...] = (1,)) -> float:
        """The first of `steps`, counted in the last decimal, that all numbers keep to; at most 10^-least."""
        return float(f"{next(n for n in steps if self.common % n == 0)}e-{max(self.digits, least)}")


@dataclass
class Line:
    """One kind of one instrument so far."""

    kind: str
    name: str
    source: int
    gate: Gate
    last: int | None = None
    stored: int = 0  # the latest `recv` that was stored
    first: int = np.iinfo(np.int64).max  # and the earliest
    price: float = 1.0
    rows: int = 0
    parts: int = 0
    sorted: bool = True
    told: bool = False
    waiting: int = 0
    pending: "list[pl.DataFrame]" = field(default_factory=list)
    prices: Grid = field(default_factory=Grid)
    volumes: Grid = field(default_factory=Grid)


@dataclass
class TickJob:
    """One import: settings, the directory being built, and what was found."""

    root: Path
    name: str
    on_error: str
    meta: Mapping[str, Any]
    book: str
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    notes: dict[str, int] = field(default_factory=dict)
    aside: "list[pl.DataFrame]" = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def note(self, what: str, count: int) -> None:
        """Count something that people should know and that is no error."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count

    def take(self, rows: Rows) -> None:
        """Number, check and store the rows of a piece, instrument by instrument."""
        import polars as pl

        for what, count in rows.notes.items():
            self.note(what, count)
        frame, source = rows.frame, MIXED if rows.mixed else KINDS[rows.kind].source
        if "seq" not in frame.columns:
            start = self.counts.get(source, 0)
            self.counts[source] = start + frame.height
            frame = frame.with_columns(seq=pl.int_range(start, start + frame.height, dtype=pl.Int64))
        frame = frame.with_columns(pl.Series("at", range(frame.height)))
        for part in frame.partition_by("instrument", maintain_order=True):
            at = part["at"].to_numpy()
            more = [(np.asarray(mask)[at], why) for mask, why in rows.problems]
            self._take_one(rows, part.drop("at"), more, source)

    def _line(self, kind: str, name: str, source: int) -> Line:
        line = self.lines.setdefault((kind, name), Line(kind, name, source, Gate(self.book == "snapshot")))
        if line.source != source:
            raise DataError(f"{self.name}: {kind} of {name} come from a recording of all kinds and from files of one "
                            "kind; import them as two datasets.")  # fmt: skip
        return line

    def _tick(self, name: str) -> float | None:
        own = self.meta.get(name)
        given = {**self.meta, **(own if isinstance(own, Mapping) else {})}.get("tick")
        return None if given is None else float(given)

    def _take_one(self, rows: Rows, part: "pl.DataFrame", more: Any, source: int) -> None:
        import polars as pl

        name = part["instrument"][0]
        line = self._line(rows.kind, name or "", source)
        lost = (part["ts"].is_null() | part["recv"].is_null()).to_numpy()
        part = part.with_columns(pl.col("ts", "recv").fill_null(0))
        more = [*more, (lost, "time is missing or unreadable")]
        if not name:
            more.append((np.ones(part.height, bool), "instrument is missing"))
        bad, reason, line.last = judge(rows.kind, part, line.last, self._tick(name or ""), more)
        for i in np.flatnonzero(bad):
            self.findings.add(rows.file, int(part["row"][int(i)]), name or "?", str(reason[i]))
        breaks: list[int] = []
        if rows.kind == "depth":
            unknown = line.gate.lost
            aside, reason, breaks = line.gate.pass_through(part, bad, reason)
            if unknown and aside[0] and not bad[0] and not line.told:
                line.told = True
                self.findings.add(rows.file, int(part["row"][0]), name, line.gate.why)
            bad = bad | aside
        if self.on_error == "keep":
            if lost.any() or not name:
                self.findings.refuse(self.name)
            line.sorted = False
        else:
            part = self._without(rows, line, part, bad, reason, breaks)
        if part.height:
            self._store(line, part)

    def _without(self, rows: Rows, line: Line, part: "pl.DataFrame", bad: "np.ndarray[Any, Any]",
                 reason: "np.ndarray[Any, Any]", breaks: list[int]) -> "pl.DataFrame":  # fmt: skip
        """The good rows, with an empty book where one was lost; the others go aside with their reason."""
        import polars as pl

        if not bad.any():
            return part
        mask = pl.Series(bad)
        if self.on_error == "quarantine":
            self.aside.append(part.filter(mask).with_columns(
                pl.lit(rows.kind).alias("kind"), pl.lit(rows.file).alias("file"),
                pl.Series("reason", [str(text) for text in reason[bad]], pl.String)))  # fmt: skip
        good = part.filter(~mask)
        if not breaks:
            return good
        # An empty snapshot: it clears the book and adds nothing. It arrives with the update that was lost, between
        # the good rows around it.
        recv, kept = part["recv"].to_numpy(), np.flatnonzero(~bad)
        times = []
        for at in breaks:
            place = int(np.searchsorted(kept, at))
            before = int(recv[kept[place - 1]]) if place else line.stored
            time = max(int(recv[at]), before)
            times.append(min(time, int(recv[kept[place]])) if place < len(kept) else time)
        clear = part[breaks].with_columns(
            recv=pl.Series(times, dtype=pl.Int64), price=pl.lit(line.price), volume=pl.lit(0.0),
            side=pl.lit(1, pl.Int64), last=pl.lit(1, pl.Int64), snapshot=pl.lit(1, pl.Int64))  # fmt: skip
        clear = clear.with_columns(ts=pl.min_horizontal("ts", "recv")).select(part.columns)
        self.note("books emptied where an update was lost", len(breaks))
        line.last = max(times[-1], line.last or times[-1])
        return pl.concat([good, clear], how="vertical_relaxed").sort("seq", maintain_order=True)

    def _store(self, line: Line, part: "pl.DataFrame") -> None:
        for column in PRICES[line.kind]:
            line.prices.see(part[column].to_numpy())
        for column in ("volume", "bid_volume", "ask_volume"):
            if column in part.columns:
                line.volumes.see(part[column].to_numpy())
        if line.kind == "quotes":
            both = part.filter((part["bid"] > 0) & (part["ask"] > 0))
            self.note("quotes crossed", int((both["bid"] > both["ask"]).sum()))
            self.note("quotes locked", int((both["bid"] == both["ask"]).sum()))
            bare = (both["bid_volume"] == 0) & (both["ask_volume"] == 0)
            self.note("quotes without volumes: no order is filled on them", int(bare.sum()))
        if line.kind == "depth":
            line.price = float(part["price"][-1])
        recv = part["recv"].to_physical().to_numpy()
        line.first, line.stored = min(line.first, int(recv.min())), max(line.stored, int(recv.max()))
        line.rows += part.height
        line.waiting += part.height
        line.pending.append(part.select(*TIMES, *KINDS[line.kind].fields))
        if line.waiting >= PART and line.sorted:
            self.flush(line)

    def flush(self, line: Line) -> None:
        """Write what waits of one kind of one instrument as the next Parquet part."""
        import polars as pl

        if not line.pending:
            return
        frame = pl.concat(line.pending, how="vertical_relaxed")
        line.pending, line.waiting = [], 0
        if not line.sorted:
            frame = frame.sort("recv", "seq")
        flags = [pl.col(name).cast(pl.Int8) for name in FLAGS if name in frame.columns]
        moments = [pl.col(name).cast(pl.Datetime("ns", "UTC")) for name in ("ts", "recv")]
        write_parquet(frame.with_columns(*moments, *flags),
                      self.root / folder(line.kind, line.name) / f"part-{line.parts}.parquet")  # fmt: skip
        line.parts += 1

    def describe(self, name: str) -> InstrumentInfo:
        """Metadata as far as the numbers tell, under what the caller gave."""
        own = [self.lines[kind, name] for kind in BOOK if (kind, name) in self.lines and self.lines[kind, name].rows]
        found: dict[str, Any] = {"name": name}
        if own:
            prices, volumes = own[0].prices, max((line.volumes for line in own), key=lambda grid: grid.digits)
            found |= {"tick": prices.step(0, STEPS) if prices.count >= FEW else prices.step(2), "lot": volumes.step()}
        return override(InstrumentInfo.fill(found), self.meta)


def close(job: TickJob, about: dict[str, Any]) -> None:
    """Judge the findings and write what is left, the quarantine and the manifest."""
    import polars as pl

    if job.on_error == "refuse":
        job.findings.refuse(job.name)
    lines = [line for line in job.lines.values() if line.rows]
    if not lines:
        raise DataError(f"{job.name}: no events to import." + "".join("\n  " + t for t in job.findings.lines[:5]))
    for line in lines:
        job.flush(line)
    if job.aside:
        write_parquet(pl.concat(job.aside, how="diagonal_relaxed"), job.root / "quarantine.parquet")
    found = {"count": job.findings.count, "kinds": job.findings.kinds, "first": job.findings.lines[:100]}
    names = list(dict.fromkeys(line.name for line in lines))
    write_manifest(job.root, [job.describe(name) for name in names], {
        "name": job.name, "kind": "ticks", "rows": {f"{line.kind} {line.name}": line.rows for line in lines},
        "sources": {folder(line.kind, line.name): line.source for line in lines}, "notes": job.notes,
        "first": min(line.first for line in lines), "last": max(line.stored for line in lines),
        "quarantined": sum(part.height for part in job.aside), "problems": found, **about})  # fmt: skip
