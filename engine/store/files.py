"""Where files live, and how they come into being: whole, or not at all.

Law 1: nothing is ever written under its final name; a rename is the moment it exists.
Law 2: whatever stops a write (an error, a full disk, Ctrl-C), nothing of it remains.
"""

import errno
import hashlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, DataError

BLOCK = 1 << 20
LINE_S = 10.0  # between two lines about how far something is


def datasets_root() -> Path:
    """The directory of the datasets: environment TANDEM_DATA, else `data` in the working directory."""
    return Path(os.environ.get("TANDEM_DATA") or "data").absolute()


def cache_dir(part: str) -> Path:
    """A directory of the user's cache (TANDEM_CACHE, else the platform's), made if needed.

    Raises ConfigError if it cannot be written.
    """
    root = os.environ.get("TANDEM_CACHE")
    if not root:
        import platformdirs

        root = platformdirs.user_cache_dir("tandem")
    path = Path(root).absolute() / part
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError(errno.EACCES, "permission denied"))
    return path


def unwritable(path: Path, error: OSError) -> ConfigError:
    """The error for a cache directory that does not take files."""
    return ConfigError(f"cache directory {path} cannot be written ({error.strerror}); "
                       "set TANDEM_CACHE to a directory of yours.")  # fmt: skip


def write_error(path: Path, error: OSError) -> DataError:
    """The error for a write that the system refused, with the cure."""
    if error.errno == errno.ENOSPC:
        return DataError(f"{path}: the disk is full; nothing was left behind. Free some space, or set TANDEM_DATA "
                         "and TANDEM_CACHE to a larger disk, and run it again.")  # fmt: skip
    return DataError(f"{path}: cannot be written ({error.strerror or error}); nothing was left behind.")


def sync(path: Path) -> None:
    """Force a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a tree; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink(missing_ok=True)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write; it takes the place of `path` at the end, or vanishes.

    Raises DataError when the system refuses a write.
    """
    part = _sibling(path)
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        remove(part)


@contextmanager
def atomic_dir(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling directory to fill; it becomes `path` at the end, or vanishes.

    An existing `path` is replaced only with `overwrite`, and stays whole until the new one is complete.
    Raises DataError when the system refuses a write.
    """
    part, old = _sibling(path), _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        for item in sorted(part.rglob("*")):
            sync(item)
        sync(part)
        if path.exists():
            if not overwrite:
                raise DataError(f"{path} already exists; choose another name or pass overwrite=True.")
            path.rename(old)
        try:
            part.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        remove(part)
        if path.exists():
            remove(old)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_hash(*parts: str) -> str:
    """SHA-256 over texts, each closed by a zero byte so that their borders count."""
    return hashlib.sha256("".join(part + "\0" for part in parts).encode()).hexdigest()


def notice(text: str) -> None:
    """What takes some seconds, for who waits at a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


class Lines:
    """How far something is, as a line every ten seconds, for who reads the output elsewhere than at a terminal."""

    def __init__(self, total: float | None, what: str, unit: str) -> None:
        self.total, self.what, self.unit, self.n = total, what, unit, 0.0
        self.begin = self.said = time.monotonic()

    def update(self, more: float = 1.0) -> None:
        """So much more is done."""
        self.n += more
        now = time.monotonic()
        if now - self.said < LINE_S:
            return
        self.said, seconds = now, now - self.begin
        part = f" of {self.total:,.0f}" if self.total else ""
        left = f", {seconds * (self.total / self.n - 1.0):,.0f} s to go" if self.total and self.n > 0 else ""
        print(f"tandem: {self.what}: {self.n:,.0f}{part} {self.unit} after {seconds:,.0f} s{left}", file=sys.stderr,
              flush=True)  # fmt: skip

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def progress(total: float | None, what: str, unit: str = "rows") -> Any:
    """A progress bar that only shows itself after two seconds; where there is no terminal, a line every ten."""
    if not sys.stderr.isatty():
        return Lines(total, what, unit)
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=f" {unit}", unit_scale=True, delay=2.0, leave=False)
