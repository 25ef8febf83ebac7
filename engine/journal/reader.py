"""Reading a journal: memory-mapped, block by block, each checked before anybody sees it.

Law 1: what is returned is exactly what was written; damage is an error that names file and offset.
Law 2: only the last block of the last segment may be torn, by a crash or because it is being written; then the blocks
       before it are the journal, and `torn` says what was left out.
"""

import json
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import JournalError
from engine.journal import format as form
from engine.journal.format import COUNTED, END, RECORDS, ROW, SEAL, Block, Place
from engine.journal.scan import Scanner


class Journal:
    """A journal on disk. `header`: what ran, as it was written at the start.

    While and after its blocks are read: `place` is how far that has come, `torn` what was left out at the end, `sealed`
    whether the session had ended properly.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.name = form.called(self.folder)
        self.paths = {int(path.stem): path for path in sorted(self.folder.glob("[0-9]*.tape"))}
        self.place, self.torn, self.sealed = Place(), "", False
        if not self.paths:
            raise JournalError(f"{self.folder} holds no journal; name the directory that has 000000.tape in it.")
        _, _, self.header = self._head(min(self.paths))
        if self.header.get("layouts") != form.layouts():
            raise JournalError(f"{self.name} was written with other record layouts than this version has; read it with "
                               f"the version that wrote it ({self.header.get('versions', 'unknown')}).")  # fmt: skip

    def blocks(self, start: Place | None = None, scanner: Scanner | None = None) -> Iterator[Block]:
        """Every block of records in order, from the beginning or from a place. Raises JournalError for damage.

        With a scanner many come as one of each kind: their events, their orders, their refusals; what a scanner says of
        their memory holds for them. A reload still stands behind all that was written before it.
        """
        self.place, self.torn, self.sealed = start or Place(), "", False
        first = start.segment if start else 0
        for number in range(first, max(self.paths) + 1):
            if number not in self.paths:
                raise JournalError(f"{self.name}: {form.segment_name(number)} is missing; restore it.")
            yield from self._segment(number, start.offset if start and number == first else 0, scanner)

    def rows(self, kind: int) -> "np.ndarray[Any, Any]":
        """All records of a kind, copied into one array."""
        parts = [np.frombuffer(b.payload, form.OPAQUE) for b in self.blocks() if b.kind == kind]
        return np.concatenate([np.zeros(0, form.OPAQUE), *parts]).view(RECORDS[kind])

    def _head(self, number: int) -> tuple[int, int, dict[str, Any]]:
        """Where a segment's blocks begin, the chain before it, its header."""
        path = self.paths[number]
        with path.open("rb") as file:
            row = file.read(ROW)
            good = len(row) == ROW and row.startswith(form.MAGIC)
            good = good and form.HEAD.unpack(row)[-1] == zlib.crc32(row[: form.BARE])
            if good:
                _, version, own, chain, length, crc, _ = form.HEAD.unpack(row)
                if version != form.VERSION:
                    raise JournalError(f"{path}: written by version {version} of the format, this is {form.VERSION}.")
                text = file.read(form.padded(length))
                good = own == number and crc == zlib.crc32(text)
            if not good:
                raise JournalError(f"{path} is damaged at offset 0: its head is not sound. Restore the file.")
        return ROW + form.padded(length), chain, dict(json.loads(text[:length]))

    def _segment(self, number: int, at: int, scanner: Scanner | None) -> Iterator[Block]:
        path, last, kind = self.paths[number], number == max(self.paths), 0
        memory = mapped(path)
        begin, chain, header = self._head(number)
        counts, running = list(self.place.counts), self.place.chain
        if (at == 0 and chain != running) or header != self.header:
            raise JournalError(f"{path} does not follow the segment before: it belongs to another journal, or one of "
                               "the two was changed. Restore it.")  # fmt: skip
        at, self.sealed = at or begin, False
        self.place = Place(number, at, running, tuple(counts))
        while at < len(memory):
            if scanner is not None:
                at, running, taken = scanner.take(memory, at, counts, running)
                self.place = Place(number, at, running, tuple(counts))
                for kind, rows in taken.items():
                    yield Block(kind, counts[kind] - len(rows), len(rows), rows.view(np.uint8).data)
                if taken:
                    continue
            found = form.sound(memory, at)
            if found is None:
                break
            kind, first, count, size = found
            self._fits(memory, path, at, counts, running)
            if kind in COUNTED:
                counts[kind] += count
            running = zlib.crc32(memory[at : at + ROW], running)
            payload, at = memory[at + ROW : at + ROW + size], at + ROW + size + -size % ROW
            self.place = Place(number, at, running, tuple(counts), kind not in COUNTED)
            if kind in COUNTED:
                yield Block(kind, first, count, payload)
            elif at < len(memory):
                raise JournalError(f"{path}, offset {at}: something follows the end of the segment. Restore the file.")
        self.sealed = kind == SEAL
        if at < len(memory):
            self._tear(path, memory, at, last)
        elif not last and kind not in (END, SEAL):
            raise JournalError(f"{path} is cut off at offset {at}, and another segment follows. Restore the file.")

    def _fits(self, memory: memoryview, path: Path, at: int, counts: list[int], chain: int) -> None:
        """Raise for a block that is sound but not the one that must follow."""
        _, kind, first, count, size, _ = form.BLOCK.unpack_from(memory, at)
        if kind in COUNTED and first != counts[kind]:
            word, last = COUNTED[kind][:-1], counts[kind] - 1
            raise JournalError(f"{self.name}: {word} {first} follows {word} {last} (gap of {first - last - 1}), "
                               f"{path}, offset {at}. Restore the file.")  # fmt: skip
        if kind not in (*COUNTED, END, SEAL) or (kind in RECORDS and size != ROW * count):
            raise JournalError(f"{path}, offset {at}: a block of kind {kind}, which this version does not know.")
        if kind in (END, SEAL) and json.loads(bytes(memory[at + ROW :][:size]))["chain"] != f"{chain:08x}":
            raise JournalError(f"{path}, offset {at}: the totals of the segment do not fit it. Restore the file.")

    def _tear(self, path: Path, memory: memoryview, at: int, last: bool) -> None:
        """What is not sound at `at` is a torn end when nothing sound follows it; else it is damage."""
        if not last or any(form.sound(memory, later) for later in range(at + ROW, len(memory), ROW)):
            raise JournalError(f"{path} is damaged at offset {at}: the checksum of a block is wrong, and sound blocks "
                               "follow. Restore the file; nothing from that offset on can be trusted.")  # fmt: skip
        self.torn = (f"The last block of {path.name} is not whole: {len(memory) - at} bytes from offset {at} on were "
                     "left out, all before is sound.")  # fmt: skip


def mapped(path: Path) -> memoryview:
    """A file as read-only memory."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
