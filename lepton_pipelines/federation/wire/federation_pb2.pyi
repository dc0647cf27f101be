from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_MANIFEST: _ClassVar[Kind]
    KIND_KEYS: _ClassVar[Kind]
    KIND_BOXES: _ClassVar[Kind]
    KIND_ANNOUNCE: _ClassVar[Kind]
    KIND_UPLOAD: _ClassVar[Kind]
    KIND_TRANSCRIPT: _ClassVar[Kind]
    KIND_FORM: _ClassVar[Kind]
    KIND_FINISH: _ClassVar[Kind]
    KIND_ABORT: _ClassVar[Kind]

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_COMPLETE: _ClassVar[Status]
    STATUS_WAITING: _ClassVar[Status]
    STATUS_NEW_EPOCH: _ClassVar[Status]
    STATUS_SUSPENDED: _ClassVar[Status]
    STATUS_ABORTED: _ClassVar[Status]
    STATUS_REFUSED: _ClassVar[Status]
    STATUS_RESEND: _ClassVar[Status]
KIND_UNSPECIFIED: Kind
KIND_MANIFEST: Kind
KIND_KEYS: Kind
KIND_BOXES: Kind
KIND_ANNOUNCE: Kind
KIND_UPLOAD: Kind
KIND_TRANSCRIPT: Kind
KIND_FORM: Kind
KIND_FINISH: Kind
KIND_ABORT: Kind
STATUS_UNSPECIFIED: Status
STATUS_COMPLETE: Status
STATUS_WAITING: Status
STATUS_NEW_EPOCH: Status
STATUS_SUSPENDED: Status
STATUS_ABORTED: Status
STATUS_REFUSED: Status
STATUS_RESEND: Status

