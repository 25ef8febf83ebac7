"""Settings of the wires: where Redis, NATS and the execution service are, and what is believed of what they say."""

from dataclasses import dataclass
from typing import ClassVar

from engine.config import Settings, setting
from engine.live.tls import Tls as TlsFiles

REDIS = "redis://127.0.0.1:6379"


@dataclass(frozen=True)
class Feed(Settings):
    """Market data on Redis."""

    where: ClassVar[str] = "feed"

    url: str = setting(REDIS, "redis://[user:password@]host[:port][/db], rediss:// (TLS) or unix:///path of a socket")
    channels: tuple[str, ...] = setting(("md.*",), "pub/sub channels, names or patterns, ending in .raw, .pb or .json")
    streams: tuple[str, ...] = setting((), "streams, names or patterns, with the same endings")
    silent_s: float = setting(5.0, "seconds without a sign of life after which a source is silent: a GAP event", gt=0)
    late_s: float = setting(0.0, "seconds that an event may be older than the last of its kind and instrument", ge=0)
    early_s: float = setting(60.0, "seconds that an event may lie ahead of our clock", ge=0)
    jump: float = setting(0.5, "largest move from one price to the next, as a fraction; a lone one is set aside", gt=0)
    rows: int = setting(1 << 16, "events that one drain holds at most", ge=1024, le=1 << 22)
    quarantine: str | None = setting(None, "file that keeps what is set aside (null: it is only counted and told)")


@dataclass(frozen=True)
class Nats(Settings):
    """Execution reports, positions, signals and status on NATS."""

    where: ClassVar[str] = "nats"

    url: str = setting("nats://127.0.0.1:4222", "nats://[user:password@]host:port, or tls://")
    durable: bool = setting(True, "JetStream: no report is lost; false: core NATS, gaps are asked of the venue")
    ca: str | None = setting(None, "file of the certificates that we trust (PEM), for tls://")
    credentials: str | None = setting(None, "file of NATS credentials")


@dataclass(frozen=True)
class Tls(Settings):
    """TLS of the execution service; with a certificate of the client it is mutual."""

    where: ClassVar[str] = "execution.tls"

    ca: str | None = setting(None, "file of the certificates that we trust (PEM); a service asks clients for one")
    cert: str | None = setting(None, "file of our certificate (PEM)")
    key: str | None = setting(None, "file of its key (PEM)")

    def files(self) -> TlsFiles | None:
        """The files' bytes; None without TLS. Raises ConfigError."""
        return TlsFiles.read(self.ca, self.cert, self.key, self.where)


@dataclass(frozen=True)
class Execution(Settings):
    """The execution service."""

    where: ClassVar[str] = "execution"

    address: str = setting("127.0.0.1:50051", "host:port of the service")
    account: str = setting("paper", "whose orders and positions; letters, digits, - and _")
    stream: bool = setting(True, "one long stream; false: single calls")
    deadline_s: float = setting(1.0, "seconds for an ack or an answer; after that an order is in doubt", gt=0)
    heartbeat_s: float = setting(1.0, "seconds between signs of life; three may be missing", gt=0)
    resend_s: float = setting(2.0, "seconds after which an order that did not arrive is too old to be sent again", ge=0)
    tls: Tls = setting(Tls, "certificates; none given: no TLS")


@dataclass(frozen=True)
class Lease(Settings):
    """One engine for each id."""

    where: ClassVar[str] = "lease"

    ttl_s: float = setting(10.0, "seconds of a lease; it is renewed at a third, and given up at four fifths", ge=0.5)


@dataclass(frozen=True)
class Admin(Settings):
    """The HTTP server of an engine: metrics, health, commands."""

    where: ClassVar[str] = "admin"

    host: str = setting("127.0.0.1", "address that it listens on; beyond this machine, put a proxy with TLS before it")
    port: int = setting(8080, "its port (0: any free one)", ge=0, lt=65_536)
    token: str | None = setting(None, "of commands and status (null: a random one, in admin.token of the journal)")
