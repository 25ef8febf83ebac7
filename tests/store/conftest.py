"""Places of its own for every test of the store: what one test caches, another cannot see."""

from pathlib import Path

import polars as pl
import pytest

from engine.store import synthetic_frame


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with `data` and `cache` below it, which the store uses."""
    monkeypatch.setenv("TANDEM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def bars() -> pl.DataFrame:
    """Sixty good minute bars of one instrument."""
    return synthetic_frame(60, 1, seed=3)


def left_in(folder: Path) -> list[str]:
    """Everything below a directory, hidden files included."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) if folder.exists() else []
