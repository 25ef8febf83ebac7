"""Shards of a sweep as the jobs of a launcher of Hydra's: `tandem -m hydra/launcher=joblib …`, or any that is there.

Law 1: who runs the jobs changes nothing in what comes of them: `backtest.work` proves by hashes that it would not.
Law 2: a job is one override, the number of its shard; work and shards lie in files, so a launcher needs a disk that it
       shares with this machine, and nothing else.
"""

import logging
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from backtest.sampling import Table
    from backtest.work import Shard, Work

GROUP, KEY = "hydra/launcher", "shard"


def chosen(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words about a launcher, and the others. Raises ConfigError for settings of a launcher without one."""
    mine = [w for w in given if w.lstrip("+").partition("=")[0] == GROUP or w.lstrip("+").startswith("hydra.launcher.")]
    if mine and not any(w.lstrip("+").startswith(f"{GROUP}=") for w in mine):
        raise ConfigError(f"{mine[0]}: name the launcher, too: {GROUP}=joblib.")
    return mine, [w for w in given if w not in mine]


def job(folder: str, threads: int, config: Any) -> "Table":
    """One shard, wherever the launcher runs it."""
    from omegaconf import open_dict

    place = Path(folder)
    with open_dict(config):
        number = int(config[KEY])
    work: Work = pickle.loads((place / "work").read_bytes())
    work.threads = threads
    return work(pickle.loads((place / f"{number}").read_bytes()))


class Launched:
    """An executor (`backtest.work.Executor`) that hands shards to a launcher, `words` its choice and settings."""

    def __init__(self, words: Sequence[str], threads: int) -> None:
        """`threads`: of one job; 0 for all cores, as one job runs at a time unless the launcher says otherwise."""
        self.words, self.threads = list(words), threads

    def map(self, work: "Work", shards: "Iterable[Shard]") -> "Iterator[tuple[Shard, Table]]":
        """Each shard with its result, once all are done. Raises ClusterError when a job fails."""
        todo = list(shards)
        if not todo:
            return
        place = Path(tempfile.mkdtemp(prefix="tandem-jobs-"))
        try:
            (place / "work").write_bytes(pickle.dumps(work))
            for n, shard in enumerate(todo):
                (place / f"{n}").write_bytes(pickle.dumps(shard))
            for shard, done in zip(todo, self._launch(place, len(todo)), strict=True):
                if done.status.name != "COMPLETED":
                    raise ClusterError(f"A job of {self.words[0]} failed: {done._return_value}") from done._return_value
                yield shard, done.return_value
        finally:
            shutil.rmtree(place)

    def _launch(self, place: Path, jobs: int) -> Any:
        from hydra import compose, initialize_config_dir
        from hydra._internal.callbacks import Callbacks  # of which Hydra's own context is made
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.plugins import Plugins
        from hydra.core.singleton import Singleton
        from hydra.errors import HydraException
        from hydra.types import HydraContext
        from omegaconf import OmegaConf

        (place / "conf").mkdir()
        (place / "conf" / "job.yaml").write_text(f"{KEY}: 0\n", encoding="utf-8")
        quiet = ["hydra.output_subdir=null", f"hydra.sweep.dir={place / 'out'}", "hydra.job.chdir=false",
                 "hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.mode=MULTIRUN"]  # fmt: skip
        before, plugins, level = Singleton.get_state(), Plugins.instance(), logging.root.level
        try:
            with initialize_config_dir(str(place / "conf"), version_base="1.3", job_name="tandem"):
                config = compose("job", [*quiet, *self.words], return_hydra_config=True)
                OmegaConf.set_readonly(config.hydra, False)
                config.hydra.job.config_name = "job"
                hydra = GlobalHydra.instance().hydra
                assert hydra is not None
                context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
                task = partial(job, str(place), self.threads)
                launcher = Plugins.instance().instantiate_launcher(context, task, config)
                return launcher.launch([[f"{KEY}={n}"] for n in range(jobs)], initial_job_idx=0)
        except (HydraException, ImportError) as error:
            said = " ".join(str(error).partition("Config search path")[0].split())
            raise ConfigError(f"{' '.join(self.words)}: {said}. Launchers are installed as packages, such as "
                              "hydra-joblib-launcher.") from error  # fmt: skip
        finally:
            Singleton.set_state(before)
            # A state leaves out the plugins that are registered, among them the one that finds a user's `conf`.
            Singleton._instances[Plugins] = plugins  # type: ignore[assignment]
            logging.root.setLevel(level)
            sys.stdout.flush()
