"""A strategy's fault as an exception: what its handler raised, where, and the state before.

A compiled handler can only say that it failed. Whoever drives the kernel runs the event again in plain Python, on the
same state, and hands what was raised then to `told`.
"""

import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import StrategyFault
from engine.kernel import codes, layout
from engine.kernel.strategy import Strategy

Caught = tuple[Exception, dict[str, Any], dict[str, Any]]  # what a handler raised, the state and the event before it


def told(strategy: Strategy, code: int, caught: Sequence[Caught], *, ts: int, place: str, names: Sequence[str],
         signals: int) -> StrategyFault:  # fmt: skip
    """A fault in words, which the original one caused.

    `code`: codes.FAULT_…; `ts` of the event, ns; `place`: where it stands, such as "event 7 of the tape"; `names`: of
    the instruments; `signals`: what the queue holds.
    """
    error, state, event = caught[0] if caught else (None, {}, {})
    name = f", {names[event['instrument']]}" if "instrument" in event else ""
    when = str(np.datetime64(ts, "ns")).rstrip("0").rstrip(".")
    what = f"{strategy!r} failed at {when}{name} ({place})"
    if error is not None:
        frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if f.filename != layout.__file__]
        trace = "".join(traceback.format_list(frames))
        shown = ", ".join(f"{key}={_short(value)}" for key, value in state.items())
        fault = StrategyFault(f"{what}.\n{trace}{type(error).__name__}: {error}\n"
                              f"State before the event: {shown}\nEvent: {event}", state, event)  # fmt: skip
        fault.__cause__ = error
        return fault
    if code == codes.FAULT_QUEUE:
        return StrategyFault(f"{what}: more signals at once than the queue holds ({signals}), or a signal for an "
                             f"instrument that does not exist (there are {len(names)}).")  # fmt: skip
    if strategy.library:
        return StrategyFault(f"{what}: its library {strategy.library} set ctx->fault = {code}.")
    return StrategyFault(f"{what} in compiled code, but not in plain Python: it may depend on integer overflow or on a "
                         "library. Run it with compiled=False and a debugger.")  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, dict):  # an indicator: its numbers say more than its window
        value = {key: one for key, one in value.items() if not isinstance(one, list)}
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
