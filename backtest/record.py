"""What a backtest keeps of itself so that it can be promoted: given, all that it was given; came out, as hashes.

Law: what is recorded is enough to run it again to the same orders and fills, byte for byte; `again` does.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.drive import PROGRAMS, has_ticks
from engine import tracking_names as names
from engine.bundle import RECORDED, Recorded, write_recorded
from engine.config import Risk, VenueModel
from engine.errors import DataError, StrategyError
from engine.kernel import codes
from engine.kernel.machine import Sizes
from engine.plan import Find
from engine.promote import Again
from engine.sealed import SEAL
from engine.store.files import file_hash

if TYPE_CHECKING:
    from backtest.result import Result
    from backtest.run import Prepared

LATENCIES = "latencies.csv"


def sha256(rows: "np.ndarray[Any, Any]") -> str:
    """Hash of the bytes of rows."""
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def hashes(orders: Any, reports: Any) -> dict[str, dict[str, Any]]:
    """How many orders and fills there are, and the hashes of their bytes."""
    fills = reports[reports["code"] == codes.FILL]
    return {"orders": {"count": len(orders), "sha256": sha256(orders)},
            "fills": {"count": len(fills), "sha256": sha256(fills)}}  # fmt: skip


def write(prepared: "Prepared", result: "Result", folder: Path) -> str:
    """Write what a run was given and what came out of it; the digest of the seal."""
    venue, more = asdict(prepared.venue), dict[str, Path]()
    if prepared.venue.latency is not None:
        venue["latency"], more = LATENCIES, {LATENCIES: Path(prepared.venue.latency)}
    data = {**prepared.opened, "name": prepared.tape.name, "digest": prepared.tape.digest}
    words = {"name": prepared.name, "data": data, "risk": asdict(prepared.risk), "venue": venue,
             **hashes(result.raw["orders"], result.raw["reports"])}  # fmt: skip
    return write_recorded(folder, prepared.plan(), PROGRAMS[has_ticks(prepared.tape.events)], words, more)


@contextmanager
def promotable(result: "Result", artifacts: Any) -> "Iterator[tuple[Any, Mapping[str, str]]]":
    """The folder of a run's artifacts, which holds what was recorded, and the tags that vouch for that."""
    with tempfile.TemporaryDirectory() as own:
        if artifacts is None and result.record:
            artifacts = own
            result.record(result, Path(own) / RECORDED)
        seal = Path(artifacts) / RECORDED / SEAL if artifacts else None
        if seal is None or not seal.is_file():
            yield artifacts, {}
            return
        found = hashes(result.raw["orders"], result.raw["reports"])
        yield artifacts, {names.RECORDED: file_hash(seal), names.ORDERS_SHA256: found["orders"]["sha256"],
                          names.FILLS_SHA256: found["fills"]["sha256"]}  # fmt: skip


@dataclass(frozen=True)
class Repeat:
    """Runs what was recorded again, here and now. `events`: of its data, at most, for the causality law; `tries`:
    random cuts for it, from `seed`."""

    find: Find
    events: int = 20_000
    tries: int = 3
    seed: int = 0

    def __call__(self, recorded: Recorded) -> Again:
        """Raises DataError for data that are gone, what `prepare` raises, StrategyFault."""
        from backtest.check import Subject
        from backtest.honesty.verdict import of_lane
        from backtest.run import prepare

        words, data, plan = recorded.words, recorded.words["data"], recorded.plan
        if data["source"] is None:
            raise DataError(f"{recorded.about} ran on a frame in memory ({data['name']}), which nobody has any more. "
                            "Import it as a dataset, run on that, and promote that run.")  # fmt: skip
        venue = dict(words["venue"])
        if venue["latency"] is not None:
            venue["latency"] = str(recorded.folder / venue["latency"])
        made = [
            self.find(name)(**one["params"]) for name, one in zip(recorded.names(), plan["strategies"], strict=True)
        ]
        prepared = prepare(made, data["source"], instruments=data["instruments"], start=data["start"], end=data["end"],
                           cash=plan["cash"], risk=Risk(**words["risk"]), venue=VenueModel(**venue),
                           sizes=Sizes(**plan["sizes"]), name=words["name"], open_options=data["options"])  # fmt: skip
        result = prepared.run()
        subject = Subject(prepared, self.events)
        causality, sent = "", len(subject.whole.orders)
        try:
            subject.causality(np.random.default_rng(self.seed), self.tries)
        except StrategyError as error:
            causality = str(error)
        found = hashes(result.raw["orders"], result.raw["reports"])
        honest = partial(of_lane, result.periods.returns, result.periods.per_year)
        return Again(prepared.tape.digest, found, dict(result.metrics), causality, sent, len(subject.events),
                     PROGRAMS[has_ticks(prepared.tape.events)], honest)  # fmt: skip
