"""A member's connection to its hub: mutual TLS, calls that are repeated until they are answered."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from lepton_pipelines.federation.effects import Join, Reply, Say
from lepton_pipelines.federation.envelope import slot_of
from lepton_pipelines.federation.frame_client import FrameChannel, FrameError, Unreachable
from lepton_pipelines.federation.frames import CALLS, Bytes
from lepton_pipelines.federation.manifest import PROTOCOLS, Manifest, choose_protocol
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.federation.wire.calls import CHUNK, FRAMES, HUB_TARGET, INLINE, LARGEST_MESSAGE, Calls
from lepton_pipelines.identity.organisation_home import Credentials
from lepton_pipelines.spec.errors import UserError

_log = logging.getLogger("lepton.federation")
_LATER = (  # a hub that stops cancels the calls that it holds
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
)
_WAIT_MILLISECONDS = 10_000
_CLOCKS_APART = 300.0
_FRAMES_AGAIN = 5.0
_REPLIES = {name: getattr(wire, f"{name}Reply") for name in CALLS}
_OPTIONS = [
    ("grpc.ssl_target_name_override", HUB_TARGET),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    *FRAMES,
]


class ConnectionLost(UserError):  # noqa: N818 - says what happened
    """The hub was not reached for longer than the grace time, or refused the connection. The message says which."""


class Closed(Exception):  # noqa: N818
    """The connection was closed here while a call was waiting."""


class HubConnection:
    """Calls to the hub. Every call is repeated until it is answered, refused, or out of patience.

    patience: seconds without any answer after which the hub counts as lost.
    """

    def __init__(self, credentials: Credentials, *, address: str | None = None, patience: float = 300.0) -> None:
        self.credentials = credentials
        self.address = address or credentials.address
        self.patience = patience
        self.last_answer = time.monotonic()
        self.ended: Callable[[], bool] = lambda: False  # whether nobody waits for answers to `ask` any more
        self._closed = threading.Event()
        ssl = grpc.ssl_channel_credentials(credentials.authority, credentials.tls_key, credentials.certificate)
        self._channel = grpc.secure_channel(self.address, ssl, options=_OPTIONS)
        self._calls = Calls(self._channel)
        self._frames: FrameChannel | None = None
        self._frames_from = 0.0  # when it is looked for next
        self._frames_lock = threading.Lock()

    def hello(self, code_version: str) -> int:
        """Agree on a protocol version and compare clocks.

        Raises UserError if there is no common version, or if the hub is not the one that was trusted.
        """
        oldest, newest = PROTOCOLS
        request = wire.HelloRequest(
            member=self.credentials.organisation,
            oldest_protocol=oldest,
            newest_protocol=newest,
            code_version=code_version,
            clock=time.time(),
        )
        reply = self.call("Hello", request)
        if reply.refused:
            raise UserError(reply.refused)
        if bytes.fromhex(reply.hub) != self.credentials.hub_key:
            raise UserError(f"the hub at {self.address} has another identity key than the one that was accepted.")
        apart = reply.clock - time.time()
        if abs(apart) > _CLOCKS_APART:
            _log.warning(
                "the clock here and the hub's are %.0f s apart. Training does not depend on it, certificates do: "
                "set one of them right",
                apart,
            )
        return choose_protocol(PROTOCOLS, (reply.protocol, reply.protocol), we="this organisation", they="the hub")

    def propose(self, manifest: Manifest) -> wire.RunStatus:
        """Open a run at the hub, which invites its members. Raises UserError if the hub refuses it."""
        status: wire.RunStatus = self.call("Propose", wire.ProposeRequest(manifest=manifest.encoded()))
        return status

    def runs_under_way(self, *, wait: float = 0.0) -> list[wire.RunStatus]:
        """Return runs of this organisation that are not over, invitations included; wait for one if there is none."""
        request = wire.ListRequest(under_way_only=True, wait_milliseconds=int(wait * 1000))
        return list(self.call("List", request, timeout=wait + 15).runs)

    def runs(self) -> list[wire.RunStatus]:
        """Return every run that this organisation is a member of."""
        return list(self.call("List", wire.ListRequest()).runs)

    def seconds_since_heard(self) -> dict[str, float]:
        """Return how long ago the hub heard of each organisation, of those that called since it was started."""
        return dict(self.call("List", wire.ListRequest(under_way_only=True)).seconds_since_heard)

    def look(self, run: str) -> wire.RunStatus:
        """Return where a run stands. Raises UserError if there is no such run."""
        status: wire.RunStatus = self.call("Look", wire.StatusRequest(run=run))
        return status

    def come_back(self, run: str) -> str:
        """Tell the hub that a member which a run went on without is back; return why that is of no use, or nothing."""
        reply = self.call("Join", wire.JoinRequest(run=run, incarnation=bytes(16)), timeout=40.0)
        return str(reply.reason) if reply.status == wire.STATUS_REFUSED else ""

    def renew(self, request: bytes) -> bytes:
        """Exchange a signed request for a new certificate; returns the admission."""
        admission: bytes = self.call("Renew", wire.RenewRequest(request=request)).admission
        return admission

    def ledger_admission(self) -> bytes:
        """Return the entry that admits this organisation to the hub's ledger, for its signature; empty if it is in."""
        entry: bytes = self.call("LedgerAdmission", wire.LedgerAdmissionRequest()).entry
        return entry

    def ledger_submit(self, entry: bytes) -> int:
        """Have the hub's ledger take an entry on; return its index. Raises UserError if a rule is broken."""
        index: int = self.call("LedgerSubmit", wire.LedgerSubmitRequest(entry=entry)).index
        return index

    def ledger_read(self, first: int, signatures: int, wait: float) -> tuple[list[bytes], str]:
        """Return entries from `first` on, as many as fit a message, and the newest head of the hub's ledger.

        signatures: how many the newest head has here. wait: seconds for which the hub may wait for something new.
        """
        request = wire.LedgerReadRequest(first=first, signatures=signatures, wait_milliseconds=int(1000 * wait))
        reply = self.call("LedgerRead", request, timeout=wait + 15)
        return list(reply.entries), reply.head

    def ledger_cosign(self, signature: str) -> str:
        """Add a cosignature to the hub's newest head and return that head."""
        head: str = self.call("LedgerCosign", wire.LedgerCosignRequest(signature=signature)).head
        return head

    def document_put(self, document: bytes) -> str:
        """Have the hub keep a document for all members; return its digest."""
        digest: str = self.call("DocumentPut", wire.DocumentPutRequest(document=document)).digest
        return digest

    def document_get(self, digest: str) -> bytes:
        """Return a document from the hub; whoever asks compares its digest. Raises UserError if the hub has none."""
        document: bytes = self.call("DocumentGet", wire.DocumentGetRequest(digest=digest)).document
        return document

    def ask(self, request: Join | Say, meanwhile: Callable[[], None] | None = None) -> Reply:
        """Say something and wait for the hub's answer, however often it takes.

        meanwhile: work for the time in which the hub waits for the others; it is done once, before this returns.
        Raises ConnectionLost if the hub is gone for too long or refuses the connection, Closed if this side closed.
        """
        if isinstance(request, Join):
            message = wire.JoinRequest(
                run=request.run, incarnation=request.incarnation, after_epoch=request.after_epoch
            )
            return self._reply(request, lambda: (self.call("Join", message, timeout=40.0), b""))
        envelope = request.envelope
        inline = request.data if len(request.data) <= INLINE else b""
        work = _Once(meanwhile)

        def attempt() -> Any:
            if self.ended():
                raise Closed
            if len(request.data) > INLINE:
                refused = self._put_chunks(envelope, request.data)
                if refused is not None:
                    return refused, b""
            exchange = wire.ExchangeRequest(envelope=envelope, wait_milliseconds=_WAIT_MILLISECONDS)
            return self.carry("Exchange", exchange, inline, timeout=_WAIT_MILLISECONDS / 1000 + 15, meanwhile=work)

        return self._reply(request, attempt)

    def abort(self, request: Say, *, patience: float = 5.0) -> None:
        """Tell the hub of an abort, if it can be reached soon. The run has ended here in any case."""
        exchange = wire.ExchangeRequest(envelope=request.envelope, wait_milliseconds=100)
        try:
            self._calls.Exchange(exchange, timeout=patience, wait_for_ready=True)
        except grpc.RpcError as error:
            _log.warning("the hub could not be told of the abort: %s", error)

    def call(self, name: str, request: Any, *, timeout: float = 15.0) -> Any:
        """Make one call, again and again while the hub cannot be reached.

        Raises UserError if the hub refuses the request, ConnectionLost if it refuses the caller or is gone for long.
        """
        return self._until_answered(lambda: getattr(self._calls, name)(request, timeout=timeout))

    def carry(
        self,
        name: str,
        request: Any,
        data: Bytes = b"",
        *,
        timeout: float = 15.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[Any, Bytes]:
        """Make a call that goes with a vector: by frames where the hub takes them, else by gRPC.

        meanwhile: called at every attempt, with frames when the request is on its way.
        Returns the reply and its vector. Raises as `call` does.
        """

        def attempt() -> tuple[Any, Bytes]:
            frames = self._frames_channel()
            if frames is not None:
                try:
                    reply, vector = frames.call(name, request.SerializeToString(), data, timeout, meanwhile)
                except Unreachable as error:
                    self._do_without(frames, str(error))
                except FrameError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        self._do_without(frames, error.details())
                    raise
                else:
                    return _REPLIES[name].FromString(reply), vector
            whole = type(request)()
            whole.CopyFrom(request)
            if data:
                whole.data = bytes(data)
            if meanwhile is not None:
                meanwhile()
            reply = getattr(self._calls, name)(whole, timeout=timeout)
            return reply, reply.answer if name == "Exchange" else getattr(reply, "data", b"")

        answered: tuple[Any, Bytes] = self._until_answered(attempt)
        return answered

    def _until_answered(self, attempt: Callable[[], Any]) -> Any:
        pause = 0.05
        while True:
            if self._closed.is_set():
                raise Closed
            try:
                reply = attempt()
            except (grpc.RpcError, ValueError) as error:
                self._judge(error)
            else:
                self.last_answer = time.monotonic()
                return reply
            self._closed.wait(pause)
            pause = min(2 * pause, 2.0)

    def close(self) -> None:
        """Cancel every call that waits, and hang up."""
        self._closed.set()
        with self._frames_lock:
            if self._frames is not None:
                self._frames.close()
        self._channel.close()

    def _frames_channel(self) -> FrameChannel | None:
        """The way for frames, if the hub has one; asks it where, at first and some time after it was lost."""
        with self._frames_lock:
            if self._frames is None and time.monotonic() >= self._frames_from and not self._closed.is_set():
                self._frames_from = time.monotonic() + _FRAMES_AGAIN
                oldest, newest = PROTOCOLS
                hello = wire.HelloRequest(
                    member=self.credentials.organisation, oldest_protocol=oldest, newest_protocol=newest
                )
                port = self._calls.Hello(hello, timeout=15.0).frames_port
                if port:
                    host = self.address.rpartition(":")[0].strip("[]")
                    self._frames = FrameChannel(host, port, self.credentials)
            return self._frames

    def _do_without(self, frames: FrameChannel, reason: str) -> None:
        """Go on by gRPC; the hub may have started anew elsewhere, or its port for frames is closed to us."""
        _log.info("no frames to the hub for now (%s): vectors go through gRPC", reason)
        with self._frames_lock:
            if self._frames is frames:
                self._frames, self._frames_from = None, time.monotonic() + _FRAMES_AGAIN
        frames.close()

    def _judge(self, error: Any) -> None:
        """Return if the call may be repeated; raise what else became of it."""
        if not isinstance(error, grpc.RpcError):  # gRPC says so with a ValueError if the channel is closed
            raise Closed from error
        code, details = error.code(), error.details() or ""
        if self._closed.is_set():
            raise Closed from None
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            raise ConnectionLost(f"the hub at {self.address} refused this organisation: {details}") from error
        if code not in _LATER:
            raise UserError(f"the hub at {self.address}: {details or code.name}") from error
        silent = time.monotonic() - self.last_answer
        if silent > self.patience:
            raise ConnectionLost(
                f"the hub at {self.address} was not reached for {silent:.0f} s ({details or code.name}). A run is "
                "kept as it is: resume it when the hub is back"
            ) from error

    def _reply(self, request: Join | Say, attempt: Any) -> Reply:
        while True:
            answer, data = attempt()
            if isinstance(answer, Reply):
                return answer
            if answer.status == wire.STATUS_WAITING:
                continue
            slot = slot_of(request.envelope) if isinstance(request, Say) else None
            if slot is None and answer.envelopes:
                slot = slot_of(answer.envelopes[0])  # the run was finished while this member was away
            if answer.answer_size > len(data) and slot is not None:
                whole = self._get_chunks(request, answer.answer_size)
                if whole is None:
                    continue  # an answer that the hub lost, or of an epoch that is over: ask again
                data = whole
            return Reply(
                answer.status,
                answer.epoch,
                slot,
                list(answer.envelopes),
                data,
                tuple(answer.missing),
                answer.reason,
                answer.seconds_left,
                answer.abort if answer.HasField("abort") else None,
            )

    def _put_chunks(self, envelope: wire.Envelope, data: bytes | bytearray) -> Reply | None:
        """Send a vector in pieces, from where the hub has it; return its answer if it does not want it now."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            request = wire.PutChunkRequest(
                run=envelope.run,
                epoch=envelope.epoch,
                number=envelope.number,
                offset=offset,
                size=len(data),
            )
            reply, _ = self.carry("PutChunk", request, view[offset : offset + CHUNK])
            if reply.status == wire.STATUS_REFUSED:
                return None  # the statement itself gets the reason, or the answer if the vector was there already
            if reply.status != wire.STATUS_COMPLETE:
                return Reply(reply.status, reply.epoch, slot_of(envelope), reason=reply.reason)
            offset = reply.next_offset
        return None

    def _get_chunks(self, request: Join | Say, size: int) -> bytearray | None:
        assert isinstance(request, Say)  # noqa: S101 - joins have no answer to fetch
        envelope, data = request.envelope, bytearray()
        while len(data) < size:
            wanted = wire.GetChunkRequest(
                run=envelope.run, epoch=envelope.epoch, number=envelope.number, offset=len(data), length=CHUNK
            )
            reply, piece = self.carry("GetChunk", wanted)
            if reply.status != wire.STATUS_COMPLETE or not piece:
                return None
            data += piece
        return data


class _Once:
    """Work that is done at the first call only."""

    def __init__(self, work: Callable[[], None] | None) -> None:
        self._work = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()
