"""What came in and cannot be used: counted, told once for each kind with a sample, kept in a file.

Law 1: nothing that arrives can end the session, and nothing vanishes unseen.
Law 2: a flood of it costs a bounded piece of disk: after `limit` bytes it is only counted.
"""

import base64
import json
import logging
import os
import time
from collections import Counter
from pathlib import Path

from engine.errors import DataError

LOG = logging.getLogger("tandem.live")
SAMPLE = 96  # bytes of it that a line of the log shows


class Quarantine:
    """Keeps what is set aside: one JSON object a line with ns, kind, where, why and the payload in base64.

    `path` None: nothing is kept, only counted and told. Raises DataError for a file that cannot be written.
    """

    def __init__(self, path: Path | None = None, limit: int = 64 << 20) -> None:
        self.counts: Counter[str] = Counter()
        self.path, self.limit, self._size, self._file = path, limit, 0, -1
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._size = os.fstat(self._file).st_size
            except OSError as error:
                raise DataError(f"quarantine {path}: cannot be written ({error.strerror}).") from error

    def put(self, kind: str, where: str, why: str, payload: bytes) -> None:
        """Set a payload aside. `where`: its channel or peer; `why`: one sentence."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            kept = f"kept in {self.path}" if self.path else "not kept"
            LOG.warning("%s set aside from %s: %s (%s; further ones are counted): %r", kind, where, why, kept,
                        payload[:SAMPLE])  # fmt: skip
        if self._file >= 0 and self._size < self.limit:
            line = json.dumps({"ns": time.time_ns(), "kind": kind, "where": where, "why": why,
                               "payload": base64.b64encode(payload).decode()}) + "\n"  # fmt: skip
            self._write(line.encode())

    def _write(self, line: bytes) -> None:
        try:
            self._size += os.write(self._file, line)
        except OSError as error:
            LOG.error("quarantine %s: cannot be written any more (%s); from now on it only counts", self.path, error)
            self.close()
            return
        if self._size >= self.limit:
            LOG.warning("quarantine %s is full (%d bytes); from now on it only counts", self.path, self._size)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
