"""Runs and promoted models in the tracker: found, fetched, registered, named by an alias.

Law 1: an alias is a pointer that anybody may move: it is resolved once, and what it points at is verified by hashes.
Law 2: a version's files lie under their digest, so that no promotion overwrites another.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import tracking
from engine import tracking_names as names
from engine.errors import TrackingError


@dataclass(frozen=True)
class Run:
    """A run, as the tracker has it."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def about(self) -> str:
        """For messages."""
        return f"run {self.run_id[:8]} ({self.name})"

    @property
    def link(self) -> str:
        """Markdown; the address is relative to the UI's."""
        return f"[{self.name}](#/experiments/{self.experiment_id}/runs/{self.run_id})"


@dataclass(frozen=True)
class Version:
    """A version of a model: `bundle` is the digest of its bundle, `run_id` the run that was promoted."""

    name: str
    version: str
    run_id: str
    bundle: str
    gates: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def link(self) -> str:
        """Markdown; the address is relative to the UI's."""
        return f"[{self}](#/models/{self.name}/versions/{self.version})"


def compare_link(runs: "list[Run]") -> str:
    """Markdown: the UI's page that lays runs side by side."""
    ids, experiments = (",".join(f"%22{one}%22" for one in dict.fromkeys(found))
                        for found in ([r.run_id for r in runs], [r.experiment_id for r in runs]))  # fmt: skip
    return f"[compare](#/compare-runs?runs=%5B{ids}%5D&experiments=%5B{experiments}%5D)"


def bundle_place(digest: str) -> str:
    """Where a bundle lies among the artifacts of the run that was promoted."""
    return f"{names.BUNDLE}/{digest[:16]}"


class Models:
    """The tracker's runs and models. Every method raises TrackingError when the tracker refuses or is not there."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = tracking.store_uri(tracking_uri)
        with tracking._contained(self.uri, None):
            self._client = tracking._client(self.uri)

    def _do(self, method: str, *given: Any, **named: Any) -> Any:
        with tracking._contained(self.uri, None):
            return getattr(self._client, method)(*given, **named)

    def run(self, beginning: str) -> Run:
        """The run whose id begins so. Raises TrackingError for none, or for several."""
        if not beginning or not beginning.isalnum():
            raise TrackingError(f"{beginning!r} is no id of a run; it is in the output of the run, and in the UI.")
        experiments = [e.experiment_id for e in self._do("search_experiments")]
        found = self._do("search_runs", experiments, f"attributes.run_id LIKE '{beginning}%'", max_results=2)
        if len(found) != 1:
            raise TrackingError(f"tracker {self.uri}: {'several runs begin' if found else 'no run begins'} with "
                                f"{beginning}; give {'more of its id' if found else 'the id of one that is there'}, "
                                "or set tracking.uri to the tracker that has it.")  # fmt: skip
        one = found[0]
        return Run(one.info.run_id, one.info.experiment_id, one.info.run_name, one.info.status, dict(one.data.tags),
                   dict(one.data.metrics))  # fmt: skip

    def where(self, run: Run) -> tuple[str, str]:
        """The whole id of a run, and the name of its experiment."""
        return run.run_id, str(self._do("get_experiment", run.experiment_id).name)

    def sweep_of(self, run: Run) -> Run | None:
        """The sweep that a run is a lane of."""
        parent = run.tags.get(names.SWEEP_RUN) or run.tags.get("mlflow.parentRunId")
        return self.run(parent) if parent else None

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """A copy below `folder` of a folder among the artifacts of a run. Raises TrackingError when it is not there."""
        if not self._do("list_artifacts", run_id, path):
            raise TrackingError(f"tracker {self.uri}: run {run_id[:8]} has no files in {path}; they were deleted, or "
                                "never logged.")  # fmt: skip
        return Path(self._do("download_artifacts", run_id, path, str(folder)))

    def fetch_version(self, version: Version, folder: Path) -> None:
        """Put the files of a version's bundle into `folder`."""
        with tempfile.TemporaryDirectory() as temporary:
            found = self.fetch(version.run_id, bundle_place(version.bundle), Path(temporary))
            shutil.copytree(found, folder, dirs_exist_ok=True)

    def register(self, name: str, run: Run, folder: Path, digest: str) -> Version:
        """A version of a model for a bundle; the one that there is if the same was registered before."""
        try:
            self._do("create_registered_model", name)
        except TrackingError as error:
            if getattr(error.__cause__, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise TrackingError(f"{error} Is {name!r} a name for a model? It has no / and no :.") from error
        for one in self._do("search_model_versions", f"name = '{name}'"):
            if one.tags.get(names.BUNDLE) == digest:
                return self._version(one)
        place = bundle_place(digest)
        self._do("log_artifacts", run.run_id, str(folder), place)
        made = self._do("create_model_version", name, f"runs:/{run.run_id}/{place}", run.run_id,
                        tags={names.BUNDLE: digest})  # fmt: skip
        return self._version(made)

    @staticmethod
    def _version(found: Any) -> Version:
        return Version(found.name, str(found.version), found.run_id, found.tags.get(names.BUNDLE, ""),
                       found.tags.get(names.GATES, ""))  # fmt: skip

    def judge(self, version: Version, gates: str, about: str, alias: str | None) -> None:
        """Note the outcome of the gates on a version, and let the alias point at it, if there is one to move."""
        self._do("set_model_version_tag", version.name, version.version, names.GATES, gates)
        self._do("update_model_version", version.name, version.version, about)
        if alias:
            self._do("set_registered_model_alias", version.name, alias, version.version)

    def tag(self, run: Run, tags: Mapping[str, str], line: str = "") -> None:
        """Set tags of a run, and add a line to its description, once."""
        note = run.tags.get("mlflow.note.content", "")
        more = {"mlflow.note.content": f"{note}\n\n{line}".strip()} if line and line not in note else {}
        for key, value in {**tags, **more}.items():
            self._do("set_tag", run.run_id, key, value[: tracking.LONGEST["tag"]])

    def resolve(self, wanted: str) -> Version:
        """The version that `name@alias` or `name/version` means now. Raises TrackingError when there is none."""
        name, _, alias = wanted.partition("@")
        number = ""
        if not alias:
            name, _, number = wanted.partition("/")
        if not name or not (alias or number):
            raise TrackingError(f"from={wanted} names no model; write from=momentum@live, or from=momentum/3.")
        try:
            found = (self._do("get_model_version_by_alias", name, alias) if alias else
                     self._do("get_model_version", name, number))  # fmt: skip
        except TrackingError as error:
            raise TrackingError(f"{error} Promote a run first: tandem mode=promote run=… model={name}.") from error
        version = self._version(found)
        if not version.bundle:
            raise TrackingError(f"{version} is no bundle of ours: it has no tag {names.BUNDLE}.")
        return version
