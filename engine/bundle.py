"""What a run keeps so that it can be run again, and the bundle that carries it, with its machine code, to a live seat.

    recorded/  seal.json          the kernel's plan, data by name and digest, risk, venue, hashes of orders and fills
               source/…           the files of strategies that no package has
    bundle     seal.json          which run, which images, versions and processor, figures
               recorded/          as above
               images/            object code and manifests of the kernel's programs and the strategies

Law 1: a bundle is complete: with this version of Tandem on such a machine it trades, and compiles nothing.
Law 2: a class in a package is found where it is installed, any other comes with the bundle; either must give the image
       that the bundle holds, byte for byte.
Law 3: what differs is named before anything runs.
"""

import ast
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ImageError, StrategyError
from engine.kernel import build, image
from engine.kernel.strategy import Strategy
from engine.plan import UNCOMPILED, Find, Plan
from engine.sealed import seal, unseal
from engine.store.files import file_hash

Programs = Mapping[str, tuple[str, dict[str, Any]]]  # role -> name and entries, as `build.program` takes them
RECORDED, SOURCE, IMAGES = "recorded", "source", "images"
PLATFORM = ("Python", "numba", "llvmlite", "numpy", "system", "processor", "features of the processor")
AGAIN = "Run it again, and promote that run."


def name_of(strategy: type[Strategy]) -> tuple[str, dict[str, Path]]:
    """How a class is found again, and the files that have to go with it, by their place beside each other.

    `package.module:Class` without files for one that a package has; else `file.py:Class`, the file, the modules beside
    it that it imports, and its shared library. The name is empty where there is no file: a notebook, a prompt.
    """
    module = sys.modules.get(strategy.__module__)
    path = getattr(module, "__file__", None)
    if module is not None and getattr(module, "__package__", None):
        return f"{strategy.__module__}:{strategy.__qualname__}", {}
    if not path or not Path(path).is_file() or "." in strategy.__qualname__:
        return "", {}
    own = Path(path).resolve()
    found = {place.relative_to(own.parent).as_posix(): place for place in beside(own, own.parent, set())}
    if strategy.library is not None:
        library = build.library_path(strategy).resolve()
        if not library.is_relative_to(own.parent):
            raise StrategyError(f"{strategy.__qualname__}.library is {library}, not below {own.parent}, so it cannot "
                                "go with its class; put it there.")  # fmt: skip
        found[library.relative_to(own.parent).as_posix()] = library
    return f"{own.name}:{strategy.__qualname__}", found


def beside(path: Path, folder: Path, seen: set[Path]) -> Iterator[Path]:
    """A Python file and what it imports from its own folder, and what that imports."""
    if path in seen:
        return
    seen.add(path)
    yield path
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{a.name}".strip(".") for a in node.names)]
        for name in filter(None, names):
            stem = folder.joinpath(*name.split("."))
            for place in (stem.with_suffix(".py"), *(p / "__init__.py" for p in (stem, *stem.parents) if p != folder)):
                if place.is_relative_to(folder) and place.is_file():
                    yield from beside(place, folder, seen)


