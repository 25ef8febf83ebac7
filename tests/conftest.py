"""What all tests share: where they may write, and how hypothesis runs.

Compiled images and imported datasets go below .pytest_cache: the user's own cache is left alone, and the next
run of the tests is warm.
"""

import fcntl
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".pytest_cache" / "tandem"

os.environ.setdefault("TANDEM_CACHE", str(KEPT / "cache"))
os.environ.setdefault("TANDEM_DATA", str(KEPT / "data"))
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
matplotlib.use("Agg")

# A failing example prints the line that reproduces it. Times say nothing on a shared machine.
COMMON = {"print_blob": True, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("tandem", max_examples=25, **COMMON)
settings.register_profile("thorough", max_examples=300, **COMMON)
settings.load_profile("tandem")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def new_store() -> Callable[[Path], str]:
    """Lay an empty store of MLflow in a directory; its address. MLflow makes the tables once, which takes seconds."""
    from engine import tracking

    made = KEPT / f"mlflow-{importlib.metadata.version('mlflow')}.db"

    def lay(place: Path) -> str:
        if not made.exists():
            KEPT.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=KEPT) as folder, tracking._contained(f"sqlite:///{folder}/db", None):
                tracking._client(f"sqlite:///{folder}/db")
                os.replace(f"{folder}/db", made)
        return f"sqlite:///{shutil.copy(made, place / 'mlflow.db')}"

    return lay


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recorded market data that lies beside the repository; tests that need it are skipped where it is absent."""
    path = ROOT.parent / "shared" / "data" / "real"
    if not path.is_dir():
        pytest.skip(f"no recorded market data at ../{path.relative_to(ROOT.parent)}")
    return path


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Workers share out what takes long to compile: each program is compiled by one of them, whichever is free."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    from backtest import desk, drive, lane_pass
    from engine import session_loop
    from engine.kernel import build
    from tests.laws.world import Fuzz, FuzzAll, FuzzTicks

    shared = tmp_path_factory.getbasetemp().parent
    programs = (desk.PROGRAM, *reversed(drive.PROGRAMS), session_loop.PROGRAM, session_loop.READER, lane_pass.PROGRAM)
    work = {name: lambda name=name, entries=entries: build.program(name, entries) for name, entries in programs}
    work |= {one.__name__: lambda one=one: build.handlers(one) for one in (Fuzz, FuzzTicks, FuzzAll)}
    for wait in (fcntl.LOCK_NB, 0):  # first what nobody works at, then what the others have done
        for name, make in work.items():
            with (shared / f"{name}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | wait)
                except BlockingIOError:
                    continue
                make()
