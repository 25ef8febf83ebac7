"""House rules, as tests of the source text: sizes, words, and what may stand where.

The sizes are a ratchet: a lower number merges, a higher one does not.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("engine", "strategies", "backtest")
SOURCE = (*PRODUCT, "conf", "bench")
BELOW_HARNESSES = ("engine/kernel", "engine/store", "engine/errors.py", "engine/ports.py", "engine/config.py",
                   "engine/journal.py", "engine/session.py", "engine/replay.py", "engine/tracking.py",
                   "engine/promote.py")  # fmt: skip

LINES_IN_ALL = 36_937
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, COLUMNS = 350, 70, 120

# Words that have one meaning here and another name there; only names that we define are looked at.
SAY_INSTEAD = {
    "symbol": "instrument", "ticker": "instrument", "asset": "instrument", "broker": "venue", "exchange": "venue",
    "holding": "position", "callback": "handler or report", "ticket": "order", "deal": "fill", "alert": "signal",
    "prediction": "signal", "bot": "kernel", "trial": "lane", "combo": "lane",
}  # fmt: skip
# In machine code an entry point is found by its symbol.
ALLOWED_WORDS = {"engine/kernel/image.py": {"symbol"}}

# Of a scalar these differ between compiled and uncompiled code; those of `math` do not.
SCALAR_NUMPY = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "power", "hypot",
                "sin", "cos", "tan", "sinh", "cosh", "tanh"}  # fmt: skip

# fmt: off
KERNEL_MAY_IMPORT = {
    "collections", "ctypes", "dataclasses", "difflib", "functools", "inspect", "itertools", "math", "numpy", "sys",
    "types", "typing", "engine.errors", "engine.kernel",
}
IMAGES_MAY_IMPORT = {
    "ast", "builtins", "contextlib", "dis", "hashlib", "importlib", "json", "linecache", "llvmlite", "numba",
    "operator", "os", "pathlib", "platform", "platformdirs", "re", "tempfile", "textwrap", "time",
}
# fmt: on
# Compile, store, load and explain images: files, digests, machine code, and numba in the first alone.
ABOUT_IMAGES = {
    "compile.py",
    "compile_draft.py",
    "compile_methods.py",
    "compile_types.py",
    "image.py",
    "build.py",
    "lint.py",
    "source.py",
    "feedback.py",
    "header.py",
}


@cache
def files(*folders: str) -> list[Path]:
    """Python files below folders or files of the repository; environments, data and generated code are no source."""
    found = (p for f in folders for p in ([ROOT / f] if f.endswith(".py") else (ROOT / f).rglob("*.py")))
    return sorted(p for p in found if p.exists() and not {".venvs", "data", "wire", "__pycache__"} & set(p.parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def at(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


def none(found: Iterator[str], rule: str) -> None:
    lines = list(found)
    if lines:
        pytest.fail(f"{rule}:\n  " + "\n  ".join(lines), pytrace=False)


def test_sizes_of_files() -> None:
    none(
        (f"{at(p)} has {n}" for p in files(*SOURCE) if (n := len(p.read_text().splitlines())) > LINES_OF_A_FILE),
        f"a file has at most {LINES_OF_A_FILE} lines",
    )


def test_size_in_all() -> None:
    lines = sum(len(p.read_text().splitlines()) for p in files(*PRODUCT))
    assert lines <= LINES_IN_ALL, f"{lines} lines of source; the ratchet stands at {LINES_IN_ALL}"


def test_sizes_of_functions() -> None:
    functions = (
        (p, f) for p in files(*SOURCE) for f in nodes(p) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    none(
        (
            f"{at(p, f.lineno)} {f.name} has {n}"
            for p, f in functions
            if (n := (f.end_lineno or f.lineno) - f.lineno + 1) > LINES_OF_A_FUNCTION
        ),
        f"a function has at most {LINES_OF_A_FUNCTION} lines",
    )


def test_columns() -> None:
    none(
        (
            f"{at(p, i)} has {len(line)}"
            for p in files(*SOURCE, "tests")
            for i, line in enumerate(p.read_text().splitlines(), 1)
            if len(line) > COLUMNS
        ),
        f"a line has at most {COLUMNS} columns",
    )


def test_modules_have_docstrings() -> None:
    none(
        (at(p) for p in files(*SOURCE, "tests") if tree(p).body and not ast.get_docstring(tree(p))),
        "a module opens by saying what it is",
    )


def defined(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that a file defines: functions, classes, arguments, variables, fields."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def words(name: str) -> set[str]:
    """The words of a name, singular: `AssetBook` and `asset_books` are asset and book."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def test_words() -> None:
    none(
        (
            f"{at(p, line)} `{name}`: say {SAY_INSTEAD[word]}"
            for p in files(*SOURCE)
            for name, line in defined(p)
            if name not in ALLOWED_WORDS.get(at(p), ())
            for word in words(name) & set(SAY_INSTEAD)
        ),
        "one word, one meaning",
    )


def test_modes_are_compositions() -> None:
    banned = re.compile(r"\b(is_live|is_backtest|environment)\b")
    none(
        (
            f"{at(p, line)} {name}"
            for p in files(*BELOW_HARNESSES)
            for name, line in defined(p)
            if banned.fullmatch(name)
        ),
        "below the harnesses nothing knows whether it is history or live",
    )


def test_no_scalar_numpy_in_what_is_compiled() -> None:
    compiled = [*files("engine/kernel", "strategies"), *(p for p in files("backtest") if "@hot" in p.read_text())]
    none(
        (
            f"{at(p, node.lineno)} np.{node.attr}"
            for p in compiled
            for node in nodes(p)
            if isinstance(node, ast.Attribute) and node.attr in SCALAR_NUMPY
            if isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy")
        ),
        "use math: compiled and uncompiled numpy scalars differ in their last bits",
    )


