"""The hub's end of frames: a port, and a thread for each connection that a certified organisation keeps open."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from lepton_pipelines.federation.frames import ALPN, CALLS, Bytes, hang_up, receive_frame, send_frame, tls_context

_log = logging.getLogger("lepton.hub")
_MOST = 512  # connections; a member keeps one for each sum that it has under way
_HANDSHAKE_SECONDS = 10.0
_IDLE_SECONDS = 300.0

Answer = Callable[[str, bytes, bytearray, "Caller"], tuple[bytes, Bytes]]
"""(call, message, vector, who asks) → the reply's message and vector."""


class Refused(Exception):  # noqa: N818 - says what became of the call
    """The call is refused, with a gRPC status and a reason."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class Caller:
    """Who is at the other end: the part of gRPC's context that the hub uses."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the certificate (PEM) that the connection was made with, as gRPC does."""
        return {"x509_pem_cert": [self._certificate]}

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Raise Refused."""
        raise Refused(code, details)


class FrameServer:
    """Takes frames, has them answered, and sends the answers.

    host, port: to listen on; port 0 takes any that is free. answer: works in the connection's own thread.
    Raises OSError if the port is taken.
    """

    def __init__(self, host: str, port: int, answer: Answer, *, authority: bytes, key: bytes, certificate: bytes):
        self._answer = answer
        self._context = tls_context(server=True, authority=authority, key=key, certificate=certificate)
        self._listener = _listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closed = threading.Event()
        self._accepting = threading.Thread(target=self._accept, name="hub frames", daemon=True)

    def start(self) -> None:
        """Take connections."""
        self._accepting.start()

    def close(self) -> None:
        """Hang up on everybody; calls that are being answered have been told so before."""
        self._closed.set()
        hang_up(self._listener)
        self._listener.close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            hang_up(connection)
        for thread in connections.values():
            thread.join(timeout=5)
        if self._accepting.is_alive():
            self._accepting.join(timeout=5)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._closed.is_set():
                    _log.warning("a connection could not be taken: %s", error)
                continue
            with self._lock:
                if self._closed.is_set() or len(self._connections) >= _MOST:
                    connection.close()
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,), name="hub frame", daemon=True)
                self._connections[connection] = thread
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            plain.settimeout(_HANDSHAKE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(plain, server_side=True) as connection:
                with self._lock:
                    self._connections[connection] = self._connections.pop(plain)
                    plain = connection
                if self._closed.is_set() or connection.selected_alpn_protocol() != ALPN:
                    return
                connection.settimeout(_IDLE_SECONDS)
                certificate = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
                caller = Caller(certificate.encode())
                while not self._closed.is_set():
                    self._one(connection, caller)
        except OSError:  # closed, timed out, without a certificate or no frame: the other end asks anew
            return
        finally:
            plain.close()
            with self._lock:
                self._connections.pop(plain, None)

    def _one(self, connection: ssl.SSLSocket, caller: Caller) -> None:
        number, message, data = receive_frame(connection)
        try:
            if number >= len(CALLS):
                caller.abort(grpc.StatusCode.UNIMPLEMENTED, f"there is no call {number}")
            reply, vector = self._answer(CALLS[number], message, data, caller)
        except Refused as refused:
            send_frame(connection, _number(refused.code), refused.details.encode())
        except DecodeError:
            send_frame(connection, _number(grpc.StatusCode.INTERNAL), b"a malformed message")
        except Exception as error:
            send_frame(connection, _number(grpc.StatusCode.UNKNOWN), type(error).__name__.encode())
            raise
        else:
            send_frame(connection, 0, reply, vector)


def take_frames(
    listen: str, port: int | None, answer: Answer, *, authority: bytes, key: bytes, certificate: bytes
) -> FrameServer | None:
    """Listen for frames at the address that gRPC listens on.

    port: None for none, -1 for the one after gRPC's (any that is free, if that is 0). A port that is taken is told of
    and done without.
    """
    if port is None:
        return None
    host, _, beside = listen.rpartition(":")
    if port < 0:
        port = int(beside) + 1 if int(beside) else 0
    try:
        return FrameServer(host.strip("[]"), port, answer, authority=authority, key=key, certificate=certificate)
    except OSError as error:
        _log.warning("no frames on port %d (%s): vectors go through gRPC, which takes longer", port, error)
        return None


def _number(code: grpc.StatusCode) -> int:
    numbers: Any = code.value
    return int(numbers[0])


def _listen(host: str, port: int) -> socket.socket:
    everywhere = host in ("::", "0.0.0.0", "")  # noqa: S104 - as the hub's operator has said
    if everywhere and host != "0.0.0.0" and socket.has_dualstack_ipv6():  # noqa: S104
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    family = socket.AF_INET6 if ":" in host and not everywhere else socket.AF_INET
    return socket.create_server(("" if everywhere else host, port), family=family, backlog=128)
