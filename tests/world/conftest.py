"""Each peer runs all its cases once, in its own environment, however many workers share the tests."""

import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.peers.__main__ import python, ready
from tests.world.rules import Case
from tests.world.sources import REAL, SAMPLES, SOURCES, Source

HERE = Path(__file__).parent
SECONDS = 300


@cache
def opened(name: str) -> Source:
    """A source, read once."""
    return SOURCES[name]()


@pytest.fixture(scope="session")
def source() -> Callable[[str], Source]:
    """A source by name; a test that needs recorded data is skipped where they are absent."""

    def get(name: str) -> Source:
        if name not in SAMPLES and not REAL.is_dir():
            pytest.skip("no recorded market data beside the repository, only the sample is compared")
        return opened(name)

    return get


def run_peer(peer: str, cases: list[Case], folder: Path) -> dict[str, Any]:
    """Give a peer its job, wait, and read what it found."""
    names = sorted({case.bars for case in cases})
    for name in names:
        np.savez(folder / f"{name}.npz", **opened(name).bars)
    told = {"bars": {name: str(folder / f"{name}.npz") for name in names}, "cases": [case.plain() for case in cases]}
    job, out = folder / "job.json", folder / "out.json"
    job.write_text(json.dumps(told))
    command = [str(python(peer)), str(HERE / f"peer_{peer}.py"), str(job), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        pytest.fail(f"{peer} ended with {done.returncode}:\n{done.stderr[-3000:]}", pytrace=False)
    return json.loads(out.read_text())


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[Case]], dict[str, Any]]:
    """What a peer says to all its cases."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    @cache
    def answers(peer: str, cases: tuple[Case, ...]) -> dict[str, Any]:
        folder = shared / f"world-{peer}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = folder / "done.json"
            if not done.exists():
                found = run_peer(peer, [c for c in cases if c.bars in SAMPLES or REAL.is_dir()], folder)
                done.write_text(json.dumps(found))
            return json.loads(done.read_text())

    def ask(peer: str, cases: list[Case]) -> dict[str, Any]:
        if not ready(peer):
            text = f"no environment of {peer}; build it with: python -m bench.peers {peer}"
            if os.environ.get("CI"):
                pytest.fail(text, pytrace=False)
            pytest.skip(text)
        return answers(peer, tuple(cases))

    return ask
