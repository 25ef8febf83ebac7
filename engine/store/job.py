"""The work of one import: places times, checks rows, adjusts, and writes the Parquet parts.

Law 1: no row is changed or dropped silently: refused, set aside with its reason, or kept as it is.
Law 2: without corporate actions memory holds pieces of files, not files; with them, one instrument at a time.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import DataError
from engine.store import adjust as corporate
from engine.store import calendars, frames, reading, validate
from engine.store.dataset import GROUP, folder, write_manifest
from engine.store.instruments import InstrumentInfo, override

if TYPE_CHECKING:
    import polars as pl

ADJUSTED_TICK = 1e-6
BUFFER = 1 << 22  # rows over all instruments before they are written


@dataclass
class Line:
    """What the import knows of one instrument so far."""

    name: str
    number: int
    info: InstrumentInfo
    last: int | None = None
    first: int | None = None
    rows: int = 0
    parts: int = 0
    sorted: bool = True
    adjusted: bool = False
    pending: "list[pl.DataFrame]" = field(default_factory=list)
    waiting: int = 0
    row_actions: list[corporate.Action] = field(default_factory=list)


@dataclass
class Job:
    """One import: settings, the directory being built, and what was found."""

    root: Path
    name: str
    timezone: str
    label: str | None
    interval_ns: int | None
    time_format: str | None
    adjust: str
    dividend_base: str
    on_error: str
    meta: Mapping[str, Any]
    given: Mapping[str, list[corporate.Action]]
    max_gap_ns: int | None
    silent: bool = False  # about pauses
    days: bool | None = None
    bar_ns: int = 0
    files: list[str] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    findings: validate.Findings = field(default_factory=validate.Findings)
    aside: "list[pl.DataFrame]" = field(default_factory=list)
    naive: bool = False
    warnings: list[str] = field(default_factory=list)

    # -- one piece of a source ---------------------------------------------------------------------------------

    def take(self, frame: "pl.DataFrame") -> None:
        """Place times, check and store the rows of a piece, instrument by instrument."""
        for part in frame.partition_by("instrument", maintain_order=True):
            self._take_one(part["instrument"][0], part)
        if sum(line.waiting for line in self.lines.values()) > BUFFER:
            for line in self.lines.values():
                self.flush(line)

    def _line(self, name: str) -> Line:
        if name not in self.lines:
            info = override(InstrumentInfo(name=name or "instrument"), self.meta)
            self.lines[name] = Line(name, len(self.lines), info)
        return self.lines[name]

    def _take_one(self, name: str, part: "pl.DataFrame") -> None:
        import polars as pl

        line = self._line(name)
        ts, strange = self._closes(part, line)
        lost = ts.is_null().to_numpy()
        part = part.with_columns(ts.fill_null(0).alias("ts"))
        extra = [(lost, "time is missing, unreadable or does not exist in its time zone"),
                 (strange, f"date is no session of the calendar {line.info.calendar}")]  # fmt: skip
        if name == "":
            extra.append((np.ones(part.height, bool), "instrument is missing"))
        bad, reasons, line.last = validate.check(part, line.last, name, self.files, self.findings, extra)
        if bad.any() and self.on_error == "quarantine":
            where = pl.Series([self.files[i] for i in part["file"].filter(pl.Series(bad))])
            self.aside.append(part.filter(pl.Series(bad)).drop("file").with_columns(
                where.alias("file"), pl.Series("reason", reasons, pl.String)))  # fmt: skip
        if self.on_error == "keep":
            hopeless = lost | (name == "")
            if hopeless.any():
                self.findings.refuse(self.name)
            line.sorted &= not bad.any()
        else:
            part = part.filter(pl.Series(~bad))
        if part.height:
            line.rows += part.height
            line.pending.append(part)
            line.waiting += part.height
        if line.waiting >= GROUP and not self.whole(line):
            self.flush(line)

    def _closes(self, part: "pl.DataFrame", line: Line) -> "tuple[pl.Series, np.ndarray[Any, Any]]":
        """The close of each bar, ns UTC (null if it has none), and which dates are no session."""
        import polars as pl

        where = self.files[part["file"][0]]
        local, dates = frames.local_times(part["ts"], where, self.time_format, lenient=True)
        zone = getattr(local.dtype, "time_zone", None)
        self.naive |= zone is None
        if self.days is None:
            wall = local.drop_nulls().to_physical()
            step = frames.steps(np.sort(wall.to_numpy()))
            whole = bool((wall % frames.DAY_NS == 0).all()) and (step == 0 or step >= frames.DAY_NS)
            self.days = dates or (self.label is None and zone is None and whole)
            self.interval_ns = self.interval_ns or step
            if self.label == "start" and not self.days and self.interval_ns == 0:
                raise DataError(f"{where}: one bar does not tell its length; give interval='1m' or the like.")
            self.bar_ns = 0 if self.days else self.interval_ns
        if self.days:
            days = (local.to_physical() // frames.DAY_NS).fill_null(strategy="forward").fill_null(0)
            closes, exact, self.bar_ns = calendars.day_closes(days.to_numpy().astype(np.int64), line.info.calendar)
            return pl.Series(closes).zip_with(local.is_not_null(), pl.Series([None], dtype=pl.Int64)), ~exact
        ts = frames.zoned(local, self.timezone).to_physical()
        return ts + (self.interval_ns or 0 if self.label == "start" else 0), np.zeros(part.height, bool)

    # -- one instrument ----------------------------------------------------------------------------------------

    def whole(self, line: Line) -> bool:
        """Whether this instrument must be complete before it can be written."""
        columns = line.pending[0].columns if line.pending else ()
        return self.on_error == "keep" or any(c in columns for c in reading.OPTIONAL) or bool(self.given.get(line.name))

    def flush(self, line: Line, last: bool = False) -> None:
        """Write what waits of an instrument as the next Parquet part."""
        import polars as pl

        if not line.pending or (self.whole(line) and not last):
            return
        frame = pl.concat(line.pending)
        line.pending, line.waiting = [], 0
        if not line.sorted:
            frame = frame.sort("ts", maintain_order=True)
        if line.parts == 0:
            line.info = self._describe(line, frame)
        write_parquet(frame.select(pl.col("ts").cast(pl.Datetime("ns", "UTC")), *frames.FIELDS),
                      self.root / folder(line.name) / f"part-{line.parts}.parquet")  # fmt: skip
        line.parts += 1

    def finish(self, line: Line) -> None:
        """Adjust and write the rest of an instrument, then look for gaps."""
        import polars as pl

        if line.pending and self.whole(line):
            frame = pl.concat(line.pending)
            if not line.sorted:
                frame, line.sorted = frame.sort("ts", maintain_order=True), True
            line.pending = [self._adjusted(line, frame)]
        self.flush(line, last=True)
        if line.rows == 0:
            return
        ts = pl.scan_parquet(self.root / folder(line.name) / "part-*.parquet", hive_partitioning=False).select("ts")
        times = ts.collect()["ts"].to_physical().to_numpy()
        line.first, line.last = int(times[0]), int(times[-1])
        found = calendars.gaps(times, line.info.calendar, self.interval_ns or 0, self.max_gap_ns)
        cure = calendars.gap_cure(times, line.info.calendar) if found else ""
        for at, text in found:
            self.findings.add(self.name, at + 1, line.name, text, cure)
        if not self.days:
            self._outside(line, times)
            if self.max_gap_ns is None and not self.silent:
                self._holes(line, times)

    def _holes(self, line: Line, times: "np.ndarray[Any, Any]") -> None:
        """A word on pauses that chance does not explain: nobody has said how long a pause may be."""
        most, found = calendars.holes(times, line.info.calendar, self.interval_ns or 0)
        if found:
            count, start, end = max(found)
            first, last = (str(np.datetime64(ns // 10**9, "s")).replace("T", " ") for ns in (start, end))
            some = len(found) > 1
            what = f"{len(found):,} pauses, the longest {count:,} bars" if some else f"a pause of {count:,} bars"
            self.warnings.append(f"{line.name}: {what} ({first} to {last} UTC), inside sessions, where chance explains "
                                 f"{most} in a row. Complete the source, or say how long a pause may be: max_gap=30m "
                                 "makes a longer one a problem, max_gap=off is silent")  # fmt: skip

    def _outside(self, line: Line, times: "np.ndarray[Any, Any]") -> None:
        """Bars outside the sessions: a problem if another time zone explains them, else a warning."""
        import polars as pl

        calendar = line.info.calendar
        lost = calendars.outside(times, calendar)
        count = int(lost.sum())
        if not count:
            return
        text = f"{count} of {len(times)} bars lie outside the sessions of {calendar}"
        known = calendars.span_of(times, calendar)
        zone = known.zone
        if self.naive and zone != self.timezone:
            local = pl.Series(times).cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone(self.timezone)
            there = frames.zoned(local.dt.replace_time_zone(None), zone).to_physical().drop_nulls().to_numpy()
            fewer = int(calendars.outside(there, calendar).sum())
            if 2 * fewer < count:
                at = int(np.argmax(lost))
                self.findings.add(self.name, at + 1, line.name, f"session: {text}, beginning with this one", (
                    f"Times without a zone were read as {self.timezone}, in which {count} bars lie outside the "
                    f"sessions, and {fewer} would in that of {calendar}: give timezone={zone}."))  # fmt: skip
                return
        at_open = int(np.isin(times[lost], known.opens).sum())
        hint = f"; {at_open} of them close as it opens: if times are the start of a bar, give label=start"
        self.warnings.append(f"{line.name}: {text}{hint if 2 * at_open >= count else ''}")

    def _describe(self, line: Line, frame: "pl.DataFrame") -> InstrumentInfo:
        tick = ADJUSTED_TICK if line.adjusted else frames.infer_tick(frame.select(frames.FIELDS[:4]).to_numpy())
        zone = {"timezone": self.timezone} if line.info.timezone == "UTC" else {}
        found = {**line.info.asdict(), "tick": tick, "bar_ns": self.bar_ns, **zone}
        return override(InstrumentInfo.fill(found), self.meta)

    def _opens(self, ts: "np.ndarray[Any, Any]", info: InstrumentInfo) -> "np.ndarray[Any, Any]":
        """The open of each bar: of its session for daily bars, else its close less the interval."""
        if not self.days:
            return ts - max(self.bar_ns, 1)
        known = calendars.span_of(ts, info.calendar)
        at = np.minimum(np.searchsorted(known.closes, ts, side="left"), len(known.opens) - 1)
        return np.asarray(np.minimum(known.opens[at], ts - 1))

    def _adjusted(self, line: Line, frame: "pl.DataFrame") -> "pl.DataFrame":
        """Apply corporate actions, or note them as events."""
        import polars as pl

        ts, close = frame["ts"].to_numpy(), frame["close"].to_numpy()
        opens = self._opens(ts, line.info)
        actions = list(self.given.get(line.name, ())) + self._from_rows(frame, opens)
        vendor = "adj_close" in frame.columns and not actions
        if vendor and self.adjust != "none":
            actions = corporate.infer_actions(opens, close, frame["adj_close"].to_numpy(), self.dividend_base)
        if self.adjust == "events":
            line.row_actions = actions
        if self.adjust != "apply" or not (actions or vendor):
            return frame
        line.adjusted = True
        price, volume = corporate.factors(ts, close, actions, self.dividend_base)
        if vendor:
            price = frame["adj_close"].to_numpy() / close
        return frame.with_columns(
            *(pl.Series(name, np.round(frame[name].to_numpy() * price, 6)) for name in frames.FIELDS[:4]),
            pl.Series("volume", frame["volume"].to_numpy() * volume),
        )

    def _from_rows(self, frame: "pl.DataFrame", opens: "np.ndarray[Any, Any]") -> list[corporate.Action]:
        """Actions that stand in the rows of their ex-date."""
        found = []
        for kind, nothing in (("split", 1.0), ("dividend", 0.0)):
            if kind in frame.columns:
                value = frame[kind].fill_nan(nothing).to_numpy()
                field_name = "ratio" if kind == "split" else "amount"
                found += [corporate.Action(int(opens[i]), kind, **{field_name: float(value[i])})
                          for i in np.flatnonzero((value != nothing) & (value != 0))]  # fmt: skip
        return found


def write_parquet(frame: "pl.DataFrame", path: Path) -> None:
    """One Parquet file, zstd; through Python's own file, so that a full disk is an OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", row_group_size=GROUP)
    with open(path, "wb") as file:
        file.write(buffer.getbuffer())


