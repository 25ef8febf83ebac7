"""Messages: what is sent comes back, what is damaged is told apart, and nothing else happens."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel import codes
from engine.kernel.records import Refusal
from engine.live import codec, messages
from engine.live.codec import ENCODERS, BadMessage, Head, Names, RawDecoder
from engine.live.wire import order_pb2, report_pb2
from tests.live.events import NAMES, events, order, quote, quotes, report, same

ROWS = 64
Setting = list[tuple[str, str]]


def decode(word: str, payload: bytes, names: Names = NAMES, at: int = 3) -> tuple[Head, Any, Setting]:
    """A payload by its decoder, from row 3 of a buffer on: head, rows, and (kind, why) of events set aside."""
    rows, aside = codec.empty(ROWS), []
    memory = memoryview(rows.view("u1")).cast("B")
    if word == "raw":
        head = RawDecoder(names)(payload, memory, rows["instrument"], at)
    else:
        decoder = {"json": codec.decode_json, "pb": codec.decode_pb}[word]
        head = decoder(payload, memory, at, names, lambda kind, why, _: aside.append((kind, why)))
    assert not rows[:at].view("u1").any() and (aside or not rows[at + head.rows :].view("u1").any())
    return head, rows[at : at + head.rows], aside


@pytest.mark.parametrize("word", ENCODERS)
@given(rows=events())
def test_what_is_sent_comes_back(word: str, rows: Any) -> None:
    head, found, aside = decode(word, ENCODERS[word](rows, NAMES, 7, 1234, 56))
    assert head == Head(7, 1234, 56, len(rows), len(rows)) and not aside
    assert same(found, rows)


@pytest.mark.parametrize("word", ENCODERS)
@given(junk=st.binary(max_size=200), cut=st.integers(0, 400), flip=st.integers(0, 255), where=st.integers(0, 399))
def test_damage_is_told_or_harmless(word: str, junk: bytes, cut: int, flip: int, where: int) -> None:
    good = bytearray(ENCODERS[word](quotes(3), NAMES, 7, 1, 1))
    good[where % len(good)] ^= flip
    for payload in (junk, bytes(good[:cut]), bytes(good)):
        try:
            head, rows, _ = decode(word, payload)
        except BadMessage as error:
            assert error.kind in ("malformed", "schema", "table", "too_long") and str(error)
        else:
            assert 0 <= head.rows <= head.held and len(rows) == head.rows


@pytest.mark.parametrize("word", ENCODERS)
def test_another_version_and_too_many_events(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadMessage, match="buffer takes") as error:
        decode(word, ENCODERS[word](quotes(ROWS), NAMES, 7, 1, 1))
    assert error.value.kind == "too_long"
    with monkeypatch.context() as later:
        later.setattr(codec, "SCHEMA", 2)
        payload = ENCODERS[word](quotes(1), NAMES, 7, 1, 1)
    with pytest.raises(BadMessage, match="2; this program reads 1") as error:
        decode(word, payload)
    assert error.value.kind == "schema"


def test_raw_by_the_list_of_its_publisher() -> None:
    theirs = Names(("MSFT", "ORCL", "AAPL"))
    rows = np.concatenate([quote(instrument=i).view("V64") for i in (0, 1, 2, 3)]).view(quote().dtype)
    decoder, found = RawDecoder(NAMES), codec.empty(ROWS)
    memory = memoryview(found.view("u1")).cast("B")
    payload = codec.encode_raw(rows, theirs, 7, 1, 1)
    with pytest.raises(BadMessage, match="nobody has published") as error:
        decoder(payload, memory, found["instrument"], 0)
    assert error.value.kind == "table"
    decoder.learn(theirs.names)
    assert decoder(payload, memory, found["instrument"], 0).rows == 4
    assert found["instrument"][:4].tolist() == [2, 0xFFFFFFFF, 0, 0xFFFFFFFF]


@pytest.mark.parametrize("word", ["json", "pb"])
def test_an_unknown_instrument_costs_its_own_event(word: str) -> None:
    theirs = Names(("AAPL", "ORCL"))
    rows = np.concatenate([quote(instrument=i).view("V64") for i in (0, 1, 0)]).view(quote().dtype)
    head, found, aside = decode(word, ENCODERS[word](rows, theirs, 7, 1, 1))
    assert (head.held, head.rows, len(found)) == (3, 2, 2)
    assert aside == [("instrument", "no instrument 'ORCL' here")]


TYPED = {"kind": "trade", "instrument": "IBM", "ts": 5, "price": 10, "volume": 2, "side": 1}


@pytest.mark.parametrize(("change", "kind"), [
    ({"prize": 3}, None), ({"price": "ten"}, "malformed"), ({"price": None}, "malformed"), ({"ts": 1.5}, "malformed"),
    ({"ts": 1 << 70}, "malformed"), ({"kind": "order"}, "malformed"), ({"kind": []}, "malformed"),
    ({"instrument": "X"}, "instrument"), ({"instrument": {}}, "malformed"), ({"side": "buy"}, "malformed"),
])  # fmt: skip
def test_typed_by_hand(change: dict[str, Any], kind: str | None) -> None:
    """Who types JSON gives what matters; a mistake is told, and the events beside it are used."""
    payload = json.dumps({"schema": 1, "events": [TYPED, {**TYPED, **change}]}).encode()
    head, found, aside = decode("json", payload)
    assert head[:4] == (0, 0, 0, 2)
    assert [k for k, _ in aside] == ([kind] if kind else [])
    assert len(found) == (1 if kind else 2)
    assert (found["price"][0], found["traded"][0], found["ts"][0], found["instrument"][0]) == (10.0, 2.0, 5, 1)


@pytest.mark.parametrize("payload", [
    b"", b"[]", b"{", b"\xff", b'{"schema":1,"events":{}}', b'{"schema":1,"source":-1}', b'{"schema":1,"epoch":[]}',
    b"[" * 100_000, b'{"schema":1,"epoch":18446744073709551616}', b'{"schema":1,"sequence":1e30}',
])  # fmt: skip
def test_no_json_of_ours(payload: bytes) -> None:
    with pytest.raises(BadMessage) as error:
        decode("json", payload)
    assert error.value.kind == "malformed"


@given(number=st.integers(1, (1 << 62) - 1), qty=st.integers(1, 1 << 50), price=st.floats(0.0, 1e9),
       mask=st.integers(0, 15), priority=st.integers(-128, 127), life=st.integers(0, (1 << 32) - 1))  # fmt: skip
def test_orders_come_back(number: int, qty: int, price: float, mask: int, priority: int, life: int) -> None:
    actions = ((codes.NEW, 0), (codes.CANCEL, 1), (codes.REPLACE, 2))
    rows = np.concatenate([order(number, action, i, qty, price) for action, i in actions])
    rows["mask"], rows["priority"], rows["life_ms"], rows["side"][1] = mask, priority, life, codes.SELL
    batch = messages.order_batch(rows, NAMES, account="a", engine="e", token=3, connection=4, batch=5)
    again = messages.parsed(order_pb2.OrderBatch, batch.SerializeToString())
    assert same(messages.orders_of(again, NAMES), rows)
    assert (again.account, again.engine, again.token, again.connection, again.batch) == ("a", "e", 3, 4, 5)


@pytest.mark.parametrize("change", [
    {"action": 9}, {"qty": 0}, {"side": 0}, {"type": 9}, {"tif": 0}, {"instrument": "X"}, {"strategy": 1 << 20},
])  # fmt: skip
def test_an_order_that_cannot_be(change: dict[str, Any]) -> None:
    batch = messages.order_batch(order(1), NAMES)
    for name, value in change.items():
        setattr(batch.orders[0], name, value)
    with pytest.raises(BadMessage):
        messages.orders_of(batch, NAMES)


REPORTS = [(codes.ACK, 0, 0.0, 0.0), (codes.FILL, -3, 10.5, -0.25), (codes.REJECT, 0, 0.0, float(codes.MARGIN)),
           (codes.CANCELLED, 0, 0.0, 0.0), (codes.CANCELLED, 0, 0.0, float(codes.NO_LIQUIDITY)),
           (codes.EXPIRED, 0, 0.0, 0.0), (codes.REPLACED, 7, 11.0, 12.0),
           (codes.CANCEL_REJECT, 0, 0.0, float(codes.UNKNOWN_ORDER))]  # fmt: skip


def test_reports_come_back() -> None:
    rows = np.concatenate([report(n, n, code, qty, price, fee).view("V64")
                           for n, (code, qty, price, fee) in enumerate(REPORTS, 1)]).view(report(1).dtype)  # fmt: skip
    batch = messages.report_batch(rows, NAMES, "a", 8)
    again = messages.parsed(report_pb2.ReportBatch, batch.SerializeToString())
    found, aside = messages.reports_of(again, NAMES)
    assert same(found, rows) and not aside
    assert [one.reason for one in again.reports if one.reason] == ["margin", "no_liquidity", "unknown_order"]
    again.reports[1].instrument, again.reports[2].code, again.schema = "X", 0, 2
    found, aside = messages.reports_of(again, NAMES)
    assert len(found) == 6 and [n for n, _, _ in aside] == [2, 3]
    with pytest.raises(BadMessage, match="schema 2"):
        messages.parsed(report_pb2.ReportBatch, again.SerializeToString())


def test_refusals_and_positions_speak_in_words() -> None:
    rows = np.zeros(1, Refusal.dtype)
    rows[0] = (5, 6, 7, -8, 9.5, 10.0, 11.0, 1, 2, codes.ORDER_QTY, codes.FLATTEN)
    one = messages.refusal_batch(rows, NAMES, "e").refusals[0]
    assert (one.instrument, one.qty, one.reason, one.breach, one.value) == ("IBM", -8, "order_qty", "flatten", 10.0)
    batch = messages.position_batch([(0, 5, 1.5), (1, 0, 0.0), (2, -7, 2.5)], NAMES, "a", 9, 10)
    assert dict(messages.positions_of(batch, NAMES)) == {0: (5, 1.5), 2: (-7, 2.5)}


def test_encodings_by_the_end_of_a_name() -> None:
    assert [codec.encoding(name) for name in ("md.x.raw", "a.pb", "json", "a.raw.x", "")] == [
        "raw",
        "pb",
        "json",
        None,
        None,
    ]
