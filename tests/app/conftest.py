"""The command line in a directory of its own: in this process where that is enough, as a process costs a second."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtest.lane_pass import PROGRAM
from engine.app import main
from engine.kernel import build
from tests.app.words import BREAKOUT, QUICK, Said


@pytest.fixture(scope="session")
def compiled() -> None:
    """The images and the sample are there, whatever test comes first."""
    assert main(["mode=backtest", *QUICK]) == 0
    build.program(*PROGRAM)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: None) -> Path:
    """A working directory with a strategy of a user in `ideas.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "ideas.py").write_text(BREAKOUT)
    return tmp_path


@pytest.fixture
def tandem(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def process(place: Path, root: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start the command line as a process of its own."""

    def start(*words: str, **options: Any) -> "subprocess.Popen[str]":
        env = {**os.environ, "PYTHONPATH": str(root), **options.pop("env", {})}
        command = [sys.executable, "-m", "engine.app", *words]
        return subprocess.Popen(command, cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                **options)  # fmt: skip

    return start
