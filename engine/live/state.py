"""The memory of the execution service: a snapshot, then every input since, so that a restart goes on where it was.

Law 1: an input is written before it is carried out. What was cut off at the end was never acknowledged.
Law 2: the desk is a pure function of its inputs: carrying them out again gives the same reports with the same exec ids.

In the folder: `snapshot-<n>.bin` and `inputs-<n>.log`, the inputs since snapshot n. It survives the end of the process;
a power cut may cost the last seconds (nothing is forced to the disk between snapshots).
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import DataError
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live.service import FENCE, MARKET, Service
from engine.store.files import atomic_file

HEAD = struct.Struct("<IIqII")  # kind, bytes, the desk's time, CRC-32 of the bytes, and of what stands before it
LIMIT = 64 << 20  # bytes of inputs after which a snapshot is due


class Memory(Protocol):
    """A desk that can be put away and taken out again."""

    def snapshot(self) -> bytes:
        """Everything that it needs to go on."""

    def restore(self, state: bytes) -> None:
        """Back to a snapshot."""


class State:
    """A folder with the service's memory. `about` names settings that must be the same at a restart.

    Raises DataError for a folder that cannot be used, or that belongs to other settings.
    """

    def __init__(self, folder: Path, about: str, limit: int = LIMIT) -> None:
        self.folder, self.about, self.limit = folder, about, limit
        self._number, self._size, self._file = 0, 0, -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"state {folder}: cannot be made ({error.strerror}).") from error

    def load(self) -> tuple[bytes | None, dict[str, list[int]], list[tuple[int, int, bytes]]]:
        """The latest snapshot, who was heard last (engine -> token, connection), and the inputs after it."""
        snapshots = sorted(self.folder.glob("snapshot-*.bin"))
        snapshot: bytes | None = None
        fences: dict[str, list[int]] = {}
        if snapshots:
            head, _, snapshot = snapshots[-1].read_bytes().partition(b"\n")
            try:
                kept = json.loads(head)
                crc, about, fences = kept["crc"], kept["about"], kept["fences"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"state {snapshots[-1]}: damaged ({error}); begin with another folder.") from error
            if crc != zlib.crc32(snapshot):
                raise DataError(f"state {snapshots[-1]}: damaged; begin with another folder.")
            if about != self.about:
                raise DataError(f"state {self.folder}: of a venue with other instruments, cash or settings; "
                                "go back to those, or give another folder.")  # fmt: skip
            self._number = int(snapshots[-1].stem.partition("-")[2])
        inputs = list(self._read(self._path()))
        self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.truncate(self._path(), self._size)  # what was cut off at the end
        return snapshot, fences, inputs

    def _path(self) -> Path:
        return self.folder / f"inputs-{self._number:06d}.log"

    def _read(self, path: Path) -> Iterator[tuple[int, int, bytes]]:
        data, at = path.read_bytes() if path.exists() else b"", 0
        while at + HEAD.size <= len(data):
            kind, size, now, crc, own = HEAD.unpack_from(data, at)
            begin, end = at + HEAD.size, at + HEAD.size + size
            sound, payload = own == zlib.crc32(data[at : begin - 4]), data[begin:end]
            if not sound or end > len(data) or zlib.crc32(payload) != crc:
                if any(data[at:]) and not (sound and end >= len(data)):  # nothing but zeros: a power cut
                    raise DataError(f"state {path}: damaged at byte {at}; begin with another folder.")
                break
            at = end
            self._size = at
            yield kind, now, payload

    def keep(self, kind: int, now: int, payload: bytes) -> None:
        """Write an input. Raises DataError when the disk does not take it."""
        head = HEAD.pack(kind, len(payload), now, zlib.crc32(payload), 0)[:-4]
        record = head + struct.pack("<I", zlib.crc32(head)) + payload
        try:
            written = os.write(self._file, record)
        except OSError as error:
            raise DataError(f"state {self._path()}: cannot be written ({error.strerror}).") from error
        if written != len(record):
            os.ftruncate(self._file, self._size)  # a piece of it must not stand before what comes next
            raise DataError(f"state {self._path()}: the disk is full.")
        self._size += len(record)

    @property
    def due(self) -> bool:
        """Whether a snapshot is due."""
        return self._size >= self.limit

    def snapshot(self, state: bytes, fences: dict[str, tuple[int, int]]) -> None:
        """Write a snapshot and begin with no inputs; older ones go."""
        self.close()
        self._number, self._size = self._number + 1, 0
        head = json.dumps({"about": self.about, "crc": zlib.crc32(state), "fences": fences})
        with atomic_file(self.folder / f"snapshot-{self._number:06d}.bin") as part:
            part.write_bytes(head.encode() + b"\n" + state)
        self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for path in (*self.folder.glob("snapshot-*.bin"), *self.folder.glob("inputs-*.log")):
            if int(path.stem.partition("-")[2]) < self._number:
                path.unlink()

    def close(self) -> None:
        """Close the file of inputs."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def revive(state: State, desk: Memory, service: Service) -> int:
    """Put a desk and its service back to where they were; how many inputs were carried out again. Raises DataError."""
    snapshot, fences, inputs = state.load()
    if snapshot is None:
        state.snapshot(desk.snapshot(), {})
        return 0
    desk.restore(snapshot)
    service.recall()
    service.fences.update({engine: (token, connection) for engine, (token, connection) in fences.items()})
    for kind, now, payload in inputs:
        if kind == FENCE:
            engine, token, connection = json.loads(payload)
            service.fences[engine] = (token, connection)
        else:
            service.apply(kind, now, np.frombuffer(payload, Event.dtype if kind == MARKET else Order.dtype).copy())
    return len(inputs)
