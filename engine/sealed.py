"""A sealed folder: files whose every byte is known by one digest, so that what is opened is what was sealed.

Law 1: `seal.json` holds the hash of every other file, and the hash of `seal.json` stands for all of them.
Law 2: a file that is altered, missing or new is named, and the folder is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import DataError
from engine.store.files import file_hash

SEAL = "seal.json"


def files_of(folder: Path) -> dict[str, str]:
    """The hash of every file but the seal, by its place in the folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in paths if p != folder / SEAL}


def seal(folder: Path, words: Mapping[str, Any]) -> str:
    """Write `seal.json` with `words` beside the files that are there; its digest."""
    text = json.dumps({**words, "files": files_of(folder)}, indent=1, sort_keys=True).encode()
    (folder / SEAL).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def unseal(folder: Path, digest: str, what: str, cure: str) -> dict[str, Any]:
    """The words of a sealed folder. Raises DataError naming `what`, the first difference, and `cure`.

    What Python has compiled beside sources is removed: no seal covers it, and it would run in place of them.
    """
    for compiled in [*folder.rglob("__pycache__")]:
        shutil.rmtree(compiled, ignore_errors=True)
    try:
        text = (folder / SEAL).read_bytes()
    except OSError as error:
        raise DataError(f"{what} has no {SEAL} ({error.strerror}). {cure}") from error
    found = hashlib.sha256(text).hexdigest()
    if found != digest:
        raise DataError(f"{what} was altered: its {SEAL} has the hash {found[:16]}, not {digest[:16]}. {cure}")
    words: dict[str, Any] = json.loads(text)
    wanted, there = words.pop("files"), files_of(folder)
    for name in sorted({*wanted, *there}):
        if wanted.get(name) != there.get(name):
            how = (
                "is missing" if name not in there else "does not belong to it" if name not in wanted else "was altered"
            )
            raise DataError(f"{what}: {name} {how}. {cure}")
    return words
