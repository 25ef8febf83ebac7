"""Law 5 for indicators: compiled = uncompiled, bit for bit, values and state.

The compile act is asked directly, with a loop made for each indicator, so no image store takes part.
"""

from functools import cache
from typing import Any

import numba as nb
import numpy as np
import pytest

from engine.kernel import compile as act
from engine.kernel import compile_types as kinds
from tests.kernel.cases import CASES, IDS, nasty


@cache
def loop_of(cls: Any, arrays: int, args: int) -> Any:
    """A jitted loop over rows: (address of the record, out, arrays..., args...)."""
    rows, names = [f"a{k}[t]" for k in range(arrays)], [f"a{k}" for k in range(arrays)]
    rest = [f"p{k}" for k in range(args)]
    further = "".join(f"\n        out[t, {k}] = self.{name}" for k, name in enumerate(cls.outputs) if k)
    source = f"""
def loop(address, out, {", ".join(names + rest)}):
    self = at(address)
    for t in range(len(a0)):
        out[t, 0] = self.update({", ".join(rows + rest)}){further}
"""
    scope: dict[str, Any] = {"at": kinds.pointer_intrinsic(cls)}
    exec(source, scope)
    return nb.njit(error_model="python")(scope["loop"])


def compiled_scan(cls: Any, arrays: tuple[Any, ...], args: tuple[float, ...]) -> tuple[Any, bytes]:
    """What each update returned, then the further outputs; and the state at the end."""
    memory = np.zeros(1, cls.dtype)
    out = np.empty((len(arrays[0]), len(cls.outputs)))
    kinds.translators.append(act.Translator(kinds.HANDLER_OPTIONS))
    try:
        loop_of(cls, len(arrays), len(args))(memory.ctypes.data, out, *arrays, *args)
    finally:
        kinds.translators.pop()
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