def test_no_field_hides_behind_numpy() -> None:
    import backtest  # noqa: F401
    import strategies  # noqa: F401
    from engine.kernel.layout import Record

    def below(record: type[Record]) -> Iterator[type[Record]]:
        for child in record.__subclasses__():
            yield child
            yield from below(child)

    taken = set(dir(np.record))
    known = set(below(Record))
    assert len(known) > 10
    none(
        (f"{r.__module__}.{r.__qualname__}.{f}" for r in known for f in (r.dtype.names or ()) if f in taken),
        "uncompiled, record.size reads an attribute of numpy and not the field",
    )


def test_errors_are_not_swallowed() -> None:
    def wide(kind: ast.expr | None) -> bool:
        return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))

    def reasons(path: Path) -> Iterator[tuple[int, str]]:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                # To go on with the next of several attempts is an answer to an error that is named.
                nothing = all(isinstance(s, ast.Pass) or is_ellipsis(s) for s in node.body)
                raises = any(isinstance(inner, ast.Raise) for s in node.body for inner in ast.walk(s))
                if nothing:
                    yield node.lineno, "a handler that does nothing"
                elif wide(node.type) and not raises and "kernel" not in path.parts:
                    yield node.lineno, "catches everything and does not raise"
            elif isinstance(node, ast.Attribute) and node.attr == "suppress":
                yield node.lineno, "contextlib.suppress"

    none((f"{at(p, line)} {why}" for p in files(*SOURCE) for line, why in reasons(p)), "no error is swallowed")


def is_ellipsis(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    )


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError|assert False")
    none(
        (
            f"{at(p, i)} {line.strip()}"
            for p in files(*SOURCE, "tests")
            if p != Path(__file__).resolve()
            for i, line in enumerate(p.read_text().splitlines(), 1)
            if later.search(line)
        ),
        "unfinished work is an issue, not a comment",
    )


SUFFIXES, NAMES = {".py", ".toml", ".txt", ".md", ".yaml", ".yml", ".ipynb"}, {"Makefile", "run", "Dockerfile"}
HIDDEN = {".git", ".venv", ".venvs", ".pytest_cache", "outputs", "build", "dist", "__pycache__", "mlruns"}


def texts() -> Iterator[Path]:
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in HIDDEN]
        yield from (Path(folder, name) for name in names if name in NAMES or Path(name).suffix in SUFFIXES)


def test_no_machine_is_named() -> None:
    place = re.compile(r"(?<![\w.}])/(?:home|root|work|tmp|Users|opt)/\w")
    none(
        (
            f"{at(p, i)} {line.strip()[:90]}"
            for p in texts()
            for i, line in enumerate(p.read_text(errors="replace").splitlines(), 1)
            if place.search(line)
        ),
        "paths are relative to the repository, or asked for",
    )


PINS = [ROOT / "constraints.txt", *sorted((ROOT / "bench" / "pins").glob("*.txt"))]


@pytest.mark.parametrize("path", PINS, ids=lambda p: p.stem)
def test_pins_are_names_and_versions(path: Path) -> None:
    pin = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==[0-9][\w.+!]*( ; .+)?")
    lines = path.read_text().splitlines()
    assert lines
    none(
        (f"{at(path, i)} {line}" for i, line in enumerate(lines, 1) if not pin.fullmatch(line)), "name==version, no URL"
    )


@cache
def imported(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), node.lineno))
    return found


def strangers(paths: list[Path], allowed: set[str]) -> Iterator[str]:
    for path in paths:
        for name, line in imported(path):
            parts = name.split(".")
            if not {".".join(parts[:k]) for k in range(1, len(parts) + 1)} & allowed:
                yield f"{at(path, line)} {name}"


def test_the_kernel_is_closed_to_the_world() -> None:
    pure = [p for p in files("engine/kernel") if p.name not in ABOUT_IMAGES]
    none(strangers(pure, KERNEL_MAY_IMPORT), "the kernel has no clock, no files, no wires")
    images = [p for p in files("engine/kernel") if p.name in ABOUT_IMAGES]
    none(strangers(images, KERNEL_MAY_IMPORT | IMAGES_MAY_IMPORT), "images know files and machine code, no more")


def test_strategies_see_the_kernel_only() -> None:
    allowed = {"engine.kernel", "engine.errors", "strategies", "math", "typing", "collections", "importlib", "numpy"}
    none(strangers(files("strategies"), allowed), "a strategy sees the kernel and arithmetic")


DOORS = {
    "numba": tuple(f"engine/kernel/compile{part}.py" for part in ("", "_draft", "_methods", "_types")),
    "mlflow": ("engine/tracking.py",),
    "hiredis": ("engine/live/redis_wire.py",),
    "nats": ("engine/live/nats_bus.py",),
    "aiohttp": ("engine/live/admin.py",),
    "prometheus_client": ("engine/live/observe.py",),
    "rich": ("engine/live/status.py",),
    "grpc": ("engine/live/grpc_venue.py", "engine/live/grpc_service.py"),
}


@pytest.mark.parametrize("library", DOORS)
def test_libraries_with_one_door(library: str) -> None:
    none(
        (
            f"{at(p, line)} {name}"
            for p in files(*PRODUCT)
            for name, line in imported(p)
            if name.split(".")[0] == library and at(p) not in DOORS[library]
        ),
        f"only {' and '.join(DOORS[library])} may import {library}",
    )
