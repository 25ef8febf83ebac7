"""A sweep: lanes of one or several structures, in shards, each on disk as soon as it is done.

Law 1: a shard that is on disk is not computed again: it is found by the hash of all that decides it (data, code,
       settings, lanes), whatever stopped the sweep.
Law 2: what a rule across parameters forbids is skipped and counted; a lane without a figure is ranked last and counted.
Law 3: whoever runs the shards changes nothing in what comes of them (work.py).
Law 4: a lane is run over all of the time, or it is pruned, has no figures, and counts as a lane that was tried.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from backtest.drive import has_ticks
from backtest.lane_pass import functions
from backtest.lanes import between, cores, plain
from backtest.ranking import Objective, ranked
from backtest.run import Prepared
from backtest.sampling import Adaptive, Axis, Sampler, Table, chosen, sample, shards
from backtest.work import Executor, Local, Pack, Shard, Work, shard_hash
from engine.config import config_hash
from engine.errors import ConfigError
from engine.kernel.strategy import Strategy
from engine.store.files import atomic_file

if TYPE_CHECKING:
    import polars as pl

LANES = 2048  # of a shard
RATE = 40e6  # events of lanes that a core does in a second, for an estimate before anything has run
PRUNED = 9  # status of a lane that was hopeless on the first part of the time
BYTES = 400  # on disk and in memory, of the figures of one lane


def valid(cls: type[Strategy], base: Mapping[str, Any], table: Table) -> tuple[Any, str]:
    """Which lanes pass the strategy's rule across parameters, and what it says of the first that does not.

    Each value is checked once (a fraction first: it has made floats of whole numbers), each lane only by the rule.
    """
    own = {key.removeprefix("strategy."): values for key, values in table.items() if key.startswith("strategy.")}
    (total,) = {len(values) for values in table.values()}
    keep, said = np.ones(total, bool), ""
    for name, values in own.items():
        if name not in cls.params:
            cls(**{name: plain(values[0])})  # raises, with the names that there are
        for value in sorted(dict.fromkeys(values.tolist()), key=lambda v: not isinstance(v, float) or v.is_integer()):
            cls.params[name].check(f"{cls.__qualname__}.{name}", value, str(cls.fields[name].kind))
    if cls.validate is Strategy.validate:
        return keep, said
    one = cls.new()
    for name, declared in cls.params.items():
        setattr(one, name, base.get(name, declared.default))
    names, rows = list(own), list(zip(*(values.tolist() for values in own.values()), strict=True))
    for lane, row in enumerate(rows):
        for name, value in zip(names, row, strict=True):
            setattr(one, name, value)
        try:
            one.validate()
        except ValueError as error:
            keep[lane], said = False, said or str(error)
    return keep, said


@dataclass
class Structure:
    """One structural combination: what it is called, the strategy's class and given parameters, and how a prepared run
    is made of parameters; `settings`: resolved, as plain values, so that a lane of it can be run again."""

    names: dict[str, str]
    cls: type[Strategy]
    given: dict[str, Any]
    prepare: Callable[[Strategy], Prepared]
    settings: dict[str, Any]
    events: Callable[[], int] = lambda: 0  # of the tape, before a strategy is made
    extend: Callable[[Table], Table] = lambda table: table
    skipped: int = 0
    prepared: Prepared | None = None
    said: str = ""
    pack: Pack | None = None  # for executors on other machines
    work: Work | None = None
    first: Work | None = None  # over the first part of the time

    def admit(self, table: Table) -> Table:
        """The lanes that may run, with the values that depend on them; the first of all makes the prepared run."""
        table = self.extend(table)
        keep, said = valid(self.cls, self.given, table)
        self.skipped, self.said = self.skipped + int((~keep).sum()), self.said or said
        table = {key: values[keep] for key, values in table.items()}
        if self.prepared is None and keep.any():
            own = {k.removeprefix("strategy."): plain(v[0]) for k, v in table.items() if k.startswith("strategy.")}
            self.prepared = self.prepare(self.cls(**{**self.given, **own}))
        return table


@dataclass
class Sweep:
    """Everything of a sweep; `run` does what is not done yet. `store`: where shards are kept until the end."""

    axes: list[Axis]
    structures: list[Structure]
    objectives: list[Objective]
    sampler: Sampler = "auto"
    lanes: int = 1000
    seed: int = 0
    batch: int = 256
    threads: int = 0
    store: Path | None = None
    executor: Executor = field(default_factory=Local)
    told: Callable[[float], None] = lambda lanes: None
    tables: list[Table] = field(default_factory=list)  # of each structure, once they are checked
    prune: float = 0.0  # with optuna: the part of the time after which hopeless lanes end, 0 for none
    pruned: int = 0
    kept: int = 0  # lanes that were on disk
    alone: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        own = {f"strategy.{name}" for one in self.structures for name, f in one.cls.fields.items() if f.kind == "i8"}
        self.axes = [replace(a, whole=True) if a.key in own and a.low % 1 == a.high % 1 == 0 else a for a in self.axes]

    def prepare(self) -> None:
        """Check all lanes that are known beforehand, and compile what they need. Raises ConfigError if none may run."""
        if self.tables or chosen(self.axes, self.sampler) == "optuna":
            return
        self.tables = [one.admit(sample(self.axes, self.sampler, self.lanes, self.seed)) for one in self.structures]
        ready = [one.prepared for one in self.structures if one.prepared is not None]
        if not ready:
            self._none()
        for prepared in ready:
            functions(prepared, has_ticks(prepared.tape.events))

    def _none(self) -> NoReturn:
        skipped, said = sum(s.skipped for s in self.structures), next((s.said for s in self.structures if s.said), "")
        raise ConfigError(f"None of the {skipped:,} lanes may run: {self.structures[0].cls.__qualname__}: {said}.")

    def run(self) -> "pl.DataFrame":
        """The table of all lanes: structure, axes, figures, status; best first. Raises ConfigError if none may run."""
        import polars as pl

        self.prepare()
        parts: list[pl.DataFrame] = []
        adaptive = chosen(self.axes, self.sampler) == "optuna"
        for number, structure in enumerate(self.structures):
            make = self._adaptive if adaptive else self._sampled
            parts += [self._frame(number, structure, shard, found) for shard, found in make(number, structure)]
        if not parts:
            self._none()
        return ranked(pl.concat(parts, how="diagonal_relaxed"), self.objectives)

    def _sampled(self, number: int, structure: Structure) -> Iterator[tuple[Shard, Table]]:
        if structure.prepared is not None:
            todo = (Shard(number, begin, part) for begin, part in shards(self.tables[number], LANES))
            yield from self._map(structure, todo)

    def _adaptive(self, number: int, structure: Structure) -> Iterator[tuple[Shard, Table]]:
        study = Adaptive(self.axes, [o.sign for o in self.objectives], self.seed)
        for begin in range(0, self.lanes, self.batch):
            asked = study.ask(min(self.batch, self.lanes - begin))
            keep, _ = valid(structure.cls, structure.given, structure.extend(asked))
            table = structure.admit(asked)
            scores, gone = np.full((len(keep), len(self.objectives)), np.nan), np.zeros(len(keep), bool)
            if keep.any() and self.prune:
                early, found = np.full(len(keep), np.nan), self._first(structure, Shard(number, begin, table))
                early[keep] = found[self.objectives[0].name]
                gone = study.hopeless(early)
                out = gone[keep]
                if out.any():
                    self.pruned += int(out.sum())
                    self.told(float(out.sum()))
                    ended = {k: np.full(int(out.sum()), np.nan) for k in found}
                    ended["status"] = np.full(int(out.sum()), PRUNED)
                    yield Shard(number, begin + int((~out).sum()), {k: v[out] for k, v in table.items()}), ended
                table = {key: values[~out] for key, values in table.items()}
            ran = keep & ~gone
            if ran.any():
                for shard, found in self._map(structure, [Shard(number, begin, table)]):
                    scores[ran] = np.stack([found[o.name] for o in self.objectives], axis=1)
                    yield shard, found
            study.tell(scores, gone)

    def _first(self, structure: Structure, shard: Shard) -> Table:
        """The figures of a shard on the first part of the time."""
        assert structure.prepared is not None
        if structure.first is None:
            cut = max(1, round(self.prune * len(structure.prepared.tape.events)))
            structure.first = Work(between(structure.prepared, 0, cut), structure.pack, self.threads)
        ((_, found),) = self.executor.map(structure.first, [shard])
        return found

    def _map(self, structure: Structure, todo: Iterable[Shard]) -> Iterator[tuple[Shard, Table]]:
        """Each shard with its figures: what is on disk is taken from there, what is new is put there."""
        assert structure.prepared is not None
        if structure.work is None:
            structure.work = Work(structure.prepared, structure.pack, self.threads, self.told)
        work, kept = structure.work, list[tuple[Shard, Table]]()

        def missing() -> Iterator[Shard]:
            for shard in todo:
                where = self._place(work, shard)
                if where is not None and where.exists():
                    with np.load(where) as file:
                        kept.append((shard, {name: file[name] for name in file.files}))
                else:
                    yield shard

        for shard, found in self.executor.map(work, missing()):
            where = self._place(work, shard)
            if where is not None:
                where.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(where) as part, part.open("wb") as file:
                    np.savez(file, **cast(dict[str, Any], found))
            self.told(len(found["status"]) - work.heard)  # of what was done elsewhere nobody has told yet
            work.heard = 0.0
            yield self._counted(shard, found)
        for shard, found in kept:
            self.kept += len(found["status"])
            self.told(len(found["status"]))
            yield self._counted(shard, found)

    def _place(self, work: Work, shard: Shard) -> Path | None:
        return self.store / f"{shard_hash(work.prepared, shard)}.npz" if self.store else None

    def _counted(self, shard: Shard, found: Table) -> tuple[Shard, Table]:
        self.alone += int(found["alone"][0])
        self.failed += int((found["status"] != 0).sum())
        return shard, found

    def _frame(self, number: int, structure: Structure, shard: Shard, found: Table) -> "pl.DataFrame":
        import polars as pl

        size = len(found["status"])
        texts = {k: told(c) if c.dtype == object else c for k, c in shard.table.items()}
        names = {key: [value] * size for key, value in structure.names.items()}
        figures = {name: values for name, values in found.items() if name != "alone"}
        lanes = shard.begin + np.arange(size)
        return pl.DataFrame({"structure": np.full(size, number), "lane": lanes, **names, **texts, **figures})

    @cached_property
    def hash(self) -> str:
        """Of all that decides the lanes."""
        axes = [(a.key, repr(a.values), a.low, a.high, a.whole, a.log) for a in self.axes]
        objectives = self.objectives if chosen(self.axes, self.sampler) == "optuna" else ()
        words = {"axes": axes, "how": [self.sampler, self.lanes, self.seed, self.batch, list(objectives), self.prune],
                 "structures": [s.settings for s in self.structures]}  # fmt: skip
        return config_hash(words)


def check_size(lanes: int, events: int, most: int, force: bool) -> None:
    """Raises ConfigError for more lanes than `most` that nobody insisted on, with what they would take."""
    if lanes <= most or force:
        return
    seconds, size = lanes * events / (RATE * cores()), lanes * BYTES
    raise ConfigError(f"{lanes:,} lanes x {events:,} events: about {span(seconds)} on all cores and "
                      f"{size / 1e9:,.1f} GB of figures. Sample them (sweep.sampler=sobol sweep.lanes=10000), use a "
                      "wider step, or insist: sweep.force=true.")  # fmt: skip


def span(seconds: float) -> str:
    """A time in words.

    >>> span(90.0), span(7200.0), span(4e5)
    ('90 s', '2.0 hours', '4.6 days')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:,.1f} hours" if seconds < 2e5 else f"{seconds / 86_400:,.1f} days"


