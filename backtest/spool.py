"""Buffers of outputs, and those that outgrow them: in memory while few, then in a file without a name.

Law 1: a run of any length takes bounded anonymous memory, and the loop does not wait for the disk.
Law 2: a buffer is used again only when the last array that looks into it is gone.
"""

import itertools
import tempfile
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.kernel import image

IN_MEMORY = 1 << 24  # bytes of one drained output before it goes to a file
KEPT = 1 << 29  # bytes of buffers that wait for the next run: fresh pages cost more than what is written to them
_free: "dict[int, np.ndarray[Any, Any]]" = {}  # by a number that no other buffer gets: see `_Block.__del__`
_numbers = itertools.count()


class _Block:
    """Memory that goes back to the free buffers when nobody looks into it any more."""

    def __init__(self, memory: "np.ndarray[Any, Any]") -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, free: "dict[int, np.ndarray[Any, Any]]" = _free) -> None:
        # In any thread and between any two steps of `buffer`: each of both takes copies, and takes out by number.
        free[next(_numbers)] = self._memory
        while sum(memory.nbytes for memory in list(free.values())) > KEPT:
            free.pop(min(list(free), default=-1), None)


def buffer(dtype: "np.dtype[Any]", rows: int) -> "np.ndarray[Any, Any]":
    """Room for rows, uninitialised: the smallest free buffer that holds them, or fresh memory."""
    size = rows * dtype.itemsize
    fits = {n: memory.nbytes for n, memory in list(_free.items()) if memory.nbytes >= size}
    memory = _free.pop(min(fits, key=lambda n: fits[n]), None) if fits else None
    return np.asarray(_Block(np.empty(size, np.uint8) if memory is None else memory))[:size].view(dtype)


class Spool:
    """Rows in order."""

    def __init__(self, dtype: "np.dtype[Any]") -> None:
        self.dtype, self.count = dtype, 0
        self._parts: list[Any] = []
        self._file: Any = None
        self._writer: ThreadPoolExecutor | None = None
        self._under_way: Future[None] | None = None

    def add(self, rows: "np.ndarray[Any, Any]") -> bool:
        """Append rows; whether they must stay as they are until the next call, because they are being written.

        Raises DataError when the disk is full, at the latest when the rows are read.
        """
        self.count += len(rows)
        if self._file is None and self.count * self.dtype.itemsize <= IN_MEMORY:
            self._parts.append(rows.copy())
            return False
        try:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, "spool")
                self._file = tempfile.TemporaryFile(dir=image.cache_folder("spool"), buffering=0)  # noqa: SIM115
                weakref.finalize(self, _finish, self._writer, self._file)
                for part in self._parts:
                    _write(self._file, part)
                self._parts = []
            self._wait()
        except OSError as error:
            raise full(error) from error
        self._under_way = self._writer.submit(_write, self._file, rows)
        return True

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def array(self) -> "np.ndarray[Any, Any]":
        """All rows."""
        if self._file is None:
            return joined(self._parts) if self._parts else np.empty(0, self.dtype)
        try:
            self._wait()
        except OSError as error:
            raise full(error) from error
        return np.memmap(self._file, self.dtype, "r", shape=(self.count,))


def _finish(writer: ThreadPoolExecutor, file: Any) -> None:
    """When nobody asks for the rows any more; what was mapped stays mapped."""
    writer.shutdown()
    file.close()


def _write(file: Any, rows: "np.ndarray[Any, Any]") -> None:
    """All rows; the system may take them in pieces."""
    content = rows.view(np.uint8)
    while len(content):
        content = content[file.write(content.data) :]


def full(error: OSError) -> DataError:
    """The disk did not take the outputs."""
    folder = image.cache_folder("spool")
    return DataError(f"The outputs of a long run do not fit into {folder} ({error.strerror}). Free space there, or set "
                     "TANDEM_CACHE to a directory on another disk.")  # fmt: skip


def joined(parts: list[Any]) -> "np.ndarray[Any, Any]":
    """Arrays end to end, whole rows at a time: numpy's own concatenate gives overlapping fields bytes of their own."""
    return np.concatenate([part.view(np.uint8) for part in parts]).view(parts[0].dtype)
