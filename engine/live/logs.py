"""Structured logs off the hot path: whoever logs hands a record over; a thread makes JSON of it and writes.

Law 1: to log never blocks and never fails: without room a record is dropped and counted, never waited for.
Law 2: one line is one JSON object: ts (ISO 8601, UTC), level, logger, message, and whatever `extra` held; an exception
       stands in `error`.
"""

import copy
import json
import logging
import logging.handlers
import queue
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

ROOM, FILE_BYTES, FILES = 10_000, 64 << 20, 4
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_dropped = 0


def dropped() -> int:
    """Records of this process that had no room."""
    return _dropped


class Json(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {"ts": when, "level": record.levelname.lower(), "logger": record.name,
                                "message": record.getMessage()}  # fmt: skip
        line |= {key: value for key, value in vars(record).items() if key not in OWN}
        if record.exc_text or record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return json.dumps(line, default=str, ensure_ascii=False)


class Handover(logging.handlers.QueueHandler):
    """Puts records into a queue of bounded length."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """A copy whose arguments are in its text already: they may change before the thread comes to it."""
        fixed = copy.copy(record)
        fixed.msg, fixed.args = record.getMessage(), None
        if record.exc_info:
            fixed.exc_text, fixed.exc_info = logging.Formatter().formatException(record.exc_info), None
        return fixed

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand over, or drop and count."""
        global _dropped
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            _dropped += 1


class Listener(logging.handlers.QueueListener):
    """The thread that writes."""

    def enqueue_sentinel(self) -> None:
        """The end has a place even in a full queue."""
        self.queue.put(self._sentinel)  # type: ignore[attr-defined]


class Logs:
    """Sends all that is logged in a `with` block to a file, which is rotated, or to standard error.

    `level`: of our own loggers; those of libraries tell warnings. Raises ConfigError for a file that cannot be written.
    """

    def __init__(self, path: Path | None = None, level: int = logging.INFO, room: int = ROOM) -> None:
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._out: logging.Handler = (
                logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
                if path else logging.StreamHandler(sys.stderr)
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"log file {path}: cannot be written ({error.strerror}); give another.") from error
        self._out.setFormatter(Json())
        waiting: queue.Queue[Any] = queue.Queue(room)
        self._in, self._level = Handover(waiting), level
        self._listener = Listener(waiting, self._out)
        self._before: tuple[int, list[logging.Handler], int] = (0, [], 0)

    def __enter__(self) -> "Logs":
        root, ours = logging.getLogger(), logging.getLogger("tandem")
        self._before = (root.level, root.handlers[:], ours.level)
        root.handlers[:] = [self._in]
        root.setLevel(logging.WARNING)
        ours.setLevel(self._level)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits, then let the loggers be as they were."""
        root, ours = logging.getLogger(), logging.getLogger("tandem")
        level, root.handlers[:], own = self._before
        root.setLevel(level)
        ours.setLevel(own)
        self._listener.stop()
        self._out.close()
