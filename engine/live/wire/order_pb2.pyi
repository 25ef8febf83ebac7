from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_NEW: _ClassVar[Action]
    ACTION_CANCEL: _ClassVar[Action]
    ACTION_REPLACE: _ClassVar[Action]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_BUY: _ClassVar[Side]
    SIDE_SELL: _ClassVar[Side]

class OrderType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_TYPE_UNSPECIFIED: _ClassVar[OrderType]
    ORDER_TYPE_MARKET: _ClassVar[OrderType]
    ORDER_TYPE_LIMIT: _ClassVar[OrderType]
    ORDER_TYPE_STOP: _ClassVar[OrderType]
    ORDER_TYPE_STOP_LIMIT: _ClassVar[OrderType]
    ORDER_TYPE_TRAILING: _ClassVar[OrderType]

class TimeInForce(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_IN_FORCE_UNSPECIFIED: _ClassVar[TimeInForce]
    TIME_IN_FORCE_GTC: _ClassVar[TimeInForce]
    TIME_IN_FORCE_DAY: _ClassVar[TimeInForce]
    TIME_IN_FORCE_IOC: _ClassVar[TimeInForce]
    TIME_IN_FORCE_FOK: _ClassVar[TimeInForce]
    TIME_IN_FORCE_GTD: _ClassVar[TimeInForce]
ACTION_UNSPECIFIED: Action
ACTION_NEW: Action
ACTION_CANCEL: Action
ACTION_REPLACE: Action
SIDE_UNSPECIFIED: Side
SIDE_BUY: Side
SIDE_SELL: Side
ORDER_TYPE_UNSPECIFIED: OrderType
ORDER_TYPE_MARKET: OrderType
ORDER_TYPE_LIMIT: OrderType
ORDER_TYPE_STOP: OrderType
ORDER_TYPE_STOP_LIMIT: OrderType
ORDER_TYPE_TRAILING: OrderType
TIME_IN_FORCE_UNSPECIFIED: TimeInForce
TIME_IN_FORCE_GTC: TimeInForce
TIME_IN_FORCE_DAY: TimeInForce
TIME_IN_FORCE_IOC: TimeInForce
TIME_IN_FORCE_FOK: TimeInForce
TIME_IN_FORCE_GTD: TimeInForce

class Order(_message.Message):
    __slots__ = ("order_id", "cause", "ts", "instrument", "strategy", "action", "side", "type", "tif", "qty", "price", "stop", "post_only", "reduce_only", "life_ms", "flags", "priority")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIF_FIELD_NUMBER: _ClassVar[int]
    QTY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    POST_ONLY_FIELD_NUMBER: _ClassVar[int]
    REDUCE_ONLY_FIELD_NUMBER: _ClassVar[int]
    LIFE_MS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    cause: int
    ts: int
    instrument: str
    strategy: int
    action: Action
    side: Side
    type: OrderType
    tif: TimeInForce
    qty: int
    price: float
    stop: float
    post_only: bool
    reduce_only: bool
    life_ms: int
    flags: int
    priority: int
    def __init__(self, order_id: _Optional[int] = ..., cause: _Optional[int] = ..., ts: _Optional[int] = ..., instrument: _Optional[str] = ..., strategy: _Optional[int] = ..., action: _Optional[_Union[Action, str]] = ..., side: _Optional[_Union[Side, str]] = ..., type: _Optional[_Union[OrderType, str]] = ..., tif: _Optional[_Union[TimeInForce, str]] = ..., qty: _Optional[int] = ..., price: _Optional[float] = ..., stop: _Optional[float] = ..., post_only: _Optional[bool] = ..., reduce_only: _Optional[bool] = ..., life_ms: _Optional[int] = ..., flags: _Optional[int] = ..., priority: _Optional[int] = ...) -> None: ...

class OrderBatch(_message.Message):
    __slots__ = ("schema", "account", "engine", "token", "connection", "batch", "orders")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    account: str
    engine: str
    token: int
    connection: int
    batch: int
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    def __init__(self, schema: _Optional[int] = ..., account: _Optional[str] = ..., engine: _Optional[str] = ..., token: _Optional[int] = ..., connection: _Optional[int] = ..., batch: _Optional[int] = ..., orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("ts", "cause", "order_id", "instrument", "strategy", "qty", "price", "reason", "value", "limit", "breach")
    TS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    QTY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BREACH_FIELD_NUMBER: _ClassVar[int]
    ts: int
    cause: int
    order_id: int
    instrument: str
    strategy: int
    qty: int
    price: float
    reason: str
    value: float
    limit: float
    breach: str
    def __init__(self, ts: _Optional[int] = ..., cause: _Optional[int] = ..., order_id: _Optional[int] = ..., instrument: _Optional[str] = ..., strategy: _Optional[int] = ..., qty: _Optional[int] = ..., price: _Optional[float] = ..., reason: _Optional[str] = ..., value: _Optional[float] = ..., limit: _Optional[float] = ..., breach: _Optional[str] = ...) -> None: ...

class RefusalBatch(_message.Message):
    __slots__ = ("schema", "engine", "refusals")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    engine: str
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    def __init__(self, schema: _Optional[int] = ..., engine: _Optional[str] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ...) -> None: ...
