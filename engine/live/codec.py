"""Market data between bytes and events: `raw`, `pb` and `json`, told apart by the end of a channel's name.

Law 1: encode then decode gives the same events, but for `recv`, which is the receiver's.
Law 2: a decoder writes into memory that is there; whatever the payload, it raises BadMessage or returns.
Law 3: a bad event costs itself: the others of its batch are used, and the sequence counts it.

Raw, little endian: 4 bytes magic, u2 version, u2 source, u8 epoch, u8 sequence, u4 count, u4 table, then `count`
events of 64 bytes. `table` is the CRC-32 of the publisher's instrument names: what the numbers in it mean.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from engine.errors import DataError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.live.wire import market_pb2 as pb

SCHEMA = 1
MAGIC = b"TNDM"
HEAD = struct.Struct("<4sHHQQII")
EVENT = 64
KIND, PLACE = codes.NAMES["kind"], {word: code for code, word in codes.NAMES["kind"].items()}
Events = np.ndarray[Any, Any]

# How the body of a kind is packed behind the 24 bytes that all have, and its fields by name on the wire.
COMMON = "<qqBBHI"
BODIES: dict[str, tuple[struct.Struct, tuple[str, ...]]] = {
    "bar": (struct.Struct(COMMON + "5d"), ("open", "high", "low", "close", "volume")),
    "quote": (struct.Struct(COMMON + "4d8x"), ("bid", "ask", "bid_volume", "ask_volume")),
    "trade": (struct.Struct(COMMON + "2dq16x"), ("price", "volume", "side")),
    "depth": (struct.Struct(COMMON + "2dqq8x"), ("price", "volume", "side", "last")),
    "funding": (struct.Struct(COMMON + "d32x"), ("rate",)),
    "split": (struct.Struct(COMMON + "d32x"), ("ratio",)),
    "dividend": (struct.Struct(COMMON + "d32x"), ("amount",)),
}


class BadMessage(DataError):
    """A payload that cannot be used. `kind` is one word: malformed, schema, table or too_long."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Head(NamedTuple):
    """What a message says of itself: `held` events from number `sequence` on; `rows` of them were written."""

    source: int
    epoch: int
    sequence: int
    held: int
    rows: int


class Names:
    """Instruments by name and by number; `table` names the list on the wire."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.table = zlib.crc32("\0".join(self.names).encode())

    def numbers_of(self, others: Sequence[str]) -> "np.ndarray[Any, Any]":
        """Our number of each of the others' names; one more row for numbers outside of their list."""
        return np.array([self.index.get(name, 0xFFFFFFFF) for name in others] + [0xFFFFFFFF], np.uint32)


Aside = Callable[[str, str, bytes], None]  # kind, why, payload of one bad event


def encode_raw(events: Events, names: Names, source: int, epoch: int, sequence: int) -> bytes:
    """A message of events; none of them: a heartbeat."""
    head = HEAD.pack(MAGIC, SCHEMA, source, epoch, sequence, len(events), names.table)
    return head + np.ascontiguousarray(events.view("V64")).tobytes()


class RawDecoder:
    """Copies raw messages; lists of instruments other than ours are added by `learn`."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.tables: dict[int, np.ndarray[Any, Any] | None] = {names.table: None}

    def learn(self, others: Sequence[str]) -> None:
        """Another list of instruments, as its publisher numbers them."""
        self.tables[Names(others).table] = self.names.numbers_of(others)

    def __call__(self, payload: bytes, memory: memoryview, numbers: "np.ndarray[Any, Any]", at: int) -> Head:
        """Write the events from row `at` on. `numbers`: the field `instrument` of the same memory."""
        if len(payload) < 32:
            raise BadMessage("malformed", f"{len(payload)} bytes are shorter than a header of 32")
        magic, version, source, epoch, sequence, count, table = HEAD.unpack_from(payload)
        if magic != MAGIC:
            raise BadMessage("malformed", f"it begins with {magic!r} instead of {MAGIC!r}")
        if version != SCHEMA:
            raise BadMessage("schema", f"raw version {version}; this program reads {SCHEMA}")
        size = count * EVENT
        if len(payload) != 32 + size:
            raise BadMessage("malformed", f"{len(payload)} bytes do not hold {count} events")
        if table not in self.tables:
            raise BadMessage("table", f"numbers instruments by a list {table:08x} that nobody has published")
        if size > len(memory) - at * EVENT:
            raise BadMessage("too_long", f"{count} events are more than the buffer takes")
        memory[at * EVENT : at * EVENT + size] = memoryview(payload)[32:]
        theirs = self.tables[table]
        if theirs is not None:
            here = numbers[at : at + count]
            here[:] = theirs[np.minimum(here, len(theirs) - 1)]
        return Head(source, epoch, sequence, count, count)


def plain(events: Events, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Events as people read them."""
    data = events.tobytes()
    for at in range(0, len(data), EVENT):
        word = KIND[data[at + 16]]
        shape, fields = BODIES[word]
        ts, _, _, code, _, number, *values = shape.unpack_from(data, at)
        body = dict(zip(fields, values, strict=True))
        if word == "depth":
            body.update(snapshot=code == codes.SNAPSHOT, last=bool(body["last"]))
        yield {"ts": ts, "instrument": names[number], "kind": word, **body}


