"""Files of a TLS connection, read once and told apart by name when one is missing."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """PEM bytes: whom we trust, our certificate, our key; None where there is none."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    @classmethod
    def read(cls, ca: str | None, cert: str | None, key: str | None, where: str) -> "Tls | None":
        """From paths; None when none is given. Raises ConfigError for a file that is missing or half a pair."""
        if (cert is None) != (key is None):
            raise ConfigError(f"{where}: cert and key belong together; give both or neither.")
        read = {}
        for name, path in (("ca", ca), ("cert", cert), ("key", key)):
            try:
                read[name] = Path(path).read_bytes() if path else None
            except OSError as error:
                raise ConfigError(f"{where}.{name}={path}: cannot be read ({error.strerror}).") from error
        return cls(**read) if any(read.values()) else None
