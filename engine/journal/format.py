"""How a journal lies on disk: a directory of segments, each of them rows of 64 bytes.

    000000.tape   head       one row: magic, version, number, chain, length of the header, crc
                  header     JSON: what ran, padded to whole rows; the same in every segment
                  block      one row (magic, kind, number of its first record, count, bytes, crc), then its payload:
                             records of 64 bytes, or JSON, padded to whole rows
                  ...
                  end        a block: the segment is whole, another one goes on; or the seal: the session has ended

Law 1: a checksum covers every byte: a crc is zlib's CRC-32 of the block's row without its crc, then of the payload; the
       chain is the CRC-32 of all rows of blocks so far, so that no segment can be missing or another one's.
Law 2: the records of each kind are numbered from 0 without a gap, across the segments.
Law 3: numbers of kinds keep their meaning; journals outlive processes.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.kernel.events import Event
from engine.kernel.records import Order, Refusal

MAGIC = b"TNDMJRNL"
VERSION = 1
ROW = 64
OPAQUE = np.dtype((np.void, ROW))  # a row as it is copied
HEAD = struct.Struct("<8sIIIQI28xI")
BLOCK_MAGIC = b"TBLK"
BLOCK = struct.Struct("<4sIQII36xI")
BARE = ROW - 4  # of a row, before its crc

EVENTS, ORDERS, REFUSALS, RELOADS, END, SEAL = 1, 2, 3, 4, 5, 6
RECORDS = {EVENTS: Event.dtype, ORDERS: Order.dtype, REFUSALS: Refusal.dtype}
COUNTED = {EVENTS: "events", ORDERS: "orders", REFUSALS: "refusals", RELOADS: "reloads"}  # what is numbered


@cache
def layouts() -> str:
    """Checksum over the layouts of all records that a journal holds."""
    fields: list[Any] = [sorted((n, f[0].str, f[1]) for n, f in (d.fields or {}).items()) for d in RECORDS.values()]
    return f"{zlib.crc32(repr(fields).encode()):08x}"


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:06d}.tape"


def padded(length: int) -> int:
    """Bytes in whole rows."""
    return length + -length % ROW


def head(number: int, chain: int, header: dict[str, Any]) -> bytes:
    """The first rows of a segment."""
    text = json.dumps(header, sort_keys=True).encode()
    rows = text.ljust(padded(len(text)), b"\0")
    bare = HEAD.pack(MAGIC, VERSION, number, chain, len(text), zlib.crc32(rows), 0)[:BARE]
    return bare + struct.pack("<I", zlib.crc32(bare)) + rows


def block_row(kind: int, first: int, count: int, payload: "bytes | memoryview", size: int) -> bytes:
    """The row before a payload; `size` is the payload's length without its padding."""
    bare = BLOCK.pack(BLOCK_MAGIC, kind, first, count, size, 0)[:BARE]
    return bare + struct.pack("<I", zlib.crc32(payload, zlib.crc32(bare)))


@dataclass(frozen=True)
class Place:
    """A place between two blocks (segment, offset in bytes), and the records by kind that were written before it."""

    segment: int = 0
    offset: int = 0
    chain: int = 0
    counts: tuple[int, ...] = (0, 0, 0, 0, 0)
    ended: bool = False  # nothing more goes into this segment

    @property
    def events(self) -> int:
        """Events before it."""
        return self.counts[EVENTS]

    @property
    def orders(self) -> int:
        """Orders before it."""
        return self.counts[ORDERS]

    @property
    def reloads(self) -> int:
        """Reloads before it."""
        return self.counts[RELOADS]


class Block(NamedTuple):
    """One block as it was read; `payload` is a view of the mapped file, without padding."""

    kind: int
    first: int
    records: int
    payload: memoryview

    def rows(self) -> "np.ndarray[Any, Any]":
        """Its records, read-only, not copied."""
        return np.frombuffer(self.payload, RECORDS[self.kind])

    def words(self) -> Any:
        """What a block of JSON says."""
        return json.loads(bytes(self.payload))


def sound(memory: memoryview, at: int) -> tuple[int, int, int, int] | None:
    """(kind, first, count, size) of the block at `at`; None when there is no whole and sound one."""
    if at + ROW > len(memory):
        return None
    magic, kind, first, count, size, crc = BLOCK.unpack_from(memory, at)
    end = at + ROW + size + -size % ROW
    if magic != BLOCK_MAGIC or end > len(memory):
        return None
    if zlib.crc32(memory[at + ROW : end], zlib.crc32(memory[at : at + BARE])) != crc:
        return None
    return kind, first, count, size


def called(folder: Path) -> str:
    """What a journal is called in messages."""
    return f"journal {folder.name}"