def day(ns: int) -> str:
    """The date of a time, UTC.

    >>> day(0)
    '1970-01-01'
    """
    return str(np.datetime64(ns, "ns").astype("M8[D]"))


def manifest(sweep: Sweep, table: "pl.DataFrame", seconds: float, preparing: float = 0.0) -> dict[str, Any]:
    """What somebody needs to understand the table, and to run a lane of it again. `preparing`: seconds before the first
    lane, in which data were read and programs compiled."""
    ran = [s.prepared for s in sweep.structures if s.prepared is not None]
    first, times = ran[0], [p.tape.events["ts"] for p in ran]
    instruments = dict.fromkeys(info.name for p in ran for info in p.tape.instruments)
    nan = int(table[sweep.objectives[0].name].is_nan().sum()) - sweep.pruned
    return {
        "version": 1, "hash": sweep.hash, "sampler": chosen(sweep.axes, sweep.sampler), "seed": sweep.seed,
        "objectives": [("-" if o.sign < 0 else "") + o.name for o in sweep.objectives],
        "axes": [axis.key for axis in sweep.axes], "lanes": table.height, "nan": nan,
        "skipped": sum(s.skipped for s in sweep.structures), "failed": sweep.failed, "pruned": sweep.pruned,
        "alone": sweep.alone, "idle": int(((table["trades"] == 0) & (table["exposure"] > 0)).sum()),
        "from_disk": sweep.kept, "seconds": seconds, "preparing": preparing, "identity": first.identity,
        "strategy": ", ".join(dict.fromkeys(type(p.strategies[0]).__name__ for p in ran)),
        "data": {"name": ", ".join(dict.fromkeys(p.tape.name for p in ran)), "digest": first.tape.digest,
                 "events": len(first.tape.events), "instruments": list(instruments),
                 "first": day(min(int(t[0]) for t in times)), "last": day(max(int(t[-1]) for t in times))},
        "structures": [{"names": s.names, "settings": s.settings} for s in sweep.structures],
    }  # fmt: skip


