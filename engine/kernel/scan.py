"""An indicator over whole arrays, for research: one zeroed record, one update per row."""

from typing import Any

import numpy as np

from engine.kernel.layout import Record

Floats = np.ndarray[Any, np.dtype[np.float64]]


def scan(cls: type[Record], arrays: tuple[Floats, ...], args: tuple[float, ...]) -> Floats:
    """Row t holds what `update(*row t of the arrays, *args)` returned, then the outputs named after the first.

    Shapes: each array (n,); the result (n,) for one output, else (n, outputs).
    """
    return scan_python(cls, arrays, args)


def scan_python(cls: type[Record], arrays: tuple[Floats, ...], args: tuple[float, ...]) -> Floats:
    """The uncompiled loop: the reference that the compiled one must equal bit for bit."""
    names: tuple[str, ...] = getattr(cls, "outputs", ())[1:]
    record: Any = cls.new()
    result = np.empty((len(arrays[0]), 1 + len(names)))
    for t, row in enumerate(zip(*(array.tolist() for array in arrays), strict=True)):
        result[t, 0] = record.update(*row, *args)
        for column, name in enumerate(names, 1):
            result[t, column] = getattr(record, name)
    return result if names else result[:, 0]
