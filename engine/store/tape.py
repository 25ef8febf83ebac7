"""The tape: events in order in a memory-mapped file, or in memory for small frames.

Law 1: a tape is sorted by `recv`, the time of arrival (for bars the close), and read-only;
       a span of it is a view, never a copy.
Law 2: a file is a tape only if its magic, version, record layout and size all agree; else it is refused.

File layout, little endian: 8 bytes magic, u4 version, u4 length of the manifest, u8 offset of the events
(a multiple of 64), u8 number of events, then the manifest (JSON), zeros up to the offset, then raw Event rows.
"""

import ctypes
import hashlib
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.kernel.events import Event
from engine.store.files import atomic_file, text_hash
from engine.store.instruments import InstrumentInfo, from_json, to_json

MAGIC = b"TNDMTAPE"
VERSION = 1
HEAD = struct.Struct("<8sIIQQ")
ALIGN = 64
ROW = np.dtype((np.void, 64))  # an event as opaque bytes: copied whole, not field by overlapping field
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Events = np.ndarray[Any, Any]
Time = str | date | datetime | None


@cache
def schema_hash() -> str:
    """Hash of the layout of an Event: names, types and offsets."""
    columns: Any = Event.dtype.fields
    text = ";".join(f"{name}:{item[0].str}@{item[1]}" for name, item in sorted(columns.items()))
    return hashlib.sha256(f"{Event.dtype.itemsize};{text}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tape:
    """Events in order, and what their instrument numbers mean.

    `events`: read-only array of Event.dtype sorted by recv; at equal times bars stand in the order of their
    instruments, single events in that of their source and its sequence;
    `instruments`: row i describes events with `instrument == i`; `digest`: hash of what it was built from,
    span included; `name`: for people.
    """

    events: Events
    instruments: tuple[InstrumentInfo, ...]
    digest: str
    name: str

    def __post_init__(self) -> None:
        if self.events.dtype != Event.dtype or self.events.flags.writeable:
            raise DataError(f"tape {self.name}: events must be a read-only array of Event.dtype (see `frozen`).")

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        names = ", ".join(info.name for info in self.instruments[:5]) + (", …" if len(self.instruments) > 5 else "")
        return f"Tape({self.name}: {len(self)} events of {names}; {self.digest[:12]})"

    def span(self, start: Time = None, end: Time = None) -> "Tape":
        """The events with start <= recv < end, as a view. Raises DataError for an empty span, ConfigError for
        a time that cannot be read or a start that is not before the end."""
        first, last = to_ns(start, "start"), to_ns(end, "end")
        if first is not None and last is not None and first >= last:
            raise ConfigError(f"start={start} is not before end={end}; the span is [start, end).")
        ts = self.events["recv"]
        low = 0 if first is None else int(np.searchsorted(ts, first, side="left"))
        high = len(ts) if last is None else int(np.searchsorted(ts, last, side="left"))
        if low >= high:
            raise DataError(f"{self.name}: no events in [{start or 'begin'}, {end or 'end'}); "
                            f"the data run from {to_text(ts[0])} to {to_text(ts[-1])}.")  # fmt: skip
        if (low, high) == (0, len(ts)):
            return self
        return Tape(self.events[low:high], self.instruments, text_hash(self.digest, str(low), str(high)), self.name)


def to_ns(when: Time, what: str = "time") -> int | None:
    """A moment as ns UTC. Texts are ISO 8601; without a time zone they are UTC; a date is its midnight.

    Raises ConfigError for anything else.
    """
    if when is None or (isinstance(when, str) and not when.strip()):
        return None
    try:
        moment = datetime.fromisoformat(when.strip()) if isinstance(when, str) else when
    except ValueError as error:
        raise ConfigError(f"{what}={when!r} is not a date; write 2012-01-31 or 2012-01-31T14:30:00+00:00.") from error
    if not isinstance(moment, date):
        raise ConfigError(f"{what}={when!r} must be a text, a date or a datetime, not {type(when).__name__}.")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def to_text(ns: int) -> str:
    """ns UTC as ISO text for messages."""
    moment = EPOCH + timedelta(microseconds=int(ns) // 1000)
    return moment.strftime("%Y-%m-%d" if int(ns) % 86_400_000_000_000 == 0 else "%Y-%m-%dT%H:%M:%SZ")


def blank(count: int) -> Events:
    """Zeroed events in memory, aligned to a cache line."""
    raw = np.zeros(count * Event.dtype.itemsize + ALIGN, np.uint8)
    shift = -raw.ctypes.data % ALIGN
    return raw[shift : shift + count * Event.dtype.itemsize].view(Event.dtype)


def to_bytes(events: Events) -> memoryview:
    """The bytes of events, without a copy if they lie side by side."""
    return np.ascontiguousarray(events.view(ROW)).view(np.uint8).data


def join(parts: Sequence[Events]) -> Events:
    """Events one after another. `np.concatenate` itself would give overlapping fields bytes of their own."""
    return parts[0] if len(parts) == 1 else np.concatenate([part.view(ROW) for part in parts]).view(Event.dtype)


class TapeWriter:
    """Appends events to an open tape file; the count in the header is written last."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.count = 0
        self._last = np.iinfo(np.int64).min

    def append(self, events: Events) -> None:
        """Write events whose `recv` does not go back. Raises DataError if it does."""
        if len(events) == 0:
            return
        ts = events["recv"]
        if ts[0] < self._last or (len(ts) > 1 and bool((ts[1:] < ts[:-1]).any())):
            raise DataError(f"events for a tape go back in time near {to_text(ts[0])}; sort them by time first.")
        self._file.write(to_bytes(events))
        self.count += len(events)
        self._last = int(ts[-1])


@contextmanager
def write_tape(path: Path, instruments: tuple[InstrumentInfo, ...], digest: str, name: str) -> Iterator[TapeWriter]:
    """Write a tape file piece by piece; it appears under `path` complete, or not at all.

    Raises DataError for a full disk or events out of order.
    """
    manifest = json.dumps({
        "schema": schema_hash(), "digest": digest, "name": name, "instruments": json.loads(to_json(instruments)),
    }, sort_keys=True).encode()  # fmt: skip
    offset = -(-(HEAD.size + len(manifest)) // ALIGN) * ALIGN
    with atomic_file(path) as part, part.open("wb") as file:
        file.write(HEAD.pack(MAGIC, VERSION, len(manifest), offset, 0))
        file.write(manifest.ljust(offset - HEAD.size, b"\0"))
        writer = TapeWriter(file)
        yield writer
        file.seek(0)
        file.write(HEAD.pack(MAGIC, VERSION, len(manifest), offset, writer.count))


def read_tape(path: Path) -> Tape:
    """Map a tape file. Raises DataError if it is missing, cut, of another layout or not a tape."""
    cure = "remove it; it is built again from its dataset"
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                raise DataError(f"tape {path}: only {size} bytes, shorter than a header; {cure}.")
            magic, version, length, offset, count = HEAD.unpack(head)
            if magic != MAGIC or version != VERSION:
                raise DataError(f"tape {path}: not a tape of version {VERSION}; {cure}.")
            text = file.read(length)
    except OSError as error:
        raise DataError(f"tape {path}: cannot be read ({error.strerror}); {cure}.") from error
    if size != offset + count * Event.dtype.itemsize or offset % ALIGN:
        raise DataError(f"tape {path}: {size} bytes do not fit its {count} events, it was cut or altered; {cure}.")
    try:
        manifest = json.loads(text)
        infos = from_json(json.dumps(manifest["instruments"]), str(path))
        schema, digest, name = manifest["schema"], manifest["digest"], manifest["name"]
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"tape {path}: its manifest is damaged ({error}); {cure}.") from error
    if schema != schema_hash():
        raise DataError(f"tape {path}: written with another event layout ({schema}); {cure}.")
    if count == 0:
        return Tape(frozen(blank(0)), infos, digest, name)
    events = np.memmap(path, dtype=Event.dtype, mode="r", offset=offset, shape=(count,))
    return Tape(events, infos, digest, name)


POPULATE_READ = 22  # of Linux 5.14: read the pages and put them into the page table; Python has no name for it


def fetch(events: Events) -> None:
    """Bring events of a mapped file into memory before they are needed; in a thread, the caller does not wait.

    Only advice: a system that does not take it brings each page when it is touched, as it does without.
    """
    if not isinstance(events, np.memmap) or not hasattr(mmap, "MADV_WILLNEED") or len(events) == 0:
        return
    first = events.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = ctypes.c_size_t(events.ctypes.data + events.nbytes - first)
    advise = ctypes.CDLL(None).madvise
    if not sys.platform.startswith("linux") or advise(ctypes.c_void_p(first), length, POPULATE_READ):
        advise(ctypes.c_void_p(first), length, mmap.MADV_WILLNEED)


def frozen(events: Events) -> Events:
    """The same events, read-only."""
    events.flags.writeable = False
    return events