def encode_json(events: Events, names: Names, source: int, epoch: int, sequence: int) -> bytes:
    """The same message for people."""
    rows = list(plain(events, names.names))
    head = {"schema": SCHEMA, "source": source, "epoch": epoch, "sequence": sequence, "events": rows}
    return json.dumps(head, separators=(",", ":")).encode()


def encode_pb(events: Events, names: Names, source: int, epoch: int, sequence: int) -> bytes:
    """The same message as protobuf."""
    batch = pb.MarketBatch(schema=SCHEMA, source=source, epoch=epoch, sequence=sequence)
    for body in plain(events, names.names):
        ts, name, word = body.pop("ts"), body.pop("instrument"), body.pop("kind")
        batch.events.add(ts=ts, instrument=name, **{word: body})
    return bytes(batch.SerializeToString())


def _write(memory: memoryview, at: int, word: str, code: int, ts: int, source: int, number: int, body: Any) -> None:
    BODIES[word][0].pack_into(memory, at * EVENT, ts, 0, PLACE[word], code, source, number, *body)


def decode_json(payload: bytes, memory: memoryview, at: int, names: Names, aside: Aside) -> Head:
    """Write the events of a JSON message from row `at` on; a bad event goes `aside`."""
    try:
        given = json.loads(payload)
        if not isinstance(given, dict):
            raise BadMessage("malformed", f"JSON of a {type(given).__name__} instead of an object")
        schema, listed = given.get("schema"), given.get("events", [])
        head = [int(given.get(key, 0)) for key in ("source", "epoch", "sequence")]
        source, epoch, sequence = head
        if not (isinstance(listed, list) and 0 <= source < 1 << 16 and min(head) >= 0 and max(head) < 1 << 64):
            raise BadMessage("malformed", "source, epoch, sequence or events are out of range")
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage("malformed", f"no JSON of ours ({error})") from error
    if schema != SCHEMA:
        raise BadMessage("schema", f"JSON schema {schema}; this program reads {SCHEMA}")
    _room(memory, at, len(listed))
    rows = 0
    for item in listed:
        try:
            word, name = item["kind"], item["instrument"]
            number, code = names.index.get(name, -1), codes.SNAPSHOT if item.get("snapshot") else codes.UPDATE
            if number < 0:
                aside("instrument", f"no instrument {name!r} here", json.dumps(item).encode())
                continue
            body = [item.get("last", True) if field == "last" else item[field] for field in BODIES[word][1]]
            _write(memory, at + rows, word, code, item["ts"], source, number, body)
            rows += 1
        except (KeyError, TypeError, AttributeError, ValueError, struct.error, OverflowError) as error:
            aside("malformed", f"an event that lacks or confuses a field: {error!r}", json.dumps(item).encode())
    return Head(source, epoch, sequence, len(listed), rows)


def decode_pb(payload: bytes, memory: memoryview, at: int, names: Names, aside: Aside) -> Head:
    """Write the events of a protobuf message from row `at` on; a bad event goes `aside`."""
    try:
        batch = pb.MarketBatch.FromString(payload)
    except DecodeError as error:
        raise BadMessage("malformed", f"no protobuf of ours ({error})") from error
    if batch.schema != SCHEMA:
        raise BadMessage("schema", f"protobuf schema {batch.schema}; this program reads {SCHEMA}")
    source, listed, index, rows = batch.source, batch.events, names.index, 0
    if source >= 1 << 16:
        raise BadMessage("malformed", f"source {source} is above 65535")
    _room(memory, at, len(listed))
    for item in listed:
        word, number = item.WhichOneof("body"), index.get(item.instrument, -1)
        if word is None:
            aside("malformed", "an event without a body that this version knows", item.SerializeToString())
        elif number < 0:
            aside("instrument", f"no instrument {item.instrument!r} here", item.SerializeToString())
        else:
            body = getattr(item, word)
            code = codes.SNAPSHOT if word == "depth" and body.snapshot else codes.UPDATE
            values = [getattr(body, field) for field in BODIES[word][1]]
            _write(memory, at + rows, word, code, item.ts, source, number, values)
            rows += 1
    return Head(source, batch.epoch, batch.sequence, len(listed), rows)


def _room(memory: memoryview, at: int, count: int) -> None:
    if count > len(memory) // EVENT - at:
        raise BadMessage("too_long", f"{count} events are more than the buffer takes")


ENCODERS: dict[str, Callable[[Events, Names, int, int, int], bytes]] = {
    "raw": encode_raw, "pb": encode_pb, "json": encode_json,
}  # fmt: skip


def encoding(channel: str) -> str | None:
    """raw, pb or json, by the end of a channel's or stream's name; None for another one."""
    word = channel.rpartition(".")[2]
    return word if word in ENCODERS else None


def empty(count: int) -> Events:
    """Rows to decode into."""
    return np.zeros(count, Event.dtype)
