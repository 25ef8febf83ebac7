"""An indicator over whole arrays, for research: one zeroed record, one update per row."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from engine.kernel import build
from engine.kernel.layout import F8, I8, Array, Record
from engine.kernel.primitives import Pointer

Floats = np.ndarray[Any, np.dtype[np.float64]]
MOST = 8  # arrays, and scalars of each kind


class Job(Record):
    """What the compiled loop is given: addresses, sizes, scalars; `failed` is 1 + the row whose update raised."""

    state: I8
    out: I8
    rows: I8
    failed: I8
    arrays: Array[int, MOST]  # type: ignore[type-arg, valid-type]
    integers: Array[int, MOST]  # type: ignore[type-arg, valid-type]
    floats: Array[float, MOST]  # type: ignore[type-arg, valid-type]


class Number(Record):
    """One float of an array."""

    value: F8


def scan(cls: type[Record], arrays: tuple[Floats, ...], args: tuple[float, ...]) -> Floats:
    """Row t holds what `update(*row t of the arrays, *args)` returned, then the outputs named after the first.

    Shapes: each array (n,); the result (n,) for one output, else (n, outputs). Compiled once per indicator and kind
    of arguments. Raises what `update` raises.
    """
    names = _names(cls)
    record: Any = cls.new()
    result = np.empty((len(arrays[0]), 1 + len(names)))
    job = Job.new()
    job.state, job.out, job.rows = record._address, result.ctypes.data, len(arrays[0])
    for k, array in enumerate(arrays):
        job.arrays[k] = array.ctypes.data
    for k, value in enumerate(args):
        (job.integers if isinstance(value, int | np.integer) else job.floats)[k] = value
    kind: Any = cls
    _compiled(kind, len(arrays), tuple(isinstance(a, int | np.integer) for a in args))(job._address)
    if job.failed:
        head = tuple(array[: job.failed] for array in arrays)
        scan_python(cls, head, args)  # raises what the compiled loop could only count
        raise RuntimeError(
            f"{cls.__name__}.scan failed at row {job.failed - 1} in compiled code only; use scan_python to look into it"
        )
    return result if names else result[:, 0]


@cache
def _compiled(cls: type[Record], arrays: int, integral: tuple[bool, ...]) -> Callable[[int], None]:
    """The machine code of the loop for one indicator and one kind of arguments."""
    image = build.loop(f"scan {cls.__qualname__} {arrays} {integral}", _loop(cls, arrays, integral), cls)
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(image.addresses["run"])


def _loop(cls: type[Record], arrays: int, integral: tuple[bool, ...]) -> Any:
    """The loop as a plain function: `update` takes its arguments by position, so their number is written out."""
    names = _names(cls)
    width = 8 * (1 + len(names))
    values = [f"number_at(job.arrays[{k}] + 8 * t).value" for k in range(arrays)]
    values += [f"job.{'integers' if whole else 'floats'}[{k}]" for k, whole in enumerate(integral)]
    lines = [
        "def run(address):",
        "    job = job_at(address)",
        "    record = record_at(job.state)",
        "    for t in range(job.rows):",
        "        job.failed = t + 1",
        f"        number_at(job.out + {width} * t).value = record.update({', '.join(values)})",
    ]
    lines += [
        f"        number_at(job.out + {width} * t + {8 * k}).value = record.{name}" for k, name in enumerate(names, 1)
    ]
    lines += ["    job.failed = 0"]
    scope: dict[str, Any] = {"job_at": Pointer(Job), "record_at": Pointer(cls), "number_at": Pointer(Number)}
    exec("\n".join(lines), scope)
    return scope["run"]


def _names(cls: type[Record]) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(cls, "outputs", ())
    return found[1:]


def scan_python(cls: type[Record], arrays: tuple[Floats, ...], args: tuple[float, ...]) -> Floats:
    """The uncompiled loop: the reference that the compiled one must equal bit for bit."""
    names = _names(cls)
    record: Any = cls.new()
    result = np.empty((len(arrays[0]), 1 + len(names)))
    for t, row in enumerate(zip(*(array.tolist() for array in arrays), strict=True)):
        result[t, 0] = record.update(*row, *args)
        for column, name in enumerate(names, 1):
            result[t, column] = getattr(record, name)
    return result if names else result[:, 0]
