"""Writing a journal: append, and let nothing half-written stand.

Law 1: a block is whole on disk or is not there: what the system refuses is cut off again.
Law 2: whatever else stops a write half-way, and whoever cannot write what was decided already, the writer is used no
       more; opened again, the journal has what is whole.
Law 3: a journal has one writer at a time, in whatever process; it can be read meanwhile.

`sync_ms` decides what survives a loss of power: 0 forces orders to the disk before they are handed over, a number of
milliseconds does so at most that often, `inf` leaves it to the system. What was written always survives the process.
Whoever sets `deferred` forces them himself, where he may wait: `owed` says that he has to.
"""

import errno
import fcntl
import json
import os
import time
import weakref
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import JournalError
from engine.journal import format as form
from engine.journal.format import COUNTED, END, EVENTS, ORDERS, REFUSALS, RELOADS, ROW, SEAL, Place

SEGMENT_BYTES = 64 << 20
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Hold:
    """The right to write to a journal, until `leave` or the end of the process. Raises JournalError, OSError."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "writer.pid", os.O_RDWR | os.O_CREAT, 0o644)
        self.leave = weakref.finalize(self, os.close, self._file)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(self._file, 32, 0).decode().strip()
            self.leave()
            raise JournalError(f"{form.called(folder)} in {folder} is being written by process {who or 'unknown'}: two "
                               "would spoil it. End that one first.") from None  # fmt: skip
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)


class JournalWriter:
    """Appends to a journal: a new one in an empty or absent directory, or with `at` one that was read up to there.

    `hold`: of who has read it, so that nobody else wrote meanwhile. Raises JournalError while another writes.
    """

    def __init__(self, folder: Path, header: dict[str, Any], *, sync_ms: float = 0.0,
                 segment_bytes: int = SEGMENT_BYTES, at: Place | None = None,
                 hold: Hold | None = None) -> None:  # fmt: skip
        self.folder, self.header = folder, {**header, "layouts": form.layouts()}
        self.sync_ms, self.segment_bytes = sync_ms, segment_bytes
        self._segment, self._at, self._chain = (at.segment, at.offset, at.chain) if at else (0, 0, 0)
        self._counts = list((at or Place()).counts)
        self.sync_ns = 0  # how long the last force to the disk took
        self.deferred, self.owed = False, False
        self._file, self._sound, self._synced = -1, False, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._hold = hold or Hold(folder)
            if at is not None:
                self._continue(at.ended)
            elif any(folder.glob("*.tape")):
                raise JournalError(f"There is a {form.called(folder)} in {folder} already; go on with that one, or "
                                   "choose another directory.")  # fmt: skip
            self._open()
        except OSError as error:
            raise self._refused(error) from error

    @property
    def written(self) -> int:
        """Events that were written."""
        return self._counts[EVENTS]

    @property
    def place(self) -> Place:
        """Where the next block goes."""
        return Place(self._segment, self._at, self._chain, tuple(self._counts))

    def events(self, rows: "np.ndarray[Any, Any]") -> None:
        """Events, before the kernel sees them."""
        self._records(EVENTS, rows)

    def orders(self, rows: "np.ndarray[Any, Any]") -> None:
        """Orders, before the venue does; on the disk afterwards, if `sync_ms` says so."""
        self._decided(ORDERS, rows)
        if self.sync_ms == 0.0 or (time.monotonic() - self._synced) * 1e3 >= self.sync_ms:
            if self.deferred:
                self.owed = True
            else:
                self.sync()

    def refusals(self, rows: "np.ndarray[Any, Any]") -> None:
        """What risk refused."""
        self._decided(REFUSALS, rows)

    def _decided(self, kind: int, rows: "np.ndarray[Any, Any]") -> None:
        """What the kernel has made of events that are written: without it, nothing may follow them."""
        try:
            self._records(kind, rows)
        except JournalError:
            self._sound = False
            raise

    def reload(self, words: dict[str, Any]) -> None:
        """What the RELOAD command that follows puts in place."""
        self._words(RELOADS, words)

    def sync(self) -> None:
        """Force all that was written to the disk."""
        self.forced(forcing(self._file))

    def force(self) -> "Callable[[], int | OSError]":
        """What forces all that was written until now, to be called in any thread; `forced` takes its result."""
        self.owed = False
        try:
            return partial(forcing, os.dup(self._file), True)
        except OSError as error:
            return partial(type(error), *error.args)

    def forced(self, result: "int | OSError") -> None:
        """How forcing has ended. Raises JournalError when the system refused, now or before: it says so only once."""
        if isinstance(result, OSError):
            self._sound = False  # what the system has kept of it, nobody knows
            raise self._refused(result) from result
        if not self._sound:
            raise self._unsound()
        self._synced, self.sync_ns = time.monotonic(), result

    def seal(self) -> None:
        """The session has ended: totals, then nothing more is written."""
        self._words(SEAL, self._totals())
        self.sync()
        self.close()

    def close(self) -> None:
        """Let go of the journal, without a seal."""
        self._close()
        self._hold.leave()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._sound = -1, False

    def _totals(self) -> dict[str, Any]:
        return {**{word: self._counts[kind] for kind, word in COUNTED.items()}, "chain": f"{self._chain:08x}"}

    def _continue(self, ended: bool) -> None:
        """Cut off what is torn behind `at`, and end that segment properly."""
        self._file = os.open(self.folder / form.segment_name(self._segment), os.O_RDWR)
        os.ftruncate(self._file, self._at)
        self._sound = True
        if ended:
            self._close()
            self._segment += 1
        else:
            self._end_segment()

    def _open(self) -> None:
        """Begin a segment. Its name is there only once its head is."""
        path = self.folder / form.segment_name(self._segment)
        part, first = path.with_suffix(".part"), form.head(self._segment, self._chain, self.header)
        self._file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _whole(os.write(self._file, first), len(first))
            os.fsync(self._file)
            os.rename(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            self._close()
            raise
        self._at, self._sound = len(first), True
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # its name, too
        finally:
            os.close(handle)

    def _end_segment(self) -> None:
        self._words(END, self._totals())
        self.sync()
        self._close()
        self._segment += 1

    def _records(self, kind: int, rows: "np.ndarray[Any, Any]") -> None:
        count = len(rows)
        if self._sound and self._at + ROW * (count + 2) > self.segment_bytes > ROW * (count + 2):
            try:
                self._end_segment()
                self._open()
            except OSError as error:
                raise self._refused(error) from error
        self._append(kind, count, rows.view(np.uint8).data, ROW * count)

    def _words(self, kind: int, words: dict[str, Any]) -> None:
        text = json.dumps(words, sort_keys=True).encode()
        self._append(kind, 1, text.ljust(form.padded(len(text)), b"\0"), len(text))

    def _append(self, kind: int, count: int, payload: "bytes | memoryview", size: int) -> None:
        if not self._sound:
            raise self._unsound()
        first = self._counts[kind] if kind in COUNTED else 0
        row = form.block_row(kind, first, count, payload, size)
        self._sound = False
        try:
            _whole(os.pwritev(self._file, (row, payload), self._at), ROW + len(payload))
        except OSError as error:
            os.ftruncate(self._file, self._at)
            self._sound = True  # the next attempt may succeed
            raise self._refused(error) from error
        self._at += ROW + len(payload)
        self._chain = zlib.crc32(row, self._chain)
        if kind in COUNTED:
            self._counts[kind] += count
        self._sound = True

    def _unsound(self) -> JournalError:
        return JournalError(f"{form.called(self.folder)} is closed, or a write of it was interrupted; open it again "
                            "to go on from what is whole.")  # fmt: skip

    def _refused(self, error: OSError) -> JournalError:
        full = ("the disk is full", "Make room at")
        what, cure = full if error.errno in FULL else (f"it cannot be written ({error.strerror})", "Mend what holds")
        return JournalError(f"{form.called(self.folder)}: {what}. What was written before is whole, and nothing was "
                            f"sent that is not on it. {cure} {self.folder} and start again.")  # fmt: skip


def forcing(file: int, close: bool = False) -> "int | OSError":
    """Force a file to the disk: how many ns it took, or what the system says."""
    began = time.perf_counter_ns()
    try:
        os.fdatasync(file)
    except OSError as error:
        return error
    finally:
        if close:
            os.close(file)
    return time.perf_counter_ns() - began


def _whole(written: int, wanted: int) -> None:
    """A write that the system has cut short is one that it refused: the disk is full."""
    if written != wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
