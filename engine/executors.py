"""Who runs the lanes of a sweep: this machine or the nodes of a cluster; and a run as plain values for those.

Law: what leaves this machine is plain: settings, a class by its name (or the files that it is written in), events,
     images. Kernel, venue and addresses are made anew where the lanes run.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine import registry
from engine.config import Risk, Settings, VenueModel, setting
from engine.errors import ConfigError, DataError
from engine.kernel import build, image
from engine.kernel.events import Event
from engine.kernel.machine import Sizes
from engine.kernel.strategy import Strategy
from engine.store.files import file_hash
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen, to_bytes

if TYPE_CHECKING:
    from backtest.run import Prepared
    from backtest.work import Executor as Port

HOUSE = ("engine", "strategies", "backtest", "conf")  # packages that every node has


@dataclass(frozen=True)
class Executor(Settings):
    """Which machines run the lanes of a sweep."""

    where = "executor"

    kind: Literal["local", "ray"] = setting("local", "this machine, or a Ray cluster of which it is a node")
    address: str | None = setting(None, "with ray: host:port of the cluster's head; auto: the cluster of this machine")
    attempts: int = setting(3, "with ray: nodes that try a shard before the sweep ends", ge=1)
    wait_s: float = setting(120.0, "with ray: how long a first node may take to be ready", gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "ray" and not self.address:
            raise ConfigError("executor=ray needs executor.address=host:6379, the head of the cluster, or "
                              "executor.address=auto for the one that runs on this machine.")  # fmt: skip
        if self.kind == "local" and self.address:
            raise ConfigError("executor.address is for a cluster; say executor=ray too.")


@contextmanager
def opened(settings: Executor) -> "Iterator[Port]":
    """The executor, closed at the end."""
    if settings.kind == "local":
        from backtest.work import Local

        yield Local()
        return
    from backtest.cluster import Ray

    assert settings.address is not None
    cluster = Ray(settings.address, settings.attempts, settings.wait_s)
    try:
        yield cluster
    finally:
        cluster.close()


@dataclass(frozen=True)
class Parcel:
    """A prepared run as plain values. `strategy`: module or file, a colon, the class; `files`: what that file needs,
    by its path from the file's folder; `events`: the raw bytes of the tape, `sha` their hash."""

    strategy: str
    values: dict[str, Any]
    files: dict[str, bytes]
    images: dict[str, bytes]
    events: Any
    sha: str
    instruments: tuple[InstrumentInfo, ...]
    digest: str
    names: tuple[str, str]
    cash: float
    risk: Risk
    venue: VenueModel
    latency: str
    rest: tuple[bool, Sizes, str]


def pack(p: "Prepared") -> "tuple[Any, tuple[Parcel]]":
    """How a run is made anew elsewhere. Raises ConfigError for a strategy that nobody else can find."""
    from backtest.work import programs

    (strategy,) = p.strategies
    where, files = source(type(strategy))
    raw = np.frombuffer(to_bytes(p.tape.events), np.uint8)
    latency = file_hash(Path(p.venue.latency)) if p.venue.latency else ""
    digests = (*programs(), *p.identity["strategies"]) if p.compiled else ()
    sha = hashlib.sha256(raw.data).hexdigest()
    return unpack, (Parcel(where, dict(strategy.values), files, images(digests), raw, sha, p.tape.instruments,
                           p.tape.digest, (p.tape.name, p.name), p.cash, p.risk, p.venue, latency,
                           (p.compiled, p.sizes, p.on_fault)),)  # fmt: skip


def unpack(parcel: Parcel) -> "Prepared":
    """The run on this machine. Raises DataError for events or a file that did not arrive as they were."""
    from backtest.run import Prepared

    if hashlib.sha256(parcel.events.data).hexdigest() != parcel.sha:
        raise DataError(f"The events of {parcel.names[0]} did not arrive as they were sent; start the sweep again.")
    latency = parcel.venue.latency
    if latency and not (Path(latency).is_file() and file_hash(Path(latency)) == parcel.latency):
        raise DataError(f"venue.latency={latency}: this file is absent or another one here; put it at the same "
                        "absolute path on every node.")  # fmt: skip
    where, store = parcel.strategy, image.cache_folder("images")
    for name, content in parcel.images.items():
        if not (store / name).exists():
            image.write_atomically(store / name, content)
    if parcel.files:
        text = hashlib.sha256(repr(sorted(parcel.files.items())).encode()).hexdigest()[:16]
        folder = image.cache_folder("parcels") / text
        for name, content in parcel.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image.write_atomically(folder / name, content)
        where = f"{folder}/{where}"
    raw = parcel.events
    if raw.ctypes.data % 64:
        copy = blank(len(raw) // Event.dtype.itemsize)
        copy.view(np.uint8)[:] = raw
        raw = copy
    tape = Tape(frozen(raw.view(Event.dtype)), parcel.instruments, parcel.digest, parcel.names[0])
    compiled, sizes, on_fault = parcel.rest
    return Prepared([registry.find(where)(**parcel.values)], tape, parcel.cash, parcel.risk, parcel.venue, compiled,
                    sizes, on_fault, parcel.names[1])  # fmt: skip


def source(cls: type[Strategy]) -> tuple[str, dict[str, bytes]]:
    """How a class is found on another machine, and the files that must come along: those of a user's own file."""
    name = cls.__qualname__
    if cls.__module__ == "__main__" or "." in name:
        raise ConfigError(f"Strategy {name} is written in a notebook cell, a script or a function, where other "
                          "machines cannot find it. Write it to a file (in a notebook: %%writefile ideas.py) and "
                          f"name that: strategy=ideas.py:{name.rpartition('.')[2]}.")  # fmt: skip
    if not cls.__module__.startswith(registry.FILE):
        return f"{cls.__module__}:{name}", {}
    main = Path(str(sys.modules[cls.__module__].__file__))
    files = {main.name: main}
    for module in list(sys.modules.values()):
        path = Path(str(getattr(module, "__file__", None) or ""))
        top = module.__name__.partition(".")[0]
        if path.suffix == ".py" and top not in HOUSE and path.is_relative_to(main.parent):
            beside = path.relative_to(main.parent)
            if beside.parts[0] in (top, f"{top}.py"):
                files[beside.as_posix()] = path
    if cls.library is not None and not Path(cls.library).is_absolute():
        files[str(cls.library)] = build.library_path(cls)
    return f"{main.name}:{name}", {key: path.read_bytes() for key, path in files.items()}


def images(digests: Any) -> dict[str, bytes]:
    """Compiled code as files of the store; of a shared library there is none."""
    store = image.cache_folder("images")
    names = [path.name for digest in digests for path in (*store.glob(f"{digest}-*.o"), *store.glob(f"{digest}.json"))]
    return {name: (store / name).read_bytes() for name in names}
