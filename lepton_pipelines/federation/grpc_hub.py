"""The hub as a process: gRPC over mutual TLS 1.3 around one state machine a run."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from lepton_pipelines.federation.callers import Callers
from lepton_pipelines.federation.effects import Join, Reply, Say
from lepton_pipelines.federation.envelope import Slot, slot_of
from lepton_pipelines.federation.frame_server import take_frames
from lepton_pipelines.federation.frames import Bytes
from lepton_pipelines.federation.hub import ABORTED, CONTINUED, FINISHED, HubRun
from lepton_pipelines.federation.hub_log import HubLog
from lepton_pipelines.federation.hub_outputs import Answer, Output
from lepton_pipelines.federation.hub_stages import back_again, check_proposal, concerns, note_successor
from lepton_pipelines.federation.manifest import PROTOCOLS, choose_protocol, read_manifest
from lepton_pipelines.federation.run_figures import RunFigures, figures_of
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.federation.wire.calls import CHUNK, FRAMES, INLINE, LARGEST_MESSAGE, handlers, kept, take_port
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.onboarding import read_request
from lepton_pipelines.ledger.documents import LARGEST_MODEL, Documents
from lepton_pipelines.ledger.hub_ledger import HubLedger
from lepton_pipelines.spec.errors import UserError

_log = logging.getLogger("lepton.hub")
_LONGEST_WAIT = 20.0
_WORKERS = 256  # a waiting call holds a thread, which costs little


class HubServer:
    """`lepton hub serve`: relays statements and adds up masked vectors for organisations that it admitted.

    home: the hub's folder. listen: address to listen on; port 0 takes any that is free. frames: port of the same
    address that takes vectors as frames (`frames.py`); by default the next one, 0 for any, None for none.
    """

    def __init__(
        self,
        home: HubHome,
        *,
        listen: str = "[::]:7443",
        frames: int | None = -1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._clock = clock
        self._signer = home.signer()
        self._log = HubLog(home.folder)
        self._ledger = HubLedger(home.folder / "ledger", self._signer)
        self._documents = Documents(home.folder / "documents")
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._runs: dict[str, LiveRun] = {}
        self._callers = Callers(home, clock)
        for run, encoded in self._log.runs():
            machine = HubRun(read_manifest(encoded), self._signer, now=clock())
            self._log.carry_out(machine.restore(self._log.records(run)))
            self._runs[run] = LiveRun(machine, self._log, clock)
        for live in self._runs.values():
            note_successor(self._runs, live)
        key, certificate = home.tls()
        credentials = grpc.ssl_server_credentials([(key, certificate)], home.authority, require_client_auth=True)
        options = [
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.so_reuseport", 0),
            *FRAMES,
        ]
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hub")
        self._server = grpc.server(self._pool, handlers=[handlers(self)], options=options)
        let_go = (self._pool.shutdown, self._ledger.close, self._log.close)
        self.port = take_port(self._server, listen, credentials, let_go)
        tls = {"authority": home.authority, "key": key, "certificate": certificate}
        self._frames = take_frames(listen, frames, self._framed, **tls)
        self._stopping = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="hub clock", daemon=True)

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        if self._frames is not None:
            self._frames.start()
        self._ticker.start()
        _log.info("the hub listens on port %d, fingerprint %s", self.port, self._home.fingerprint)

    def statuses(self) -> list[RunFigures]:
        """Return figures of every run, for the hub's own operator."""
        with self._lock:
            runs = list(self._runs.values())
        return [live.figures() for live in runs]

    def wait(self) -> None:
        """Wait until the server is stopped."""
        self._server.wait_for_termination()

    def stop(self) -> None:
        """Take no more calls, answer those that wait with a request to ask again, and close the log."""
        self._stopping.set()
        self._ledger.release()
        with self._changed:
            for live in self._runs.values():
                live.release()
            self._changed.notify_all()
        if self._frames is not None:
            self._frames.close()
        self._server.stop(grace=1.0).wait()
        self._pool.shutdown(wait=True)
        self._ledger.close()
        self._log.close()

    # ---- calls; their names are the service's ----

    def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802
        """Agree on a protocol version, and tell the time."""
        member = self._who(context)
        reply = wire.HelloReply(hub=self._signer.public.hex(), clock=time.time())
        reply.frames_port = self._frames.port if self._frames is not None else 0
        theirs = (request.oldest_protocol, request.newest_protocol)
        try:
            reply.protocol = choose_protocol(PROTOCOLS, theirs, we="the hub", they=member)
        except UserError as error:
            reply.refused = str(error)
        return reply

    def Renew(self, request: wire.RenewRequest, context: Any) -> wire.RenewReply:  # noqa: N802
        """Certify a new TLS key of an organisation that is connected with the one before."""
        member = self._who(context)
        try:
            asked = read_request(request.request)
            if asked.organisation != member:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{member} cannot renew for {asked.organisation}")
            return wire.RenewReply(admission=self._home.renew(asked).model_dump_json().encode())
        except UserError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    def Propose(self, request: wire.ProposeRequest, context: Any) -> wire.RunStatus:  # noqa: N802
        """Open a run and invite its members."""
        member = self._who(context)
        try:
            manifest = read_manifest(request.manifest)
            check_proposal(manifest, member, hub=self._signer.public, known=self._callers.member, runs=self._runs)
        except UserError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        with self._changed:
            known = self._runs.get(manifest.run)
            if known is None:
                self._log.open_run(manifest.run, request.manifest, member)
                known = LiveRun(HubRun(manifest, self._signer, now=self._clock()), self._log, self._clock)
                self._runs[manifest.run] = known
                self._changed.notify_all()
            elif known.machine.manifest.encoded() != request.manifest:
                context.abort(
                    grpc.StatusCode.ALREADY_EXISTS, f"run {manifest.run} exists with another manifest: take a new id"
                )
        _log.info("%s proposes run %s with %s", member, manifest.run, ", ".join(manifest.names))
        return known.status(member)

    def List(self, request: wire.ListRequest, context: Any) -> wire.ListReply:  # noqa: N802
        """Return the runs that the caller is a member of; if asked for those under way, wait for one."""
        member = self._who(context)
        end = self._clock() + min(request.wait_milliseconds / 1000, _LONGEST_WAIT)
        while True:
            with self._changed:
                runs = [live for live in self._runs.values() if member in live.machine.manifest.names]
                found = [live for live in runs if not request.under_way_only or concerns(self._runs, live, member)]
                if found or self._clock() >= end or self._stopping.is_set():
                    break
                self._changed.wait(max(end - self._clock(), 0.01))
        heard = self._callers.seconds_since_heard()
        return wire.ListReply(runs=[live.status(member) for live in found], seconds_since_heard=heard)

    def Look(self, request: wire.StatusRequest, context: Any) -> wire.RunStatus:  # noqa: N802
        """Return where a run stands; also a member's sign of life while it computes."""
        member = self._who(context)
        return self._run(request.run, member, context).status(member, heard=True)

    def Join(self, request: wire.JoinRequest, context: Any) -> wire.ExchangeReply:  # noqa: N802
        """A member's process is here."""
        member = self._who(context)
        if len(request.incarnation) != 16:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an incarnation has 16 bytes")
        live = self._run(request.run, member, context)
        if over := back_again(self._runs, live, member):
            return wire.ExchangeReply(status=wire.STATUS_REFUSED, reason=over)
        join = Join(request.run, member, request.incarnation, request.after_epoch)
        reply = live.ask(member, join, _LONGEST_WAIT)
        note_successor(self._runs, live)
        return _reply(reply, live, member)[0]

    def Exchange(self, request: wire.ExchangeRequest, context: Any) -> wire.ExchangeReply:  # noqa: N802
        """Take a member's statement; answer when everyone's is there, or with WAITING."""
        reply, answer = self._exchange(request, request.data, context)
        reply.answer = bytes(answer)
        return reply

    def PutChunk(self, request: wire.PutChunkRequest, context: Any) -> wire.PutChunkReply:  # noqa: N802
        """Take a piece of a masked vector; say where the next one begins."""
        return self._put_chunk(request, request.data, context)

    def GetChunk(self, request: wire.GetChunkRequest, context: Any) -> wire.GetChunkReply:  # noqa: N802
        """Give a piece of an answer."""
        reply, data = self._get_chunk(request, context)
        reply.data = bytes(data)
        return reply

    def LedgerAdmission(self, request: wire.LedgerAdmissionRequest, context: Any) -> wire.LedgerAdmissionReply:  # noqa: N802
        """Admit the caller to the ledger, with the key that it was admitted to the hub with."""
        member = self._who(context)
        admitted = self._callers.member(member)
        if admitted is None:
            raise LookupError(member)
        key = admitted.signing_key
        return wire.LedgerAdmissionReply(entry=kept(lambda: self._ledger.admission(member, key), context))

    def LedgerSubmit(self, request: wire.LedgerSubmitRequest, context: Any) -> wire.LedgerSubmitReply:  # noqa: N802
        """Take an entry of the caller's on."""
        member = self._who(context)
        return wire.LedgerSubmitReply(index=kept(lambda: self._ledger.submit(member, request.entry), context))

    def LedgerRead(self, request: wire.LedgerReadRequest, context: Any) -> wire.LedgerReadReply:  # noqa: N802
        """Give entries and the newest head; waits until there is something new."""
        self._who(context)
        wait = min(request.wait_milliseconds / 1000, _LONGEST_WAIT)
        entries, head = self._ledger.read(request.first, request.signatures, wait)
        return wire.LedgerReadReply(entries=entries, head=head)

    def LedgerCosign(self, request: wire.LedgerCosignRequest, context: Any) -> wire.LedgerCosignReply:  # noqa: N802
        """Take the caller's cosignature of the newest head."""
        member = self._who(context)
        return wire.LedgerCosignReply(head=kept(lambda: self._ledger.cosign(member, request.signature), context))

    def DocumentPut(self, request: wire.DocumentPutRequest, context: Any) -> wire.DocumentPutReply:  # noqa: N802
        """Keep a document of the market for all members."""
        self._who(context)
        return wire.DocumentPutReply(
            digest=kept(lambda: self._documents.put(request.document, most=LARGEST_MODEL), context)
        )

    def DocumentGet(self, request: wire.DocumentGetRequest, context: Any) -> wire.DocumentGetReply:  # noqa: N802
        """Give a document by its digest."""
        self._who(context)
        return wire.DocumentGetReply(document=kept(lambda: self._documents.get(request.digest), context))

    # ---- what vectors travel with, by gRPC or by frames ----

    def _exchange(
        self, request: wire.ExchangeRequest, data: bytes | bytearray, context: Any
    ) -> tuple[wire.ExchangeReply, Bytes]:
        member = self._who(context)
        live = self._run(request.envelope.run, member, context)
        wait = min(request.wait_milliseconds / 1000, _LONGEST_WAIT)
        data = data or live.take_chunks(member, slot_of(request.envelope))
        digest = hashlib.sha256(data).digest() if data else b""  # here, where others need not wait for it
        reply = live.ask(member, Say(request.envelope, data, digest), wait)
        if request.envelope.kind == wire.KIND_MANIFEST:
            note_successor(self._runs, live)
        return _reply(reply, live, member)

    def _put_chunk(self, request: wire.PutChunkRequest, data: Bytes, context: Any) -> wire.PutChunkReply:
        member = self._who(context)
        return self._run(request.run, member, context).put_chunk(member, request, data)

    def _get_chunk(self, request: wire.GetChunkRequest, context: Any) -> tuple[wire.GetChunkReply, Bytes]:
        member = self._who(context)
        return self._run(request.run, member, context).get_chunk(request)

    def _framed(self, call: str, message: bytes, data: bytearray, context: Any) -> tuple[bytes, Bytes]:
        """Answer a frame."""
        reply: Any
        vector: Bytes = b""
        if call == "Exchange":
            reply, vector = self._exchange(wire.ExchangeRequest.FromString(message), data, context)
        elif call == "PutChunk":
            reply = self._put_chunk(wire.PutChunkRequest.FromString(message), data, context)
        else:
            reply, vector = self._get_chunk(wire.GetChunkRequest.FromString(message), context)
        return reply.SerializeToString(), vector

    # ---- parts ----

    def _who(self, context: Any) -> str:
        return self._callers.who(context)

    def _run(self, run: str, member: str, context: Any) -> "LiveRun":
        live = self._runs.get(run)
        if live is None or member not in live.machine.manifest.names:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{member} is in no run {run!r} at this hub")
            raise LookupError
        return live

    def _tick(self) -> None:
        while not self._stopping.wait(1.0):
            for live in list(self._runs.values()):
                live.tick()


