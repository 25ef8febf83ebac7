"""Images: compiled once, found again without numba, never stale, whole or absent."""

import concurrent.futures
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest

from backtest import backtest, prepare
from backtest.drive import PROGRAMS
from engine.errors import ConfigError, ImageError
from engine.kernel import build, image
from strategies import Momentum
from tests.kernel.authored import IMPORTS, bars, run, same, strategy

PROGRAM = """
import json, sys
from engine.kernel import image
from plan import Plan
from tests.kernel.authored import bars
from backtest import backtest
result = backtest(Plan(), bars(60, seed=2))
print(json.dumps({"numba": "numba" in sys.modules, "equity": result.raw["curve"]["equity"][-1],
                  "image": result.identity["strategies"][0]}))
"""
PLAN = (
    IMPORTS
    + """
import helper
from constants import SIDES


class Plan(Strategy):
    n: int

    def on_bar(self, bar, ctx):
        self.n += 1
        ctx.target(helper.wish(self.n) * SIDES[0])
"""
)
HELPER = "from further import scale\n\n\ndef wish(n):\n    return scale(1.0) if n % 9 > 4 else 0.0\n"
FURTHER = "SCALE = 3\n\n\ndef scale(x):\n    return x * SCALE\n"


def told(folder: Path, text: str = PROGRAM, **environment: str) -> dict[str, Any]:
    done = run(folder, text, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_an_edited_helper_takes_effect_and_a_warm_start_has_no_numba(tmp_path: Path) -> None:
    """Files two imports away from the strategy count; what was undone is found again, not compiled again."""
    # A second side of its own for each run of this test, so that the image of an earlier run cannot serve.
    sides = f"SIDES = (1.0, {2.0 + time.time_ns() % 1_000_000_007 * 1e-15!r})\n"
    for name, text in {"plan": PLAN, "helper": HELPER, "further": FURTHER, "constants": sides}.items():
        (tmp_path / f"{name}.py").write_text(text)
    backtest(Momentum(), bars(60))  # the program is there, whatever runs first
    first, again = told(tmp_path), told(tmp_path)
    assert first["numba"] and not again["numba"]
    assert first["equity"] == again["equity"] and first["image"] == again["image"]
    edits = {
        "further": FURTHER.replace("3", "30"),
        "constants": "SIDES = (-1.0, 2.0)\n",
    }
    seen = {first["image"]}
    for name, text in edits.items():
        before = (tmp_path / f"{name}.py").read_text()
        (tmp_path / f"{name}.py").write_text(text)
        changed = told(tmp_path)
        assert changed["equity"] != first["equity"] and changed["image"] not in seen, name
        seen.add(changed["image"])
        (tmp_path / f"{name}.py").write_text(before)
    assert told(tmp_path) == again


def test_a_warm_start_of_a_built_in_has_no_numba(tmp_path: Path) -> None:
    backtest(Momentum(), bars(60))
    text = PROGRAM.replace("from plan import Plan", "from strategies import Momentum as Plan")
    assert not told(tmp_path, text)["numba"]


BODY = "n: int\ndef on_bar(self, bar, ctx):\n    self.n += 1\n    ctx.target({})\n"


def test_each_reason_to_compile_again_changes_the_digest(tmp_path: Path) -> None:
    def digest(body: str, above: str = "") -> str:
        return build.handlers_digest(strategy(tmp_path, body, above))

    base = digest(BODY.format(1.0))
    assert digest(BODY.format(1.0)) == base
    assert digest(BODY.format(1.0).replace("self.n += 1\n", "self.n += 1  # a comment\n")) == base
    use = BODY.format("K + f(1.0)")
    above = "K = 2.0\n\n\ndef g(x):\n    return x\n\n\ndef f(x, y=1.0):\n    return g(x) * y\n"
    others = [
        digest(BODY.format(2.0)),
        digest("more: int\n" + BODY.format(1.0)),
        digest("fast: int = param(3)\n" + BODY.format(1.0)),
        digest(BODY.format(1.0).replace("n: int", "n: float")),
        digest("average: Mean\n" + BODY.format(1.0)),
        digest("average: Mean[2048]\n" + BODY.format(1.0)),
        digest(use, above),
        digest(use, above.replace("K = 2.0", "K = 3.0")),
        digest(use, above.replace("y=1.0", "y=2.0")),
        digest(use, above.replace("return x\n", "return -x\n")),
        digest(BODY.format("T[1]"), "T = (1.0, 2.0)"),
        digest(BODY.format("T[1]"), "T = (1.0, 3.0)"),
        digest(BODY.format("E.A"), "from enum import IntEnum\n\n\nclass E(IntEnum):\n    A = 1\n"),
        digest(BODY.format("E.A"), "from enum import IntEnum\n\n\nclass E(IntEnum):\n    A = 2\n"),
        digest(BODY.format("A[1]"), "A = np.array([1.0, 2.0])"),
        digest(BODY.format("A[1]"), "A = np.array([1.0, 3.0])"),
        digest(BODY.format("N"), "N = np.int64(3)"),
        digest(BODY.format("N"), "N = np.int64(4)"),
    ]
    assert len({base, *others}) == 1 + len(others)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[str, Path]:
    """An image fresh in the store, forgotten by this process."""
    cls = strategy(tmp_path, BODY.format(hash(tmp_path.name) % 1000))
    digest = build.handlers(cls).digest
    image._loaded.pop(digest)
    return digest, image.cache_folder("images")


def test_a_damaged_image_is_told(stored: tuple[str, Path]) -> None:
    digest, folder = stored
    path = next(folder.glob(f"{digest}-*.o"))
    code, manifest = path.read_bytes(), (folder / f"{digest}.json").read_text()
    try:
        path.write_bytes(code[:-1] + bytes([code[-1] ^ 1]))
        with pytest.raises(ImageError, match=rf"{digest}-.*.o is damaged.*[Dd]elete"):
            image.load(digest)
        path.write_bytes(code)
        (folder / f"{digest}.json").write_text('{"digest": ')
        with pytest.raises(ImageError, match=rf"{digest}.*cannot be read.*delete"):
            image.load(digest)
        (folder / f"{digest}.json").write_text(manifest)
        assert image.load(digest) is not None
        image._loaded.pop(digest)
        path.unlink()
        assert image.load(digest) is None  # half an image is none: it is compiled again
    finally:
        path.unlink(missing_ok=True)
        (folder / f"{digest}.json").unlink()


@pytest.mark.parametrize("place", ["{}/file/cache", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TANDEM_CACHE", place.format(tmp_path))
    with pytest.raises(ConfigError, match=r"cache directory .*cache.images cannot be written.*TANDEM_CACHE"):
        image.cache_folder("images")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        image.write_atomically(tmp_path / "x.o", b"code")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_may_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = strategy(tmp_path, BODY.format(1.0))
    build.handlers(known)
    monkeypatch.setattr(build, "may_compile", False)
    assert build.handlers(known).addresses["on_bar"]
    with pytest.raises(ImageError, match=r"strategy S is not compiled.*may not compile.*first"):
        build.handlers(strategy(tmp_path, BODY.format(f"1.0 + {hash(tmp_path.name) % 1000}")))
    with pytest.raises(ImageError, match=r"program other is not compiled"):
        build.program("other", PROGRAMS[0][1])


@pytest.mark.slow
def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    """Both compile, both write whole files of the same name, both run; and so does who comes later."""
    backtest(Momentum(), bars(60))
    body = BODY.format(f"{hash(str(tmp_path)) % 997 + 1}.0 * (self.n % 3)")
    (tmp_path / "plan.py").write_text(
        IMPORTS + "\n\nclass Plan(Strategy):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "plan.py").write_text((tmp_path / "plan.py").read_text())
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = list(pool.map(told, folders))
    later = told(tmp_path)
    assert both[0]["image"] == both[1]["image"] == later["image"] and not later["numba"]
    assert both[0]["equity"] == both[1]["equity"] == later["equity"]


def test_code_for_other_machines_gives_the_same_bytes() -> None:
    """x86-64-v3 is what images are built for that move between machines."""
    from engine.kernel import compile as act
    from engine.kernel import compile_types as kinds
    from engine.kernel.events import Bar
    from engine.kernel.signals import Ctx

    has = llvm.get_host_cpu_features()
    if platform.machine() not in ("x86_64", "AMD64") or not all(has.get(name) for name in ("avx2", "bmi2", "fma")):
        pytest.skip("this machine does not run x86-64-v3 code")
    with act.compiling(kinds.HANDLER_OPTIONS) as translator:
        parts = {"on_bar": act.guarded(Momentum.handlers["on_bar"], Momentum, Bar, Ctx, translator)}
        entries, code = act.emit(parts, cpu="x86-64-v3")
    strategy, data = Momentum(fast=3, slow=8, qty=10, short=True), bars(3000)
    ready = prepare(strategy, data)
    host = ready.run()
    ready = prepare(strategy, data)
    ready.images = [image.Image("portable", {"entries": entries}, code)]
    assert same(host, ready.run()) and len(host.raw["orders"]) > 100


FULL = """
import ctypes, json, sys
from engine.kernel import image

folder = image.cache_folder("images")
manifest = json.loads((folder / (sys.argv[1] + ".json")).read_text())
code = (folder / manifest["object"]).read_bytes()
first = image.Image("first", manifest, code)  # what is loaded once stays; afterwards only the sections are new
system = ctypes.CDLL(None)
system.mmap.restype, system.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3,
                                                              ctypes.c_long]
system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def reserve(size):
    return system.mmap(None, size, 0, 0x4022, -1, 0)

block, size = reserve(4 << 30), 64 << 20
while size >= 4096:  # no hole is left above the block
    at = reserve(size)
    if at < block:
        system.munmap(at, size)
        size //= 2
text = next(s.size() for s in image.llvm.ObjectFileRef.from_data(code).sections() if s.is_text())
hole = -(-(text + 16) // 4096) * 4096  # there is room for the code, for its constants only below the block
system.munmap(block + (4 << 30) - hole, hole)
print(len(image.Image("second", manifest, code).addresses))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="places memory by hand, with Linux's own calls")
def test_an_image_loads_into_a_crowded_process(tmp_path: Path) -> None:
    """Code and its constants stay near each other, however full the memory is; else LLVM ends the process."""
    digest = build.program(*PROGRAMS[0]).digest
    text = FULL.replace("sys.argv[1]", repr(digest))
    done = run(tmp_path, text, TANDEM_CACHE=str(image.cache_folder("images").parent))
    assert done.returncode == 0 and done.stdout == "1\n", done.stderr[-2000:]


def test_the_manifest_says_what_it_is(tmp_path: Path) -> None:
    found = build.handlers(strategy(tmp_path, BODY.format(1.0)))
    assert found.manifest["digest"] == found.digest and found.manifest["strategy"] == "S"
    assert set(found.manifest["entries"]) == {"on_bar"} and len(found.manifest["sha256"]) == 64
    assert tuple(found.manifest["platform"]) == image.platform_words()
