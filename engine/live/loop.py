"""One event loop for a live process: uvloop where it is installed, ended in good order by SIGTERM and Ctrl-C."""

import asyncio
import importlib.util
import signal
from collections.abc import Awaitable, Callable
from typing import Any


def run(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `main(stop)` to its end; `stop` is set when somebody wants that."""

    async def guarded() -> int:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        return await main(stop)

    factory: Any = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(guarded())