class LiveRun:
    """One run's state machine, with the calls that wait for it and the vectors that are arriving."""

    def __init__(self, machine: HubRun, log: HubLog, clock: Callable[[], float]) -> None:
        self.machine = machine
        self._log = log
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, Slot | None], list[_Waiting]] = {}
        self._chunks: dict[tuple[str, int, int], bytearray] = {}

    def ask(self, member: str, request: Join | Say, wait: float) -> Reply | None:
        """Hand a request to the state machine and wait for its answer; None if it is not there in time."""
        slot = slot_of(request.envelope) if isinstance(request, Say) else None
        mine = _Waiting()
        with self._lock:
            self._waiting.setdefault((member, slot), []).append(mine)
            if isinstance(request, Join):
                self._carry_out(self.machine.join(self._clock(), request))
            else:
                self._carry_out(self.machine.say(self._clock(), member, request))
        mine.event.wait(wait)
        with self._lock:
            others = self._waiting.get((member, slot), [])
            if mine in others:
                others.remove(mine)
                if not others:
                    del self._waiting[member, slot]
            self.machine.heard(member, self._clock())
        return mine.reply

    def tick(self) -> None:
        """Let the state machine look at the clock."""
        with self._lock:
            self._carry_out(self.machine.tick(self._clock()))

    def release(self) -> None:
        """Wake every call that waits; it is answered with WAITING."""
        with self._lock:
            for waiting in self._waiting.values():
                for one in waiting:
                    one.event.set()

    def is_under_way(self) -> bool:
        """Whether the run still invites, runs, or can be resumed."""
        return self.machine.state not in (ABORTED, FINISHED, CONTINUED)

    def change(self, work: Callable[[HubRun, float], list[Output]]) -> None:
        """Do something with the state machine, at its time, and carry out what it wants."""
        with self._lock:
            self._carry_out(work(self.machine, self._clock()))

    def put_chunk(self, member: str, request: wire.PutChunkRequest, data: Bytes) -> wire.PutChunkReply:
        """Take a piece of a vector that was announced with just this size."""
        with self._lock:
            self.machine.heard(member, self._clock())
            epoch = self.machine.epoch
            if request.epoch < epoch:
                return wire.PutChunkReply(status=wire.STATUS_NEW_EPOCH, epoch=epoch)
            size = self.machine.upload_size(member, request.epoch, request.number)
            if not size or size != request.size or request.offset + len(data) > size:
                reason = f"sum {request.number} takes no {request.size} bytes of {member} now"
                return wire.PutChunkReply(status=wire.STATUS_REFUSED, reason=reason, epoch=epoch)
            key = (member, request.epoch, request.number)
            vector = self._chunks.setdefault(key, bytearray())
            if request.offset == len(vector):
                vector += data
            self.machine.bytes += len(data)
            return wire.PutChunkReply(status=wire.STATUS_COMPLETE, next_offset=len(vector), epoch=epoch)

    def take_chunks(self, member: str, slot: Slot) -> bytes | bytearray:
        """Return the vector that came in pieces, if it did."""
        if slot.kind != wire.KIND_UPLOAD:
            return b""
        with self._lock:
            return self._chunks.pop((member, slot.epoch, slot.number), b"")

    def get_chunk(self, request: wire.GetChunkRequest) -> tuple[wire.GetChunkReply, Bytes]:
        """Give a piece of an answer."""
        with self._lock:
            answer = self.machine.answer_bytes(request.epoch, request.number)
            epoch = self.machine.epoch
        if answer is None:
            status = wire.STATUS_NEW_EPOCH if request.epoch < epoch else wire.STATUS_RESEND
            return wire.GetChunkReply(status=status, epoch=epoch), b""
        data = memoryview(answer)[request.offset : request.offset + min(request.length, CHUNK)]
        return wire.GetChunkReply(status=wire.STATUS_COMPLETE, epoch=epoch), data

    def status(self, member: str, *, heard: bool = False) -> wire.RunStatus:
        """Return where the run stands, for people."""
        with self._lock:
            machine, now = self.machine, self._clock()
            if heard:
                machine.heard(member, now)
            step, number, missing = machine.missing()
            missing = [] if machine.state in (ABORTED, FINISHED, CONTINUED) else missing
            late = [now - machine.seen.get(name, machine.since) for name in missing]
            return wire.RunStatus(
                run=machine.manifest.run,
                manifest=machine.manifest.encoded(),
                status=machine.state,
                epoch=machine.epoch,
                number=number,
                step=step,
                missing=missing,
                seconds_since_seen={name: now - seen for name, seen in machine.seen.items()},
                reason=machine.reason,
                seconds_left=max(machine.manifest.grace_seconds - max(late, default=0.0), 0.0),
                bytes=machine.bytes,
                signed_by=sorted(machine.signed()),
                lost=machine.lost,
                returning=sorted(machine.returning),
                successor=machine.successor,
            )

    def figures(self) -> RunFigures:
        """Return what the hub's operator may see."""
        with self._lock:
            return figures_of(self.machine, began=self._began, now=self._clock())

    def _carry_out(self, outputs: list[Output]) -> None:
        """Log first, then answer."""
        self._log.carry_out([output for output in outputs if not isinstance(output, Answer)])
        for output in outputs:
            if isinstance(output, Answer):
                for one in self._waiting.pop((output.member, output.asked), []):
                    one.reply = output.reply
                    one.event.set()
        if self._chunks:
            stale = [key for key in self._chunks if not self.machine.upload_size(*key)]
            for key in stale:
                del self._chunks[key]


class _Waiting:
    """A call that waits for its answer."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reply: Reply | None = None


def _reply(reply: Reply | None, live: LiveRun, member: str) -> tuple[wire.ExchangeReply, Bytes]:
    """A reply as it travels, and the vector that goes with it; longer ones are fetched in pieces."""
    if reply is None:
        status = live.status(member)
        waiting = wire.ExchangeReply(
            status=wire.STATUS_WAITING, epoch=status.epoch, missing=status.missing, seconds_left=status.seconds_left
        )
        return waiting, b""
    said = wire.ExchangeReply(
        status=reply.status,
        epoch=reply.epoch,
        envelopes=reply.envelopes,
        answer_size=len(reply.answer),
        missing=reply.missing,
        reason=reply.reason,
        seconds_left=reply.seconds_left,
        abort=reply.abort,
    )
    return said, reply.answer if len(reply.answer) <= INLINE else b""
