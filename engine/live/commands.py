"""What operators ask for: commands that wait for their turn; each is a drain of its own.

Law 1: a command is done when its future is; until then it waits, whatever the venue does.
Law 2: before the venue has been heard a kill is carried out at once, but what it is to flatten is not known: the
       exit orders, and whatever is asked for after them, come when orders and positions are reconciled.
Law 3: every command is answered, also when the engine ends before its turn: it is told so.
"""

import asyncio
from collections.abc import Callable

from engine.errors import TandemError, VenueError
from engine.kernel import codes
from engine.session import Rows, copied


class Commands:
    """`take` takes a command through the session and sends what comes of it; it raises TandemError."""

    def __init__(self, take: Callable[[Rows], None]) -> None:
        self._take = take
        self._asked: list[tuple[Rows, asyncio.Future[None]]] = []
        self._owed: list[tuple[Rows, asyncio.Future[None]]] = []
        self._closed = False

    def ask(self, row: Rows) -> "asyncio.Future[None]":
        """Put a command into the queue."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_exception(self.too_late())
        else:
            self._asked.append((row, done))
        return done

    def close(self) -> None:
        """Nothing is carried out any more; who still waits is told."""
        self._closed = True
        for _, done in self._asked + self._owed:
            if not done.done():
                done.set_exception(self.too_late())
        self._asked, self._owed = [], []

    @staticmethod
    def too_late() -> VenueError:
        """What is said to who comes too late."""
        return VenueError("the engine is ending: nothing was done. Start it again and ask again.")

    def carry_out(self, reconciled: bool) -> None:
        """All that wait, in order. Raises TandemError when the session cannot go on."""
        if reconciled and self._owed:
            self._asked, self._owed = self._owed + self._asked, []
        while self._asked:
            row, done = self._asked.pop(0)
            if not reconciled and self._owed:
                self._owed.append((row, done))
                continue
            if not reconciled and row["code"][0] == codes.KILL and row["amount"][0] > 0.0:
                self._owed.append((copied(row), done))
                row["amount"] = 0.0
            try:
                self._take(row)
            except TandemError as error:
                if not done.done():
                    done.set_exception(error)
                raise
            if not done.done() and not (self._owed and self._owed[-1][1] is done):
                done.set_result(None)
