"""States of a session in files of their own, so that a restart need not begin at the beginning of its journal.

Law 1: a snapshot is whole or is not used: a checksum covers every byte of it.
Law 2: it names the place in the journal that it stands for; the journal alone is the truth, a snapshot only saves time.

    snapshot-000000001000.bin   one row: magic, version, lengths, crc; then JSON (place, what else was in force), state
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import JournalError
from engine.journal.format import Place
from engine.kernel.image import write_atomically

MAGIC = b"TNDMSNAP"
VERSION = 1
HEAD = struct.Struct("<8sIIQQ28xI")
BARE = 60


@dataclass(frozen=True)
class Snapshot:
    """The state of a session at a place of its journal; `words`: what else a session has to know."""

    place: Place
    words: dict[str, Any]
    state: bytes


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot, whole or not at all. Raises JournalError when the system refuses."""
    path = folder / f"snapshot-{snapshot.place.events:012d}.bin"
    text = json.dumps({"place": asdict(snapshot.place), "words": snapshot.words}, sort_keys=True).encode()
    bare = HEAD.pack(MAGIC, VERSION, 0, len(text), len(snapshot.state), 0)[:BARE]
    crc = zlib.crc32(snapshot.state, zlib.crc32(text, zlib.crc32(bare)))
    try:
        write_atomically(path, bare + struct.pack("<I", crc) + text + snapshot.state)
    except OSError as error:
        raise JournalError(f"{path}: the snapshot cannot be written ({error.strerror}); the journal itself is whole. "
                           "Make room there.") from error  # fmt: skip
    return path


def load(path: Path) -> Snapshot | None:
    """A snapshot; None for one that is not sound."""
    data = path.read_bytes()
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        return None
    _, version, _, length, size, crc = HEAD.unpack_from(data)
    text, state = data[HEAD.size :][:length], data[HEAD.size + length :]
    whole = zlib.crc32(state, zlib.crc32(text, zlib.crc32(data[:BARE])))
    if version != VERSION or len(state) != size or whole != crc:
        return None
    words = json.loads(text)
    place = words["place"]
    return Snapshot(Place(**{**place, "counts": tuple(place["counts"])}), words["words"], state)


def newest_first(folder: Path) -> list[Path]:
    """The snapshots of a journal."""
    return sorted(folder.glob("snapshot-*.bin"), reverse=True)
