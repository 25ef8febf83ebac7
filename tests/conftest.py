"""What all tests share: where they may write, and how hypothesis runs.

Compiled images and imported datasets go below .pytest_cache: the user's own cache is left alone, and the next
run of the tests is warm.
"""

import os
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
def real_data() -> Path:
    """Recorded market data that lies beside the repository; tests that need it are skipped where it is absent."""
    path = ROOT.parent / "shared" / "data" / "real"
    if not path.is_dir():
        pytest.skip(f"no recorded market data at ../{path.relative_to(ROOT.parent)}")
    return path
