from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_CODE_UNSPECIFIED: _ClassVar[ReportCode]
    REPORT_CODE_ACK: _ClassVar[ReportCode]
    REPORT_CODE_FILL: _ClassVar[ReportCode]
    REPORT_CODE_REJECT: _ClassVar[ReportCode]
    REPORT_CODE_CANCELLED: _ClassVar[ReportCode]
    REPORT_CODE_EXPIRED: _ClassVar[ReportCode]
    REPORT_CODE_REPLACED: _ClassVar[ReportCode]
    REPORT_CODE_CANCEL_REJECT: _ClassVar[ReportCode]
REPORT_CODE_UNSPECIFIED: ReportCode
REPORT_CODE_ACK: ReportCode
REPORT_CODE_FILL: ReportCode
REPORT_CODE_REJECT: ReportCode
REPORT_CODE_CANCELLED: ReportCode
REPORT_CODE_EXPIRED: ReportCode
REPORT_CODE_REPLACED: ReportCode
REPORT_CODE_CANCEL_REJECT: ReportCode

class Report(_message.Message):
    __slots__ = ("exec_id", "order_id", "code", "instrument", "qty", "price", "fee", "stop", "reason", "ts", "filled")
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    QTY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    FEE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    exec_id: int
    order_id: int
    code: ReportCode
    instrument: str
    qty: int
    price: float
    fee: float
    stop: float
    reason: str
    ts: int
    filled: int
    def __init__(self, exec_id: _Optional[int] = ..., order_id: _Optional[int] = ..., code: _Optional[_Union[ReportCode, str]] = ..., instrument: _Optional[str] = ..., qty: _Optional[int] = ..., price: _Optional[float] = ..., fee: _Optional[float] = ..., stop: _Optional[float] = ..., reason: _Optional[str] = ..., ts: _Optional[int] = ..., filled: _Optional[int] = ...) -> None: ...

class ReportBatch(_message.Message):
    __slots__ = ("schema", "account", "reports", "last_exec")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    LAST_EXEC_FIELD_NUMBER: _ClassVar[int]
    schema: int
    account: str
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    last_exec: int
    def __init__(self, schema: _Optional[int] = ..., account: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., last_exec: _Optional[int] = ...) -> None: ...