def close(job: Job, about: dict[str, Any]) -> None:
    """Judge the findings and write everything but the bars."""
    import polars as pl

    if job.on_error == "refuse":
        job.findings.refuse(job.name)
    lines = [line for line in job.lines.values() if line.rows]
    unknown = sorted(set(job.given) - set(job.lines))
    if unknown:
        raise DataError(f"{job.name}: corporate actions for {unknown[0]!r}, which has no bars; the sources have "
                        f"{', '.join(job.lines)}.")  # fmt: skip
    if not lines:
        raise DataError(f"{job.name}: no bars in {', '.join(job.files[:5]) or 'the sources'}; nothing was imported."
                        + "".join("\n  " + text for text in job.findings.lines[:5]))  # fmt: skip
    if job.aside:
        write_parquet(pl.concat(job.aside, how="diagonal_relaxed"), job.root / "quarantine.parquet")
    events = [(line.name, a.ts, a.kind, a.ratio, a.amount)
              for line in lines for a in sorted(line.row_actions, key=lambda a: a.ts)]  # fmt: skip
    if events:
        schema = {"instrument": pl.String, "ts": pl.Int64, "kind": pl.String, "ratio": pl.Float64, "amount": pl.Float64}
        frame = pl.DataFrame(events, schema=schema, orient="row")
        write_parquet(frame.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC"))), job.root / "actions.parquet")
    found = {"count": job.findings.count, "kinds": job.findings.kinds, "first": job.findings.lines[:100]}
    write_manifest(job.root, [line.info for line in lines], {
        "name": job.name, "interval_ns": job.interval_ns, "rows": sum(line.rows for line in lines), "problems": found,
        "first": min(line.first or 0 for line in lines), "last": max(line.last or 0 for line in lines),
        "quarantined": sum(frame.height for frame in job.aside), "warnings": job.warnings,
        "naive": job.naive and not job.days, **about})  # fmt: skip
