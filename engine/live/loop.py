"""One event loop for a live process: uvloop where it is installed, ended in good order by SIGTERM and Ctrl-C."""

import asyncio
import importlib.util
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from engine.errors import ConfigError


def keep_to(cpu: int) -> None:
    """Bind the process to one processor. Raises ConfigError when it may not use that one."""
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(f"spin_cpu={cpu}: this system binds no process to a processor; leave it out.")
    allowed = sorted(os.sched_getaffinity(0))
    if cpu not in allowed:
        raise ConfigError(f"spin_cpu={cpu}: this process may use {', '.join(map(str, allowed))} only.")
    os.sched_setaffinity(0, {cpu})


def run(main: Callable[[asyncio.Event], Awaitable[int]], spin_cpu: int | None = None) -> int:
    """Run `main(stop)` to its end; `stop` is set when somebody wants that.

    `spin_cpu`: the processor it keeps to and never lets sleep: to wake one takes longer than most turns do. Threads
    keep to it, too, so a slow disk takes longer. Raises ConfigError.
    """
    if spin_cpu is not None:
        keep_to(spin_cpu)

    async def guarded() -> int:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)  # a loop with something to do looks for news and goes on

        if spin_cpu is not None:
            again()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        return await main(stop)

    factory: Any = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(guarded())
