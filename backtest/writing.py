"""How results come to disk: whole or not at all, in JSON that everybody reads."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import DataError


def jsonable(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for the one, a word for the other."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """A place beside `target` to write to, which takes its name when the block ends well, and vanishes when not."""
    part, old = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part.is_dir() and target.is_dir():
            target.replace(old)
        part.replace(target)
    except BaseException as error:
        if old.exists() and not target.exists():
            old.replace(target)
        # polars has errors of its own for a full disk; they are no OSError.
        if isinstance(error, OSError) or type(error).__module__.startswith("polars"):
            raise DataError(f"{target}: cannot be written ({error}); nothing was left behind. "
                            "Free space or choose another directory.") from error  # fmt: skip
        raise
    finally:
        for leftover in (part, old):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            elif leftover.exists():
                leftover.unlink()
