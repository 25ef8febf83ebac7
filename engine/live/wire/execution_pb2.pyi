from engine.live.wire import order_pb2 as _order_pb2
from engine.live.wire import position_pb2 as _position_pb2
from engine.live.wire import report_pb2 as _report_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNKNOWN: _ClassVar[State]
    STATE_WORKING: _ClassVar[State]
    STATE_FILLED: _ClassVar[State]
    STATE_CANCELLED: _ClassVar[State]
    STATE_REJECTED: _ClassVar[State]
    STATE_EXPIRED: _ClassVar[State]
STATE_UNKNOWN: State
STATE_WORKING: State
STATE_FILLED: State
STATE_CANCELLED: State
STATE_REJECTED: State
STATE_EXPIRED: State

class Heartbeat(_message.Message):
    __slots__ = ("ts",)
    TS_FIELD_NUMBER: _ClassVar[int]
    ts: int
    def __init__(self, ts: _Optional[int] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("batch", "heartbeat")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    batch: _order_pb2.OrderBatch
    heartbeat: Heartbeat
    def __init__(self, batch: _Optional[_Union[_order_pb2.OrderBatch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class StreamReply(_message.Message):
    __slots__ = ("acks", "heartbeat")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    acks: Acks
    heartbeat: Heartbeat
    def __init__(self, acks: _Optional[_Union[Acks, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Acks(_message.Message):
    __slots__ = ("batch", "accepted", "repeated", "ts")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    batch: int
    accepted: int
    repeated: int
    ts: int
    def __init__(self, batch: _Optional[int] = ..., accepted: _Optional[int] = ..., repeated: _Optional[int] = ..., ts: _Optional[int] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("account", "engine", "token", "connection", "order_ids")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    ORDER_IDS_FIELD_NUMBER: _ClassVar[int]
    account: str
    engine: str
    token: int
    connection: int
    order_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, account: _Optional[str] = ..., engine: _Optional[str] = ..., token: _Optional[int] = ..., connection: _Optional[int] = ..., order_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class QueryReply(_message.Message):
    __slots__ = ("orders", "last_exec")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    LAST_EXEC_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[OrderState]
    last_exec: int
    def __init__(self, orders: _Optional[_Iterable[_Union[OrderState, _Mapping]]] = ..., last_exec: _Optional[int] = ...) -> None: ...

class AccountRequest(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: str
    def __init__(self, account: _Optional[str] = ...) -> None: ...

class OrderStates(_message.Message):
    __slots__ = ("orders", "last_exec")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    LAST_EXEC_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[OrderState]
    last_exec: int
    def __init__(self, orders: _Optional[_Iterable[_Union[OrderState, _Mapping]]] = ..., last_exec: _Optional[int] = ...) -> None: ...

class OrderState(_message.Message):
    __slots__ = ("order_id", "state", "instrument", "side", "type", "tif", "qty", "filled", "price", "stop")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIF_FIELD_NUMBER: _ClassVar[int]
    QTY_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    state: State
    instrument: str
    side: _order_pb2.Side
    type: _order_pb2.OrderType
    tif: _order_pb2.TimeInForce
    qty: int
    filled: int
    price: float
    stop: float
    def __init__(self, order_id: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., instrument: _Optional[str] = ..., side: _Optional[_Union[_order_pb2.Side, str]] = ..., type: _Optional[_Union[_order_pb2.OrderType, str]] = ..., tif: _Optional[_Union[_order_pb2.TimeInForce, str]] = ..., qty: _Optional[int] = ..., filled: _Optional[int] = ..., price: _Optional[float] = ..., stop: _Optional[float] = ...) -> None: ...

class ReportsRequest(_message.Message):
    __slots__ = ("account", "since", "limit")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    account: str
    since: int
    limit: int
    def __init__(self, account: _Optional[str] = ..., since: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...
