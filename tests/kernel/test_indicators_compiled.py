"""Law 5 for indicators: compiled = uncompiled, bit for bit, values and state.

The compile act is asked directly, with a loop made for each indicator, so no image store takes part.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine.kernel import compile as act
from engine.kernel import compile_types as kinds
from engine.kernel import image
from engine.kernel.layout import Array, Record
from engine.kernel.primitives import Pointer
from tests.kernel.cases import CASES, IDS, nasty


class Job(Record):
    """Where the loop finds the record, the rows and the numbers, and where it writes."""

    state: int
    out: int
    rows: int
    arrays: Array[int, 8]  # type: ignore[type-arg, valid-type]


class Number(Record):
    value: float


@cache
def loop_of(cls: Any, arrays: int, args: tuple[float, ...]) -> Any:
    """A compiled loop over rows, with its image, which must stay alive."""
    rows = [f"number(job.arrays[{k}] + 8 * t).value" for k in range(arrays)]
    further = "".join(f"\n        number(row + {8 * k}).value = self.{name}"
                      for k, name in enumerate(cls.outputs) if k)  # fmt: skip
    source = f"""
def loop(address):
    job = at(address)
    self = state(job.state)
    for t in range(job.rows):
        row = job.out + 8 * t * {len(cls.outputs)}
        number(row).value = self.update({", ".join([*rows, *map(repr, args)])}){further}
"""
    scope: dict[str, Any] = {"at": Pointer(Job), "state": Pointer(cls), "number": Pointer(Number), "__name__": __name__}
    exec(source, scope)
    with act.compiling(kinds.HANDLER_OPTIONS) as translator:
        entries, code = act.emit({"loop": act.guarded_loop(scope["loop"], translator)})
    made = image.Image("loop", {"entries": entries}, code)
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(made.addresses["loop"]), made


def compiled_scan(cls: Any, arrays: tuple[Any, ...], args: tuple[float, ...]) -> tuple[Any, bytes]:
    """What each update returned, then the further outputs; and the state at the end."""
    memory, job = np.zeros(1, cls.dtype), Job.new()
    out = np.empty((len(arrays[0]), len(cls.outputs)))
    job.state, job.out, job.rows = memory.ctypes.data, out.ctypes.data, len(out)
    for k, array in enumerate(arrays):
        job.arrays[k] = array.ctypes.data
    loop_of(cls, len(arrays), args)[0](job._address)
    return out, memory.tobytes()


@pytest.mark.parametrize(("cls", "inputs", "args"), CASES, ids=IDS)
def test_compiled_equals_uncompiled(cls: Any, inputs: str, args: tuple[float, ...]) -> None:
    data = nasty()
    arrays = tuple(data[name] for name in inputs)
    record = cls.new()
    expected = np.empty((len(arrays[0]), len(cls.outputs)))
    for t, row in enumerate(zip(*(a.tolist() for a in arrays), strict=True)):
        expected[t, 0] = record.update(*row, *args)
        expected[t, 1:] = [getattr(record, name) for name in cls.outputs[1:]]
    out, state = compiled_scan(cls, arrays, args)
    # The sign and payload of a nan are not promised by IEEE arithmetic; all other bits are.
    out[np.isnan(out)] = expected[np.isnan(expected)] = np.nan
    assert out.tobytes() == expected.tobytes()
    assert state == record.tobytes()
