"""Frames: how the three calls that carry vectors travel beside gRPC, over TLS 1.3 on a port of the hub's own.

Python's gRPC takes about twice the time of a TLS socket for the same bytes, and hands every call through several
threads. So `Exchange`, `PutChunk` and `GetChunk` may also come as frames: a head, the same protobuf message without its
vector, and the vector behind it, as it lies in memory. Certificates, limits and what the calls mean are gRPC's. Where
a member cannot reach the port, gRPC carries the same calls.
"""

import os
import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_pipelines.federation.wire.calls import CHUNK, INLINE, LARGEST_MESSAGE

CALLS = ("Exchange", "PutChunk", "GetChunk")
ALPN = "lepton-frames/1"
_HEAD = struct.Struct(">BII")  # call or status, bytes of the message, bytes of the vector
_TOGETHER = 1 << 14  # a record of TLS: up to here a frame is sent in one piece
_LARGEST_VECTOR = max(CHUNK, INLINE)

Bytes = bytes | bytearray | memoryview


class FrameBroken(OSError):  # noqa: N818 - says what happened
    """A connection ended in the middle, or what came is no frame."""


def send_frame(connection: ssl.SSLSocket, number: int, message: bytes, data: Bytes = b"") -> None:
    """Send a frame. number: of the call in `CALLS`, or a gRPC status code."""
    head = _HEAD.pack(number, len(message), len(data)) + message
    if len(head) + len(data) <= _TOGETHER:
        connection.sendall(head + data)
    else:
        connection.sendall(head)
        connection.sendall(data)


def receive_frame(connection: ssl.SSLSocket) -> tuple[int, bytes, bytearray]:
    """Return the number, the message and the vector of the next frame.

    Raises FrameBroken if the connection ends, or if the head announces more than a frame may have: nothing is allocated
    for it.
    """
    number, message_size, data_size = _HEAD.unpack(_read(connection, _HEAD.size))
    if message_size > LARGEST_MESSAGE or data_size > _LARGEST_VECTOR:
        raise FrameBroken(f"a frame of {message_size} and {data_size} bytes")
    return number, bytes(_read(connection, message_size)), _read(connection, data_size)


def _read(connection: ssl.SSLSocket, size: int) -> bytearray:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        came = connection.recv_into(view[have:])
        if not came:
            raise FrameBroken("the connection was closed")
        have += came
    return data


def tls_context(*, server: bool, authority: bytes, key: bytes, certificate: bytes) -> ssl.SSLContext:
    """Return a context for mutual TLS 1.3 and nothing older, in which only the hub's own authority is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.decode())
    with _as_file(certificate + b"\n" + key) as path:
        context.load_cert_chain(path)
    context.set_alpn_protocols([ALPN])
    return context


def hang_up(connection: socket.socket) -> None:
    """End a connection, whoever waits for it in another thread."""
    try:
        # not SSLSocket's own, which takes the TLS state away from under the thread that reads
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # it had ended already


@contextmanager
def _as_file(secret: bytes) -> Iterator[str]:
    """Python reads keys from files only: one in memory where the system has that, else one that only we can read."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls")
        try:
            os.write(descriptor, secret)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        descriptor, name = tempfile.mkstemp()  # 0600
        try:
            os.write(descriptor, secret)
            os.close(descriptor)
            yield name
        finally:
            Path(name).unlink()
