"""Images: compiled code as relocatable objects, named by a digest over everything that takes part.

Law 1: running an image needs llvmlite and ctypes only; numba is never imported to run.
Law 2: the name is a digest of sources, layouts, versions and processor, so stale code cannot be found.
Law 3: an image is whole or absent: written aside, checked by hash when loaded.

The store is the folder `images` under the user's cache directory (`TANDEM_CACHE` moves it).
"""

import ctypes
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from engine.errors import ConfigError, ImageError
from engine.kernel.layout import Record
from engine.kernel.primitives import Behind, Pointer, Table


def cache_folder(name: str) -> Path:
    """A folder of the user's cache directory, made if need be."""
    root = os.environ.get("TANDEM_CACHE")
    if not root:
        import platformdirs

        root = platformdirs.user_cache_dir("tandem")
    folder = Path(root) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise ConfigError(
            f"The cache directory {folder} cannot be written ({error.strerror}); compiled code and tapes live there. "
            "Make it writable, or set TANDEM_CACHE to a directory that is."
        ) from error
    return folder


@cache
def _initialise() -> tuple[str, str]:
    """Processor name and features; LLVM is ready after this."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    return llvm.get_host_cpu_name(), features.flatten()


@cache
def platform_words() -> tuple[str, ...]:
    """Everything about this machine and these libraries that decides what the compiler emits."""
    cpu, features = _initialise()
    return (sys.version.split()[0], importlib.metadata.version("numba"), importlib.metadata.version("llvmlite"),
            np.__version__, llvm.get_default_triple(), cpu, features)  # fmt: skip


@cache
def source_digest(folder: Path, *names: str) -> str:
    """Digest of the named files of a folder, or of all its Python files."""
    paths = [folder / n for n in names] if names else sorted(folder.rglob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


ONLY_EXPLAINS = {"header.py", "verbs.py", "feedback.py", "lint.py", "source.py"}  # edits there change no machine code


def kernel_words() -> tuple[str, ...]:
    """Everything of the kernel, this machine and its libraries that takes part in all compiled code."""
    folder = Path(__file__).parent
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*.py")} - ONLY_EXPLAINS
    return (*platform_words(), source_digest(folder, *sorted(paths)))


def layout_words(record: type[Record]) -> str:
    """The layout of a record as text: names, formats, offsets, down to nested records."""
    return f"{record.__name__} {record.dtype!r}"


class Walk:
    """Feeds a digest with functions and all that they reach: helpers, constants, layouts."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: set[int] = set()
        self.keep: list[Any] = []

    def add(self, *words: Any) -> None:
        """Plain words."""
        self.digest.update(repr(words).encode() + b"\0")

    def function(self, function: Callable[..., Any]) -> None:
        """A function: its code, defaults, closure, and the globals it names."""
        if not isinstance(function, FunctionType) or id(function) in self.seen:
            return
        self.seen.add(id(function))
        self.add(function.__qualname__, function.__defaults__, function.__kwdefaults__)
        names = self._code(function.__code__)
        for name in sorted(names):
            if name in function.__globals__:
                self.value(name, function.__globals__[name], names)
        for cell in function.__closure__ or ():
            self.value("closure", cell.cell_contents, names)

    def _code(self, code: CodeType) -> set[str]:
        names = set(code.co_names)
        self.add(code.co_code, code.co_names, code.co_varnames, code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                names |= self._code(constant)
            else:
                self.add(constant)
        return names

    def value(self, name: str, value: Any, names: Iterable[str]) -> None:
        """A global or a closed-over value."""
        if isinstance(value, FunctionType):
            self.function(value)
        elif hasattr(value, "py_func"):  # a function that the user compiled with numba
            self.function(value.py_func)
        elif isinstance(value, ModuleType):
            known = value.__name__.split(".")[0] in ("math", "numpy", "numba")
            for attribute in sorted(set(names) & set(vars(value))) if not known else ():
                inner = getattr(value, attribute)
                if not isinstance(inner, ModuleType) or inner.__name__.startswith(value.__name__ + "."):
                    self.value(attribute, inner, names)
        elif isinstance(value, np.ndarray):
            self.add(name, value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, int | float | bool | str | tuple | type(None) | np.generic):
            self.add(name, value)
        elif isinstance(value, type) and hasattr(value, "__members__"):  # an enum
            self.add(name, [(key, member.value) for key, member in value.__members__.items()])
        elif isinstance(value, type) and issubclass(value, Record):
            self.record(value)
        elif isinstance(value, Table | Pointer | Behind):
            self.add(name)
            self.record(value.record)

    def record(self, record: type[Record]) -> None:
        """A record: its layout, its methods, and the records inside it."""
        if id(record) in self.seen:
            return
        self.seen.add(id(record))
        self.add(layout_words(record))
        for field in record.fields.values():
            for inner in (field.kind, field.item):
                if isinstance(inner, type) and issubclass(inner, Record):
                    self.record(inner)
        for _, method in methods_of(record):
            self.function(method)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self.digest.hexdigest()[:32]


def methods_of(record: type[Record]) -> list[tuple[str, Any]]:
    """The methods and property getters that a record and its bases, up to Record, define."""
    found: dict[str, Any] = {}
    for base in reversed(record.__mro__):
        if base is Record or not issubclass(base, Record):
            continue
        for name, value in vars(base).items():
            if name.startswith("__"):
                continue
            if isinstance(value, FunctionType):
                found[name] = value
            elif isinstance(value, property) and isinstance(value.fget, FunctionType):
                found[name] = value.fget
    return sorted(found.items())


class Image:
    """A loaded image: addresses of its entry points, and what must stay alive for them."""

    def __init__(self, digest: str, manifest: dict[str, Any], code: bytes) -> None:
        self.digest, self.manifest = digest, manifest
        _initialise()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        # All sections in one block: apart by 2 GB, as a process with large buffers may place them, LLVM would abort.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.addresses = {
            name: self._engine.get_function_address(symbol) for name, symbol in manifest["entries"].items()
        }
        absent = [name for name, address in self.addresses.items() if not address]
        if absent:
            raise ImageError(
                f"image {digest}: no entry point {', '.join(absent)}; delete it from the cache and start again."
            )