def columns(table: "pl.DataFrame", keys: Sequence[str]) -> dict[str, Any]:
    """Columns of a sweep's table as lanes take them; a null is None, a column of nulls is another structure's."""
    some = (table[key] for key in keys if table[key].null_count() < table.height)
    return {c.name: np.array(c.to_list(), object) if c.has_nulls() else c.to_numpy() for c in some}


def told(column: Any) -> list[Any]:
    """Texts; or numbers where there is nothing else but nulls."""
    numbers = all(value is None or isinstance(value, int | float) for value in column)
    return [float(v) if v is not None else None for v in column] if numbers else [str(v) for v in column]


def settings_of(about: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved settings of one lane: those of its structure with its own values in their places."""
    structure = about["structures"][row["structure"]]
    found: dict[str, Any] = json.loads(json.dumps(structure["settings"]))
    for key, value in row.items():
        group, _, name = key.partition(".")
        if key in structure["names"] or (value is None and key not in about["axes"]):
            continue
        if key == "cash":
            found[key] = value
        elif name:
            found[group][name] = value
    return found


def load(folder: str | os.PathLike[str]) -> "tuple[dict[str, Any], pl.DataFrame]":
    """The manifest and the table of a sweep's folder. Raises ConfigError when it is none."""
    import polars as pl

    where = Path(folder)
    if not (where / "sweep.json").is_file():
        raise ConfigError(f"{folder}: no folder of a sweep (it has no sweep.json); `tandem -m …` says where it wrote.")
    return json.loads((where / "sweep.json").read_text(encoding="utf-8")), pl.read_parquet(where / "lanes.parquet")
