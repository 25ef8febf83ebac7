from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Position(_message.Message):
    __slots__ = ("instrument", "qty", "average")
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    QTY_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    instrument: str
    qty: int
    average: float
    def __init__(self, instrument: _Optional[str] = ..., qty: _Optional[int] = ..., average: _Optional[float] = ...) -> None: ...

class PositionBatch(_message.Message):
    __slots__ = ("schema", "account", "exec_id", "ts", "positions")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    account: str
    exec_id: int
    ts: int
    positions: _containers.RepeatedCompositeFieldContainer[Position]
    def __init__(self, schema: _Optional[int] = ..., account: _Optional[str] = ..., exec_id: _Optional[int] = ..., ts: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[Position, _Mapping]]] = ...) -> None: ...