class Envelope(_message.Message):
    __slots__ = ("run", "epoch", "kind", "number", "member", "body", "signature")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    run: str
    epoch: int
    kind: Kind
    number: int
    member: str
    body: bytes
    signature: bytes
    def __init__(self, run: _Optional[str] = ..., epoch: _Optional[int] = ..., kind: _Optional[_Union[Kind, str]] = ..., number: _Optional[int] = ..., member: _Optional[str] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class KeyShare(_message.Message):
    __slots__ = ("x25519", "ml_kem_768", "incarnation", "done")
    X25519_FIELD_NUMBER: _ClassVar[int]
    ML_KEM_768_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    x25519: bytes
    ml_kem_768: bytes
    incarnation: bytes
    done: int
    def __init__(self, x25519: _Optional[bytes] = ..., ml_kem_768: _Optional[bytes] = ..., incarnation: _Optional[bytes] = ..., done: _Optional[int] = ...) -> None: ...

class KeyBoxes(_message.Message):
    __slots__ = ("encapsulated", "group_key")
    class EncapsulatedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class GroupKeyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    ENCAPSULATED_FIELD_NUMBER: _ClassVar[int]
    GROUP_KEY_FIELD_NUMBER: _ClassVar[int]
    encapsulated: _containers.ScalarMap[str, bytes]
    group_key: _containers.ScalarMap[str, bytes]
    def __init__(self, encapsulated: _Optional[_Mapping[str, bytes]] = ..., group_key: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class Announce(_message.Message):
    __slots__ = ("done", "cells", "width", "sealed")
    DONE_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    done: int
    cells: int
    width: int
    sealed: bytes
    def __init__(self, done: _Optional[int] = ..., cells: _Optional[int] = ..., width: _Optional[int] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("digest", "size", "cells", "width")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    size: int
    cells: int
    width: int
    def __init__(self, digest: _Optional[bytes] = ..., size: _Optional[int] = ..., cells: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Transcript(_message.Message):
    __slots__ = ("uploads", "answer")
    class UploadsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    uploads: _containers.ScalarMap[str, bytes]
    answer: bytes
    def __init__(self, uploads: _Optional[_Mapping[str, bytes]] = ..., answer: _Optional[bytes] = ...) -> None: ...

class Form(_message.Message):
    __slots__ = ("value", "authenticator")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATOR_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    authenticator: bytes
    def __init__(self, value: _Optional[bytes] = ..., authenticator: _Optional[bytes] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: bytes
    def __init__(self, outcome: _Optional[bytes] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("member", "oldest_protocol", "newest_protocol", "code_version", "clock")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NEWEST_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    member: str
    oldest_protocol: int
    newest_protocol: int
    code_version: str
    clock: float
    def __init__(self, member: _Optional[str] = ..., oldest_protocol: _Optional[int] = ..., newest_protocol: _Optional[int] = ..., code_version: _Optional[str] = ..., clock: _Optional[float] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "hub", "clock", "refused", "frames_port")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HUB_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PORT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    hub: str
    clock: float
    refused: str
    frames_port: int
    def __init__(self, protocol: _Optional[int] = ..., hub: _Optional[str] = ..., clock: _Optional[float] = ..., refused: _Optional[str] = ..., frames_port: _Optional[int] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("manifest",)
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    def __init__(self, manifest: _Optional[bytes] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("under_way_only", "wait_milliseconds")
    UNDER_WAY_ONLY_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    under_way_only: bool
    wait_milliseconds: int
    def __init__(self, under_way_only: _Optional[bool] = ..., wait_milliseconds: _Optional[int] = ...) -> None: ...

class RunStatus(_message.Message):
    __slots__ = ("run", "manifest", "status", "epoch", "number", "step", "missing", "seconds_since_seen", "reason", "seconds_left", "bytes", "signed_by", "lost", "returning", "successor")
    class SecondsSinceSeenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_SEEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SIGNED_BY_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    RETURNING_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_FIELD_NUMBER: _ClassVar[int]
    run: str
    manifest: bytes
    status: str
    epoch: int
    number: int
    step: str
    missing: _containers.RepeatedScalarFieldContainer[str]
    seconds_since_seen: _containers.ScalarMap[str, float]
    reason: str
    seconds_left: float
    bytes: int
    signed_by: _containers.RepeatedScalarFieldContainer[str]
    lost: _containers.RepeatedScalarFieldContainer[str]
    returning: _containers.RepeatedScalarFieldContainer[str]
    successor: str
    def __init__(self, run: _Optional[str] = ..., manifest: _Optional[bytes] = ..., status: _Optional[str] = ..., epoch: _Optional[int] = ..., number: _Optional[int] = ..., step: _Optional[str] = ..., missing: _Optional[_Iterable[str]] = ..., seconds_since_seen: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ..., seconds_left: _Optional[float] = ..., bytes: _Optional[int] = ..., signed_by: _Optional[_Iterable[str]] = ..., lost: _Optional[_Iterable[str]] = ..., returning: _Optional[_Iterable[str]] = ..., successor: _Optional[str] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("runs", "seconds_since_heard")
    class SecondsSinceHeardEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUNS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_HEARD_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunStatus]
    seconds_since_heard: _containers.ScalarMap[str, float]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunStatus, _Mapping]]] = ..., seconds_since_heard: _Optional[_Mapping[str, float]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("run", "incarnation", "after_epoch")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    AFTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: bytes
    after_epoch: int
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[bytes] = ..., after_epoch: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("envelope", "data", "wait_milliseconds")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    data: bytes
    wait_milliseconds: int
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ..., data: _Optional[bytes] = ..., wait_milliseconds: _Optional[int] = ...) -> None: ...

class ExchangeReply(_message.Message):
    __slots__ = ("status", "epoch", "envelopes", "answer", "answer_size", "missing", "reason", "seconds_left", "abort")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ENVELOPES_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_SIZE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    status: Status
    epoch: int
    envelopes: _containers.RepeatedCompositeFieldContainer[Envelope]
    answer: bytes
    answer_size: int
    missing: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    seconds_left: float
    abort: Envelope
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., epoch: _Optional[int] = ..., envelopes: _Optional[_Iterable[_Union[Envelope, _Mapping]]] = ..., answer: _Optional[bytes] = ..., answer_size: _Optional[int] = ..., missing: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., seconds_left: _Optional[float] = ..., abort: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class PutChunkRequest(_message.Message):
    __slots__ = ("run", "epoch", "number", "offset", "data", "size")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    run: str
    epoch: int
    number: int
    offset: int
    data: bytes
    size: int
    def __init__(self, run: _Optional[str] = ..., epoch: _Optional[int] = ..., number: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class PutChunkReply(_message.Message):
    __slots__ = ("status", "next_offset", "reason", "epoch")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    status: Status
    next_offset: int
    reason: str
    epoch: int
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., next_offset: _Optional[int] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class GetChunkRequest(_message.Message):
    __slots__ = ("run", "epoch", "number", "offset", "length")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    run: str
    epoch: int
    number: int
    offset: int
    length: int
    def __init__(self, run: _Optional[str] = ..., epoch: _Optional[int] = ..., number: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class GetChunkReply(_message.Message):
    __slots__ = ("status", "data", "reason", "epoch")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    status: Status
    data: bytes
    reason: str
    epoch: int
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., data: _Optional[bytes] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("admission",)
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    admission: bytes
    def __init__(self, admission: _Optional[bytes] = ...) -> None: ...

class LedgerAdmissionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LedgerAdmissionReply(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: bytes
    def __init__(self, entry: _Optional[bytes] = ...) -> None: ...

class LedgerSubmitRequest(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: bytes
    def __init__(self, entry: _Optional[bytes] = ...) -> None: ...

class LedgerSubmitReply(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class LedgerReadRequest(_message.Message):
    __slots__ = ("first", "signatures", "wait_milliseconds")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    first: int
    signatures: int
    wait_milliseconds: int
    def __init__(self, first: _Optional[int] = ..., signatures: _Optional[int] = ..., wait_milliseconds: _Optional[int] = ...) -> None: ...

class LedgerReadReply(_message.Message):
    __slots__ = ("entries", "head")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    head: str
    def __init__(self, entries: _Optional[_Iterable[bytes]] = ..., head: _Optional[str] = ...) -> None: ...

class LedgerCosignRequest(_message.Message):
    __slots__ = ("signature",)
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    signature: str
    def __init__(self, signature: _Optional[str] = ...) -> None: ...

class LedgerCosignReply(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: str
    def __init__(self, head: _Optional[str] = ...) -> None: ...

class DocumentPutRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class DocumentPutReply(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class DocumentGetRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class DocumentGetReply(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...