def write_recorded(folder: Path, plan: Plan, program: tuple[str, Any], words: Mapping[str, Any],
                   more: Mapping[str, Path]) -> str:  # fmt: skip
    """Write what a run was given and gave, with `more` files; the digest of its seal."""
    found = [name_of(type(s)) for s in plan.strategies]
    for name, path in [*(item for _, files in found for item in files.items())]:
        copied(path, folder / SOURCE / name)
    for name, path in more.items():
        copied(path, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    header = replace(plan, names=tuple(name for name, _ in found)).header(program)
    return seal(folder, {"format": 1, "plan": header, "shipped": [bool(files) for _, files in found], **words})


def copied(path: Path, to: Path) -> None:
    """Copy a file. Raises StrategyError where another one has its place already."""
    if to.exists() and file_hash(to) != file_hash(path):
        raise StrategyError(f"two files of this run are called {to.name} ({path} is one); name them apart.")
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


@dataclass(frozen=True)
class Recorded:
    """What a run kept, read and verified. `about`: the run, for messages."""

    folder: Path
    words: dict[str, Any]
    about: str

    @classmethod
    def read(cls, folder: Path, digest: str, about: str) -> "Recorded":
        """Raises DataError for a folder that is not what was recorded, StrategyError for what cannot be repeated."""
        found = cls(folder, unseal(folder, digest, f"what {about} recorded", AGAIN), about)
        for name, one in zip(found.names(), found.plan["strategies"], strict=True):
            if not name:
                raise StrategyError(f"{about}: {one['class']} was defined in a notebook, at a prompt or inside a "
                                    f"function, so its source was not kept. Put it into a file. {AGAIN}")  # fmt: skip
        if found.plan["kernel"] == UNCOMPILED:
            raise ImageError(f"{about} ran in plain Python, so there is no machine code to promote. {AGAIN}")
        return found

    @property
    def plan(self) -> dict[str, Any]:
        """The header that says what the kernel is built of."""
        found: dict[str, Any] = self.words["plan"]
        return found

    def names(self) -> list[str]:
        """By which the classes are found now."""
        where = self.folder.relative_to(Path.cwd()) if self.folder.is_relative_to(Path.cwd()) else self.folder
        given = zip(self.plan["strategies"], self.words["shipped"], strict=True)
        return [f"{where / SOURCE / one['name']}" if shipped else str(one["name"]) for one, shipped in given]

    def header(self) -> dict[str, Any]:
        """The plan's header with these names."""
        given = zip(self.plan["strategies"], self.names(), strict=True)
        return {**self.plan, "strategies": [{**one, "name": name} for one, name in given]}


def pack(folder: Path, recorded: Recorded, programs: Programs, find: Find, words: Mapping[str, Any]) -> str:
    """Write a bundle of a recorded run, with the images that its sources give now; the digest of its seal.

    Raises ImageError for one that does not compile.
    """
    shutil.copytree(
        recorded.folder, folder / RECORDED, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / IMAGES).mkdir()
    made = {role: build.program(*program) for role, program in programs.items()}
    own = [build.handlers(find(name)) for name in recorded.names()]
    for one in [*made.values(), *own]:
        if isinstance(one, image.Image):  # a shared library lies among the sources
            for name in (f"{one.digest}.json", str(one.manifest["object"])):
                shutil.copyfile(image.cache_folder("images") / name, folder / IMAGES / name)
    about = {"programs": {role: one.digest for role, one in made.items()}, "strategies": [one.digest for one in own],
             "platform": list(image.platform_words())}  # fmt: skip
    return seal(folder, {"format": 1, **words, **about})


@dataclass(frozen=True)
class Bundle:
    """A bundle that was verified; its images are in the store, and nothing else will run."""

    folder: Path
    words: dict[str, Any]
    recorded: Recorded
    digest: str

    @classmethod
    def open(cls, folder: Path, digest: str, about: str, programs: Programs, find: Find) -> "Bundle":
        """Verify a bundle down to the last byte, and that this machine and this Tandem are those that it was built for.

        Raises DataError for a file that differs, ImageError for another processor, version, kernel or strategy.
        """
        cure = "Download it again, or promote its run again."
        words = unseal(folder, digest, about, cure)
        seal_of = file_hash(folder / RECORDED / "seal.json")
        found = cls(folder, words, Recorded.read(folder / RECORDED, seal_of, about), digest)
        found._same_platform(about)
        for role, program in programs.items():
            now, then = build.program_digest(*program), words["programs"].get(role)
            if now != then:
                raise ImageError(f"{about} was built with another kernel: its program {role} is {then}, that of this "
                                 f"Tandem is {now}. Install Tandem {found.recorded.plan['versions']['tandem']} as it "
                                 "was, or promote the run again with this one.")  # fmt: skip
        for name, then in zip(found.recorded.names(), words["strategies"], strict=True):
            strategy = find(name)
            now = build.handlers(strategy).digest if strategy.library else build.handlers_digest(strategy)
            if now != then:
                raise ImageError(f"{about}: {name} is not what was tested: its image is {now}, the bundle has {then}. "
                                 "Install it as it was, or promote a run of what it is now.")  # fmt: skip
            if not strategy.library:
                found._install(then, about)
        for digest in words["programs"].values():
            found._install(digest, about)
        return found

    def _same_platform(self, about: str) -> None:
        for what, then, now in zip(PLATFORM, self.words["platform"], image.platform_words(), strict=True):
            if then != now:
                shown = (f": {then} there, {now} here" if len(then) + len(now) < 80 else
                         f": {', '.join(sorted(set(then.split(',')) ^ set(now.split(',')))[:6])} differ")  # fmt: skip
                raise ImageError(f"{about} holds machine code for another {what}{shown}. Promote its run again on a "
                                 "machine like this one, or trade on one like that.")  # fmt: skip

    def _install(self, digest: str, about: str) -> None:
        """Put an image of the bundle into the store, in place of what has its name there, and load it."""
        store = image.cache_folder("images")
        manifest = (self.folder / IMAGES / f"{digest}.json").read_bytes()
        name = next(p.name for p in (self.folder / IMAGES).glob(f"{digest}-*.o"))
        image.write_atomically(store / name, (self.folder / IMAGES / name).read_bytes())
        image.write_atomically(store / f"{digest}.json", manifest)
        loaded = image.load(digest)
        if loaded is None or loaded.manifest["object"] != name:
            raise ImageError(f"{about}: another image {digest} runs in this process already; start a new one.")

    def plan(self, find: Find) -> Plan:
        """The kernel that was tested, with its very images."""
        return replace(Plan.of(self.recorded.header(), find), images=tuple(self.words["strategies"]))
