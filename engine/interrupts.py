"""Ctrl-C where nobody hears it: compiled code runs to its end, and a handler may have none."""

import os
import signal
import threading
from typing import Any

INTERRUPTED = 130  # the exit status
STUCK_S = 5.0  # after Ctrl-C


def end_when_stuck() -> None:
    """From now on Ctrl-C ends the process also when a handler does not return: compiled code hears no signal."""
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):  # fmt: skip
        return
    heard = threading.Event()
    read, write = os.pipe()
    os.set_blocking(write, False)

    def interrupt(number: int, frame: Any) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    def watch() -> None:
        while os.read(read, 1)[0] == signal.SIGINT:
            if not heard.wait(STUCK_S):
                os.write(2, b"\ntandem: interrupted while a handler did not return: has it a loop without an end?\n")
                os._exit(INTERRUPTED)
            heard.clear()

    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=watch, name="interrupts", daemon=True).start()
