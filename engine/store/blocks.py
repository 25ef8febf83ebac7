"""Text files of any size in blocks of whole lines: plain, gzip, xz or ZIP, told by their first bytes.

Law 1: memory holds one block, whatever the size of the file.
Law 2: a file that was cut is an error, never a shorter file.
"""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from engine.errors import DataError
from engine.store.reading import damaged

BLOCK = 1 << 23  # bytes, about 150,000 rows
PACKED: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"]\x00\x00", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
)
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Errors of reading and unpacking as DataError that names the file."""
    try:
        yield
    except BROKEN as error:
        raise damaged(path, error) from error


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(name for messages, open binary file): each file of a ZIP, or the unpacked file itself.

    Raises DataError for a file that is missing, empty, cut or damaged.
    """
    with guarded(path), open(path, "rb") as file:
        start = file.read(8)
    if not start:
        raise DataError(f"{path}: the file is empty; fetch it again.")
    if start[:4] == b"PK\x03\x04" or path.suffix.lower() == ".zip":
        with guarded(path), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    with archive.open(member) as inner:
                        yield f"{path.name}:{member.filename}", inner
        return
    unpack: Callable[..., Any] = next((how for magic, how in PACKED if start.startswith(magic)), Path.open)
    with guarded(path), unpack(path, "rb") as opened:
        yield path.name, cast(IO[bytes], opened)


def blocks(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of an open file in blocks that end with a line. Raises DataError where it is cut or damaged."""
    rest = b""
    while True:
        with guarded(path):
            block = file.read(BLOCK)
        if not block:
            break
        cut = block.rfind(b"\n") + 1
        if cut == 0:
            rest += block
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest.strip():
        yield rest + b"\n"


def content(path: Path) -> bytes:
    """All bytes of a small packed file. Raises DataError if it is cut or damaged."""
    parts = []
    for _, file in members(path):
        with guarded(path):
            parts.append(file.read())
    return b"".join(parts)