class Library:
    """Handlers from a shared library: any language that speaks C. A copy of it lies in the store under its digest, so
    that what runs is what was named, and a rebuilt file is a new library even within one process.
    """

    def __init__(self, path: Path, names: tuple[str, ...], abi: str, strategy: str) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{strategy}.library: cannot read {path} ({error.strerror}). Build it, for example with "
                             "`gcc -O2 -ffp-contract=off -shared -fPIC -o NAME.so NAME.c`.") from error  # fmt: skip
        self.digest = hashlib.sha256(content).hexdigest()[:32]
        copy = cache_folder("images") / f"{self.digest}{path.suffix}"
        if not copy.exists() or copy.read_bytes() != content:
            write_atomically(copy, content)
        try:
            self._library = ctypes.CDLL(str(copy))
        except OSError as error:
            raise ImageError(f"{strategy}.library: {path} is not a shared library that loads here: {error}.") from error
        cure = "Write the header again with engine.kernel.header.header and rebuild the library with it."
        try:
            built_for = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(self._library, "tandem_abi"))).decode()
        except ValueError as error:
            raise ImageError(f"{strategy}.library: {path} does not say which layout it was built for (no symbol "
                             f"tandem_abi). {cure}") from error  # fmt: skip
        if built_for != abi:
            raise ImageError(f"{strategy}.library: {path} was built for other layouts ({built_for}) than "
                             f"{strategy} and this engine have ({abi}). {cure}")  # fmt: skip
        found = {name: getattr(self._library, name) for name in names if hasattr(self._library, name)}
        if not found:
            raise ImageError(
                f"{strategy}.library: {path} exports no handler; it needs at least one of {', '.join(names)}."
            )
        self.addresses = {name: ctypes.cast(f, ctypes.c_void_p).value or 0 for name, f in found.items()}
        self.manifest = {"digest": self.digest, "entries": {n: n for n in found}, "strategy": strategy, "abi": abi}


_loaded: dict[str, Image] = {}


def load(digest: str) -> Image | None:
    """The image of that name, from this process or from the store; None when it is not there."""
    if digest in _loaded:
        return _loaded[digest]
    folder = cache_folder("images")
    try:
        manifest = json.loads((folder / f"{digest}.json").read_text())
        code = (folder / manifest["object"]).read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(
            f"image {folder / digest}: cannot be read ({error}); delete {digest}.* there and start again."
        ) from error
    if hashlib.sha256(code).hexdigest() != manifest.get("sha256"):
        raise ImageError(
            f"image {folder / manifest['object']} is damaged: its hash differs from the "
            f"manifest's. Delete {digest}.* there and start again."
        )
    _loaded[digest] = Image(digest, manifest, code)
    return _loaded[digest]


def save(digest: str, entries: dict[str, str], code: bytes, seconds: float, words: dict[str, Any]) -> Image:
    """Store a fresh image and load it.

    The object is named by its content and the manifest names the object, so that two processes that compile the same
    image at once never see the half of one and the half of the other.
    """
    folder, sha = cache_folder("images"), hashlib.sha256(code).hexdigest()
    manifest = {"digest": digest, "object": f"{digest}-{sha[:12]}.o", "entries": entries, "sha256": sha,
                "seconds": round(seconds, 3), "platform": platform_words(), **words}  # fmt: skip
    write_atomically(folder / manifest["object"], code)
    write_atomically(folder / f"{digest}.json", json.dumps(manifest, indent=1).encode())
    _loaded[digest] = Image(digest, manifest, code)
    return _loaded[digest]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
