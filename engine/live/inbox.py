"""The inbox of a feed: messages in, events out. No input or output of its own.

Law 1: of every channel, source and epoch each event enters once and in order; what is missing enters as a GAP event.
Law 2: a drain is all that has come, judged by the gate; it stays valid until the next drain.
Law 3: without room a message is refused, not dropped: whoever has it holds it back.
Law 4: of two publishers that are one source on a channel the newer is heard; the older is set aside, no sign of life.

A GAP event has the ts of what follows it, or the receiver's clock; `code` is MISSED, RESTARTED or SILENT, `amount` how
many events are missing (0: not known). There is one for every instrument that the channel has shown before.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.live.codec import BadMessage, Head, Names, RawDecoder, decode_json, decode_pb, encoding
from engine.live.gate import LINES, MISSED, RESTARTED, SILENT, WHY, Admission
from engine.live.quarantine import Quarantine

Events = np.ndarray[Any, Any]


@dataclass
class Line:
    """What is known of one source on one channel."""

    number: int
    epoch: int = 0
    following: int = 0  # the sequence number that comes next
    heard: int = 0  # beat of the last message
    silent: bool = False


class Inbox:
    """Turns messages into events. `rows`: how many a drain holds at most. `clock`: ns."""

    def __init__(self, names: Names, admission: Admission, quarantine: Quarantine, clock: Callable[[], int],
                 rows: int = 1 << 16) -> None:  # fmt: skip
        self.names, self.admission, self.quarantine, self._clock = names, admission, quarantine, clock
        self.counts: Counter[str] = Counter()
        self._buffers = [np.zeros(rows, Event.dtype) for _ in range(2)]
        self._addresses = [b.ctypes.data for b in self._buffers]
        self._memory = [b.view(np.uint8).data for b in self._buffers]
        self._numbers = [b["instrument"] for b in self._buffers]
        self._marks = [b["recv"] for b in self._buffers]  # the line that a row came on, until the drain
        self._which, self._at = 0, 0
        self._raw = RawDecoder(names)
        self._lines: dict[tuple[bytes, int], Line] = {}
        self._words: dict[bytes, str | None] = {}
        self._beat, self._forget, self._spoiled = 0, False, 0  # spoiled: events of a message that cannot be read

    @property
    def pending(self) -> int:
        """Events that wait for the drain."""
        return self._at

    def learn(self, others: Sequence[str]) -> None:
        """A list of instruments by which a publisher of raw events numbers them."""
        self._raw.learn(others)

    def take(self, channel: bytes, payload: bytes) -> bool:
        """Take a message; False when there is no room for it now. Raises BadMessage for an unknown list only."""
        try:
            head = self._decode(channel, payload)
        except BadMessage as error:
            if error.kind == "too_long" and self._at:
                return False
            if error.kind == "table":
                raise
            self.quarantine.put(error.kind, channel.decode(errors="replace"), str(error), payload)
            return True
        key = (channel, head.source)
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= LINES:
                self.quarantine.put("sources", channel.decode(errors="replace"), f"more than {LINES} of them", payload)
                return True
            line = self._lines[key] = Line(len(self._lines))
        if 0 < head.epoch < line.epoch:
            self.quarantine.put("epoch", channel.decode(errors="replace"), f"another publisher has begun as source "
                                f"{head.source} since, and is the one that is heard", payload)  # fmt: skip
            return True
        line.heard, line.silent = self._beat, False
        first, self._at = self._at, self._at + head.rows
        self._marks[self._which][first : self._at] = line.number
        if head.epoch == line.epoch and head.sequence == line.following:
            line.following += head.held
        elif head.epoch:
            self._out_of_step(line, head, first)
        if self._spoiled:
            self._gap(line, MISSED, self._spoiled, first)
        self.counts["messages"] += 1
        self.counts["events"] += head.rows
        return True

    def _decode(self, channel: bytes, payload: bytes) -> Head:
        word = self._words.get(channel)
        if word is None:
            name = channel.decode(errors="replace")
            word = self._words[channel] = encoding(name)
            if word is None:
                del self._words[channel]
                raise BadMessage("channel", f"{name!r} does not end in .raw, .pb or .json")
        memory, self._spoiled = self._memory[self._which], 0
        if word == "raw":
            return self._raw(payload, memory, self._numbers[self._which], self._at)
        where, put = channel.decode(), self.quarantine.put
        decoder = decode_pb if word == "pb" else decode_json

        def aside(kind: str, why: str, bad: bytes) -> None:
            self._spoiled += kind != "instrument"  # what is of no instrument of ours is not missed
            put(kind, where, why, bad)

        return decoder(payload, memory, self._at, self.names, aside)

    def _out_of_step(self, line: Line, head: Head, first: int) -> None:
        """A first message, a restarted publisher, a repetition or a hole."""
        if head.epoch > line.epoch:
            if line.epoch:
                self.counts["restarts"] += 1
                self._forget = True
                self._gap(line, RESTARTED, head.sequence - 1, first)
            line.epoch, line.following = head.epoch, head.sequence + head.held
        elif head.sequence < line.following:
            known = min(line.following - head.sequence, head.held)
            self.counts["repeated"] += known
            kept = max(0, head.rows - known)
            rows = self._buffers[self._which].view("V64")
            rows[first : first + kept] = rows[self._at - kept : self._at].copy()
            self._at = first + kept
            line.following = max(line.following, head.sequence + head.held)
        else:
            missing = head.sequence - line.following
            self.counts["gaps"] += 1
            self.counts["missed"] += missing
            self._gap(line, MISSED, missing, first)
            line.following = head.sequence + head.held

    def _gap(self, line: Line, code: int, missing: int, first: int) -> None:
        """Put GAP events before the rows from `first` on."""
        rows = self._buffers[self._which]
        waiting = self._numbers[self._which][:first][self._marks[self._which][:first] == line.number]
        mine = sorted({*np.flatnonzero(self.admission.shown[line.number]).tolist(), *waiting.tolist()})
        mine = [i for i in mine if i < len(self.names.names)]
        moved, count = rows.view("V64")[first : self._at].copy(), len(mine)
        if first + count + len(moved) > len(rows):
            self.counts["gaps_untold"] += 1  # the counts tell; the rows have no room
            return
        gaps = rows[first : first + count]
        gaps.view("V64")[:] = np.zeros(count, "V64")
        gaps["ts"] = moved.view(Event.dtype)["ts"][0] if len(moved) else self._clock()
        gaps["kind"], gaps["code"], gaps["instrument"] = codes.GAP, code, mine
        gaps["amount"] = missing
        rows.view("V64")[first + count : first + count + len(moved)] = moved
        self._at += count

    def beat(self, limit: int) -> bool:
        """A moment has passed: lines without a message for `limit` beats are silent. Whether there is news."""
        self._beat += 1
        before = self._at
        for line in self._lines.values():
            if line.epoch and not line.silent and self._beat - line.heard > limit:
                line.silent = True
                self.counts["silences"] += 1
                self._gap(line, SILENT, 0, self._at)
        return self._at != before

    @property
    def silent(self) -> list[str]:
        """The channels and sources that are silent now."""
        return [f"{c.decode(errors='replace')} (source {n})" for (c, n), line in self._lines.items() if line.silent]

    def drain(self) -> Events:
        """All events that have come and pass the gate. They stay valid until the next drain."""
        which, count = self._which, self._at
        rows = self._buffers[which]
        if not count:
            return rows[:0]
        self._which, self._at = 1 - which, 0
        if self._forget:
            self.admission.forget()
            self._forget = False
        kept = self.admission(self._addresses[which], count, self._clock())
        if self.admission.refused()[0]:
            self._set_aside()
        return rows[:kept]

    def _set_aside(self) -> None:
        count, rows = self.admission.refused()
        self.counts["set_aside"] += count
        for row in rows:
            kind, why = WHY[int(row["recv"])]
            self.quarantine.put(kind, f"source {int(row['source'])}", why, row.tobytes())
