from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MarketBatch(_message.Message):
    __slots__ = ("schema", "source", "epoch", "sequence", "events")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    source: int
    epoch: int
    sequence: int
    events: _containers.RepeatedCompositeFieldContainer[MarketEvent]
    def __init__(self, schema: _Optional[int] = ..., source: _Optional[int] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., events: _Optional[_Iterable[_Union[MarketEvent, _Mapping]]] = ...) -> None: ...

class MarketEvent(_message.Message):
    __slots__ = ("ts", "instrument", "bar", "quote", "trade", "depth", "funding", "split", "dividend")
    TS_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    BAR_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    TRADE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    DIVIDEND_FIELD_NUMBER: _ClassVar[int]
    ts: int
    instrument: str
    bar: Bar
    quote: Quote
    trade: Trade
    depth: Depth
    funding: Funding
    split: Split
    dividend: Dividend
    def __init__(self, ts: _Optional[int] = ..., instrument: _Optional[str] = ..., bar: _Optional[_Union[Bar, _Mapping]] = ..., quote: _Optional[_Union[Quote, _Mapping]] = ..., trade: _Optional[_Union[Trade, _Mapping]] = ..., depth: _Optional[_Union[Depth, _Mapping]] = ..., funding: _Optional[_Union[Funding, _Mapping]] = ..., split: _Optional[_Union[Split, _Mapping]] = ..., dividend: _Optional[_Union[Dividend, _Mapping]] = ...) -> None: ...

class Bar(_message.Message):
    __slots__ = ("open", "high", "low", "close", "volume")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    open: float
    high: float
    low: float
    close: float
    volume: float
    def __init__(self, open: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., close: _Optional[float] = ..., volume: _Optional[float] = ...) -> None: ...

class Quote(_message.Message):
    __slots__ = ("bid", "ask", "bid_volume", "ask_volume")
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    BID_VOLUME_FIELD_NUMBER: _ClassVar[int]
    ASK_VOLUME_FIELD_NUMBER: _ClassVar[int]
    bid: float
    ask: float
    bid_volume: float
    ask_volume: float
    def __init__(self, bid: _Optional[float] = ..., ask: _Optional[float] = ..., bid_volume: _Optional[float] = ..., ask_volume: _Optional[float] = ...) -> None: ...

class Trade(_message.Message):
    __slots__ = ("price", "volume", "side")
    PRICE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    price: float
    volume: float
    side: int
    def __init__(self, price: _Optional[float] = ..., volume: _Optional[float] = ..., side: _Optional[int] = ...) -> None: ...

class Depth(_message.Message):
    __slots__ = ("price", "volume", "side", "snapshot", "last")
    PRICE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    price: float
    volume: float
    side: int
    snapshot: bool
    last: bool
    def __init__(self, price: _Optional[float] = ..., volume: _Optional[float] = ..., side: _Optional[int] = ..., snapshot: _Optional[bool] = ..., last: _Optional[bool] = ...) -> None: ...

class Funding(_message.Message):
    __slots__ = ("rate",)
    RATE_FIELD_NUMBER: _ClassVar[int]
    rate: float
    def __init__(self, rate: _Optional[float] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("ratio",)
    RATIO_FIELD_NUMBER: _ClassVar[int]
    ratio: float
    def __init__(self, ratio: _Optional[float] = ...) -> None: ...

class Dividend(_message.Message):
    __slots__ = ("amount",)
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    amount: float
    def __init__(self, amount: _Optional[float] = ...) -> None: ...
