"""Every error that Tandem raises on purpose.

    TandemError
    ├── ConfigError         a setting is unknown, of the wrong type or out of range
    ├── DataError           a dataset, a file or a tape is missing, damaged or not what it claims
    │   ├── ValidationError rows that break a rule, each with file, row and reason
    │   └── JournalError    a journal is damaged, has a gap, or belongs to another session
    ├── StrategyError       a strategy cannot be compiled or registered as it is written
    ├── StrategyFault       a handler failed at an event; carries the Python traceback and the state
    ├── ImageError          a compiled image is missing, stale or does not load
    ├── KernelHalted        the kernel stopped itself, with a code
    ├── VenueError          a venue cannot be reached; it says nothing about any order
    ├── WireError           a server of a wire (Redis, NATS) is unreachable or refuses
    ├── ClusterError        machines that run a sweep's shards are gone, differ or refuse
    └── TrackingError       the experiment tracker refused or is unreachable

Messages say what, where and what to do. `TandemError` itself is never raised.
"""


class TandemError(Exception):
    """Base of all our errors; the command line prints it without a traceback."""


class ConfigError(TandemError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(TandemError):
    """A dataset, a file or a tape is missing, damaged or not what it claims."""


class ValidationError(DataError):
    """Rows that break a rule; `problems` holds one line for each (file, row, reason)."""

    def __init__(self, message: str, problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class JournalError(DataError):
    """A journal is damaged, has a gap, or belongs to another session."""


class StrategyError(TandemError):
    """A strategy cannot be compiled or registered as it is written."""


class StrategyFault(TandemError):
    """A handler failed at an event; `state` and `event` are as they were just before."""

    def __init__(self, message: str, state: object = None, event: object = None) -> None:
        super().__init__(message)
        self.state = state
        self.event = event


class ImageError(TandemError):
    """A compiled image is missing, stale or does not load."""


class KernelHalted(TandemError):
    """The kernel stopped itself; `code` says why (codes.NAMES['halt'])."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class VenueError(TandemError):
    """A venue cannot be reached; it says nothing about any order."""


class WireError(TandemError):
    """A server of a wire (Redis, NATS) is unreachable or refuses."""


class ClusterError(TandemError):
    """Machines that run a sweep's shards are gone, differ or refuse."""


class TrackingError(TandemError):
    """The experiment tracker refused or is unreachable."""
