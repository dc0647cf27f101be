"""A member's end of frames: connections to the hub that are kept open, one for each call that is under way."""

import socket
import ssl
import threading
from collections.abc import Callable

import grpc

from lepton_pipelines.federation.frames import ALPN, CALLS, Bytes, hang_up, receive_frame, send_frame, tls_context
from lepton_pipelines.federation.wire.calls import HUB_TARGET
from lepton_pipelines.identity.organisation_home import Credentials

_CONNECT_SECONDS = 5.0
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class FrameError(grpc.RpcError):  # type: ignore[misc]
    """A call that failed, told as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """Return what kind of failure it is."""
        return self._code

    def details(self) -> str:
        """Return what the hub, or the connection, said."""
        return self._details


class Unreachable(OSError):  # noqa: N818 - says what happened
    """No connection can be made to the hub's port for frames."""


class FrameChannel:
    """Calls to the hub by frames.

    host, port: where the hub takes them.
    """

    def __init__(self, host: str, port: int, credentials: Credentials) -> None:
        self._where = (host, port)
        self._context = tls_context(
            server=False,
            authority=credentials.authority,
            key=credentials.tls_key,
            certificate=credentials.certificate,
        )
        self._lock = threading.Lock()
        self._idle: list[ssl.SSLSocket] = []
        self._busy: set[ssl.SSLSocket] = set()
        self._closed = threading.Event()

    def call(
        self, name: str, message: bytes, data: Bytes, timeout: float, meanwhile: Callable[[], None] | None = None
    ) -> tuple[bytes, bytearray]:
        """Make a call; return the reply's message and vector.

        timeout: seconds without a byte after which the connection counts as lost. meanwhile: called when the request
        is on its way.
        Raises Unreachable if there is no connection to be had, FrameError if the hub refuses or the connection breaks.
        """
        while True:
            connection, used = self._take()
            try:
                connection.settimeout(timeout)
                send_frame(connection, CALLS.index(name), message, data)
                if meanwhile is not None:
                    meanwhile()
                code, reply, vector = receive_frame(connection)
            except OSError as error:
                self._drop(connection)
                if used and not self._closed.is_set():
                    continue  # the hub had closed it while it was idle
                raise FrameError(grpc.StatusCode.UNAVAILABLE, str(error) or type(error).__name__) from error
            self._give_back(connection)
            if code:
                raise FrameError(_CODES.get(code, grpc.StatusCode.UNKNOWN), reply.decode(errors="replace"))
            return reply, vector

    def close(self) -> None:
        """Hang up; calls that wait end with an error."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
            for connection in self._busy:
                hang_up(connection)
        for connection in idle:
            connection.close()

    def _take(self) -> tuple[ssl.SSLSocket, bool]:
        with self._lock:
            if self._closed.is_set():
                raise FrameError(grpc.StatusCode.CANCELLED, "the channel is closed")
            if self._idle:
                connection = self._idle.pop()
                self._busy.add(connection)
                return connection, True
        connection = self._connect()
        with self._lock:
            if not self._closed.is_set():
                self._busy.add(connection)
                return connection, False
        connection.close()
        raise FrameError(grpc.StatusCode.CANCELLED, "the channel is closed")

    def _connect(self) -> ssl.SSLSocket:
        try:
            plain = socket.create_connection(self._where, timeout=_CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection = self._context.wrap_socket(plain, server_hostname=HUB_TARGET)
            except OSError:
                plain.close()
                raise
        except OSError as error:
            raise Unreachable(str(error)) from error
        if connection.selected_alpn_protocol() != ALPN:
            connection.close()
            raise Unreachable(f"port {self._where[1]} speaks something else")
        return connection

    def _drop(self, connection: ssl.SSLSocket) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _give_back(self, connection: ssl.SSLSocket) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()
