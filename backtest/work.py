"""What is done with one shard of a sweep, and who does it.

Law 1: whoever runs the shards (`Executor`) changes nothing in what comes of them.
Law 2: work that is pickled is done elsewhere only where data, code, settings and processor have the same hashes; where
       they have not, that is an error which says what differs.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backtest import lane_figures, lanes, metrics
from backtest.drive import PROGRAMS
from backtest.lane_pass import PROGRAM
from backtest.lanes import Lanes, cores
from backtest.run import Prepared
from backtest.sampling import Table
from engine.config import config_hash
from engine.errors import ClusterError
from engine.kernel import build

FIGURES = (lane_figures, lanes, metrics)  # what makes figures of what the programs counted
Pack = Callable[[Prepared], tuple[Callable[..., Prepared], tuple[Any, ...]]]


@dataclass(frozen=True)
class Shard:
    """Some lanes of one structure: number of the structure and of the first lane, columns of the lanes."""

    structure: int
    begin: int
    table: Table


class Executor(Protocol):
    """Runs shards somewhere. Results may come in any order; one that a worker failed at is run by another. `work` may
    be pickled, and then brings all that another machine needs."""

    def map(self, work: "Work", shards: Iterable[Shard]) -> Iterator[tuple[Shard, Table]]:
        """Each shard with what `work` made of it."""
        ...


class Local:
    """This process: one shard at a time, whose lanes are spread over all cores."""

    def map(self, work: "Work", shards: Iterable[Shard]) -> Iterator[tuple[Shard, Table]]:
        """Each shard with its result, in order."""
        for shard in shards:
            yield shard, work(shard)


class Work:
    """The figures of a shard. `pack`: how the prepared run is made anew elsewhere, as a function and plain values;
    `told`: hears of lanes, in parts, while they run; `heard`: how many it was told of."""

    def __init__(self, prepared: Prepared, pack: Pack | None = None, threads: int = 0,
                 told: Callable[[float], None] | None = None) -> None:  # fmt: skip
        self.prepared, self.pack, self.threads, self.told, self.heard = prepared, pack, threads, told, 0.0

    def __call__(self, shard: Shard) -> Table:
        """Columns of figures, `status` and `alone`, one row for each lane."""
        length, begin = len(self.prepared.tape.events), self.heard

        def told(events: int) -> None:
            now = begin + events / length
            if self.told is not None:
                self.told(now - self.heard)
            self.heard = now

        found = Lanes(self.prepared, shard.table).run(self.threads or cores(), told)
        alone = np.full(len(found.status), found.alone)
        return {**found.figures, "status": found.status, "alone": alone}

    def __reduce__(self) -> tuple[Any, ...]:
        if self.pack is None:
            raise ClusterError("These lanes cannot leave this process: nobody said how their run is made anew "
                               "elsewhere; give Structure(…, pack=engine.executors.pack).")  # fmt: skip
        return again, (*self.pack(self.prepared), seal(self.prepared))


def again(make: Callable[..., Prepared], given: tuple[Any, ...], wanted: dict[str, Any]) -> Work:
    """The same work on this machine. Raises ClusterError when it would not be the same."""
    prepared = make(*given)
    have = seal(prepared)
    differs = [f"{key} {have[key]} instead of {value}" for key, value in wanted.items() if have[key] != value]
    if differs:
        raise ClusterError(f"This machine is not like the one that began the sweep: {'; '.join(differs)}. Figures "
                           "would not be the same; install the same versions, on processors of one kind.")  # fmt: skip
    return Work(prepared)


def seal(prepared: Prepared) -> dict[str, Any]:
    """All that decides figures, by its hash: what differs first explains the rest, so it stands first."""
    i = prepared.identity
    return {"platform": list(i["platform"]), "strategy": i["strategies"], "settings": i["config"],
            "data": prepared.tape.digest, "programs": list(programs())}  # fmt: skip


@cache
def programs() -> tuple[str, ...]:
    """Digests of the programs that lanes need."""
    return build.program_digest(*PROGRAM), *(build.program_digest(*program) for program in PROGRAMS)


@cache
def code() -> tuple[str, ...]:
    """Digests of all code that makes figures."""
    return *programs(), *(hashlib.sha256(Path(str(m.__file__)).read_bytes()).hexdigest() for m in FIGURES)


def shard_hash(prepared: Prepared, shard: Shard) -> str:
    """Of all that decides the figures of a shard: data, code, settings, lanes."""
    table = {key: values.tolist() for key, values in shard.table.items()}
    return config_hash({"config": prepared.config, "identity": prepared.identity, "code": code(), "lanes": table})
