"""Blocks of records, many in one call of compiled code: checked, and their records put side by side.

Law: it takes whole and sound blocks of records in their order. In front of anything else (damage, a reload, the end of
     a segment, a number that does not follow) it stops; what that means is the reader's to say.

The checksum is zlib's CRC-32, sixteen bytes at a time. Source: Kounavis and Berry 2005, "A systematic approach to
building high performance software-based CRC generators" (slicing).
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from engine.journal.format import BARE, BLOCK_MAGIC, EVENTS, OPAQUE, ORDERS, REFUSALS, ROW
from engine.kernel.layout import I8, U4, Array, Record
from engine.kernel.primitives import Pointer, hot
from engine.kernel.records import copy_line

MAGIC = int.from_bytes(BLOCK_MAGIC, "little")
ONES = 0xFFFF_FFFF
SLICES = 16
Rows = np.ndarray[Any, np.dtype[np.void]]
CAPACITY = 1 << 16  # records of each kind that fit; a larger block is left to the reader


class BlockRow(Record):
    """The row before a payload, as `format.BLOCK` has it."""

    magic: Annotated[int, "u4", 0]
    kind: Annotated[int, "u4", 4]
    first: Annotated[int, "i8", 8]
    count: Annotated[int, "u4", 16]
    length: Annotated[int, "u4", 20]
    crc: Annotated[int, "u4", 60]


class Words(Record):
    """Sixteen bytes."""

    a: U4
    b: U4
    c: U4
    d: U4


class Entry(Record):
    """One number of a table."""

    value: U4


class Scan(Record):
    """What `scan_blocks` is given, addresses and places, and how far it has come."""

    memory: I8  # the mapped segment
    place: I8  # next block
    end: I8
    tables: I8
    chain: I8
    into: Array[int, 4]  # by kind, where its records go
    taken: Array[int, 4]  # how many have gone there
    numbers: Array[int, 4]  # the number that its next record must have


scan_at, row_at, words_at, entry_at = Pointer(Scan), Pointer(BlockRow), Pointer(Words), Pointer(Entry)


def crc_tables() -> "np.ndarray[Any, np.dtype[np.uint32]]":
    """What byte b, followed by k bytes of zero, adds to a CRC-32: shape (16, 256), `[k, b]`."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0xEDB8_8320), table >> 1)
    tables = [table]
    for _ in range(SLICES - 1):
        tables.append(tables[-1] >> 8 ^ table[tables[-1] & 255])
    return np.array(tables, np.uint32)


@hot
def entry(tables: int, k: int, byte: int) -> int:
    """One number of the tables."""
    return entry_at(tables + (k << 10) + ((byte & 255) << 2)).value & ONES  # an integer with a sign, as all others


@hot
def four(tables: int, k: int, word: int) -> int:
    """What four bytes, followed by k more, add."""
    return (
        entry(tables, k + 3, word)
        ^ entry(tables, k + 2, word >> 8)
        ^ entry(tables, k + 1, word >> 16)
        ^ entry(tables, k, word >> 24)
    )


def crc_of(tables: int, at: int, length: int, before: int) -> int:
    """zlib.crc32 of `length` bytes, a multiple of four, going on from `before`."""
    crc, end = before ^ ONES, at + length
    while at + 16 <= end:
        w = words_at(at)
        later = four(tables, 8, w.b & ONES) ^ four(tables, 4, w.c & ONES) ^ four(tables, 0, w.d & ONES)
        crc = later ^ four(tables, 12, w.a & ONES ^ crc)
        at += 16
    while at < end:
        crc = four(tables, 0, words_at(at).a & ONES ^ crc)
        at += 4
    return crc ^ ONES


def scan_blocks(address: int) -> None:
    """Take blocks from `place` on, as long as they are sound records that follow and there is room."""
    s = scan_at(address)
    while s.place + ROW <= s.end:
        here = s.memory + s.place
        row = row_at(here)
        kind, count, size = row.kind & ONES, row.count & ONES, row.length & ONES
        if (
            row.magic & ONES != MAGIC
            or not EVENTS <= kind <= REFUSALS
            or size != ROW * count
            or s.place + ROW + size > s.end
        ):
            break
        if row.first != s.numbers[kind] or s.taken[kind] + count > CAPACITY:
            break
        if crc_of(s.tables, here + ROW, size, crc_of(s.tables, here, BARE, 0)) != row.crc & ONES:
            break
        into = s.into[kind] + s.taken[kind] * ROW
        for k in range(count):
            copy_line(into + k * ROW, here + ROW + k * ROW)
        s.chain = crc_of(s.tables, here, ROW, s.chain)
        s.taken[kind] += count
        s.numbers[kind] += count
        s.place += ROW + size


class Scanner:
    """The buffers, two of each kind, and the compiled function (or the same in plain Python) over them."""

    def __init__(self, run: Callable[[int], None] = scan_blocks) -> None:
        self.run, self.state, self.tables = run, Scan.new(), crc_tables()
        self.state.tables = self.tables.ctypes.data
        self.rows = {kind: [np.empty(CAPACITY, OPAQUE) for _ in range(2)] for kind in (EVENTS, ORDERS, REFUSALS)}

    def take(self, memory: memoryview, at: int, counts: list[int], chain: int) -> tuple[int, int, dict[int, Rows]]:
        """As many blocks as there are and fit, from `at` on: where the next begins, the chain then, the rows by kind.

        `counts` moves on. Rows that fill half a buffer or more lie there, until the second call after this that finds
        any of their kind.
        """
        s = self.state
        s.memory, s.place, s.end = np.frombuffer(memory, np.uint8).ctypes.data, at, len(memory)
        s.chain = chain
        for kind, (buffer, _) in self.rows.items():
            s.into[kind], s.taken[kind], s.numbers[kind] = buffer.ctypes.data, 0, counts[kind]
        self.run(s._address)
        found: dict[int, Rows] = {}
        for kind, buffers in self.rows.items():
            records = s.taken[kind]
            if records:
                counts[kind] += records
                part = buffers[0][:records]
                found[kind] = part if 2 * records >= CAPACITY else part.copy()
                buffers.reverse()
        return s.place, s.chain, found
