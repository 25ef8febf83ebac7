"""From source to image: find the image in the store by digest, or compile it once.

`program` is for kernel code (loops and entry points), `handlers` for one strategy. Both import the compile act only
when an image is missing.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import ImageError
from engine.kernel import image
from engine.kernel.layout import Record
from engine.kernel.strategy import HANDLERS, Strategy

may_compile = True  # a live session sets this to False: what is not compiled before it starts does not run


def _refuse_if_forbidden(what: str) -> None:
    if not may_compile:
        raise ImageError(
            f"{what} is not compiled for this machine, and this process may not compile; "
            "compile it first with mode=compile."
        )


def program_digest(name: str, entries: dict[str, Any]) -> str:
    """The name of a program's image: its own sources, the kernel's, versions and processor."""
    walk = image.Walk()
    walk.add("program", name, image.kernel_words())
    for function in entries.values():
        walk.function(function)
    return walk.hexdigest()


def program(name: str, entries: dict[str, Any]) -> image.Image:
    """The image of `entries`: plain functions of one address each, C functions `void f(int64)` once compiled."""
    digest = program_digest(name, entries)
    found = image.load(digest)
    if found is not None:
        return found
    _refuse_if_forbidden(f"The program {name}")
    print(
        f"tandem: compiling the {name} program once for this machine, up to a minute ...",
        file=sys.stderr,
        flush=True,
    )
    from engine.kernel import compile as act
    from engine.kernel import compile_types as kinds

    def make(translator: Any) -> dict[str, Any]:
        signature = kinds.types.void(kinds.types.intp)
        return {key: act.entry(function, signature, translator) for key, function in entries.items()}

    return act.build(digest, make, kinds.KERNEL_OPTIONS, {"program": name})


def handlers_digest(strategy: type[Strategy]) -> str:
    """The name of a strategy's image: its class, everything its handlers reach, the kernel, versions and processor."""
    walk = image.Walk()
    walk.add("handlers", strategy.__qualname__, image.kernel_words())
    walk.record(strategy)
    return walk.hexdigest()


def handlers(strategy: type[Strategy]) -> "image.Image | image.Library":
    """The image of a strategy's handlers, compiled if it is not in the store; or its shared library."""
    if strategy.library is not None:
        from engine.kernel.header import abi_words

        return image.Library(library_path(strategy), tuple(HANDLERS), abi_words(strategy), strategy.__qualname__)
    digest = handlers_digest(strategy)
    found = image.load(digest)
    if found is not None:
        return found
    _refuse_if_forbidden(f"The strategy {strategy.__qualname__}")
    from engine.kernel.feedback import explain
    from engine.kernel.lint import inspect_strategy

    inspect_strategy(strategy)
    from engine.kernel import compile as act
    from engine.kernel import compile_types as kinds
    from engine.kernel.signals import Ctx

    def make(translator: Any) -> dict[str, Any]:
        return {name: act.guarded(function, strategy, HANDLERS[name][1], Ctx, translator)
                for name, function in strategy.handlers.items()}  # fmt: skip

    try:
        return act.build(digest, make, kinds.HANDLER_OPTIONS, {"strategy": strategy.__qualname__})
    except act.CompilerErrors as error:
        raise explain(strategy, error) from error


def loop(name: str, function: Callable[[int], None], record: type[Record]) -> image.Image:
    """The image of one guarded loop over a record (`run(address)`); what it raises ends it."""
    walk = image.Walk()
    walk.add("loop", name, image.kernel_words())
    walk.record(record)
    walk.function(function)
    digest = walk.hexdigest()
    found = image.load(digest)
    if found is not None:
        return found
    _refuse_if_forbidden(f"The loop {name}")
    from engine.kernel import compile as act
    from engine.kernel import compile_types as kinds

    return act.build(
        digest,
        lambda translator: {"run": act.guarded_loop(function, translator)},
        kinds.HANDLER_OPTIONS,
        {"loop": name},
    )


def library_path(strategy: type[Strategy]) -> Path:
    """Where a strategy's shared library is; a relative path starts at the folder of the file that names it."""
    owner = next(base for base in strategy.__mro__ if "library" in vars(base))
    beside = getattr(sys.modules.get(owner.__module__), "__file__", None)
    return Path(beside).parent / str(strategy.library) if beside else Path(str(strategy.library))
