from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EngineStatus(_message.Message):
    __slots__ = ("schema", "engine", "ts", "state", "trading", "killed", "events", "orders", "refusals", "gaps", "in_doubt", "equity")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRADING_FIELD_NUMBER: _ClassVar[int]
    KILLED_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    EQUITY_FIELD_NUMBER: _ClassVar[int]
    schema: int
    engine: str
    ts: int
    state: str
    trading: str
    killed: bool
    events: int
    orders: int
    refusals: int
    gaps: int
    in_doubt: int
    equity: float
    def __init__(self, schema: _Optional[int] = ..., engine: _Optional[str] = ..., ts: _Optional[int] = ..., state: _Optional[str] = ..., trading: _Optional[str] = ..., killed: _Optional[bool] = ..., events: _Optional[int] = ..., orders: _Optional[int] = ..., refusals: _Optional[int] = ..., gaps: _Optional[int] = ..., in_doubt: _Optional[int] = ..., equity: _Optional[float] = ...) -> None: ...
