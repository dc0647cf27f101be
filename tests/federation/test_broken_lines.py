"""A connection that is reset at half an upload, as a firewall does it; a slow member; a certificate that ends."""

import contextlib
import datetime as dt
import socket
import struct
import threading

import numpy as np
import pytest

from lepton_pipelines.federation import callers, grpc_hub, hub_connection
from lepton_pipelines.federation.frame_client import FrameChannel
from lepton_pipelines.federation.grpc_member import whom_it_waits_for
from lepton_pipelines.federation.hub_connection import CHUNK, ConnectionLost, HubConnection

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
LIMIT, LENGTH = 6_000_000, 1_200_000  # of an upload of 7 MB, in pieces of 4


class Line:
    """Passes bytes on to a port, and resets the connection on which so many have gone up. sent: bytes upwards."""

    def __init__(self, port):
        self.target, self.sent, self.resets = port, 0, 0
        self._listening = socket.create_server(("localhost", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("localhost", self.target))
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source, target, upwards):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.sent += len(data) if upwards else 0
                if upwards and self.sent > LIMIT and not self.resets:
                    self.resets = 1
                    for end in (source, target):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.parametrize("way", ["frames", "grpc"])
def test_an_upload_goes_on_where_a_reset_connection_left_it(hub_of_three, monkeypatch, way):
    if way == "grpc":
        hub_of_three.stop()
        monkeypatch.setattr(grpc_hub, "take_frames", lambda *given, **tls: None)
        hub_of_three.serve()
    line = Line(hub_of_three.port if way == "grpc" else hub_of_three.server._frames.port)
    connect = hub_of_three.connect

    def through_the_line(name, **settings):
        if name != "north":
            return connect(name, **settings)
        credentials = hub_of_three.homes[name].credentials()
        if way == "grpc":
            return HubConnection(credentials, address=f"localhost:{line.port}", **settings)
        monkeypatch.setattr(
            hub_connection,
            "FrameChannel",
            lambda host, port, mine: FrameChannel(host, line.port if mine.organisation == "north" else port, mine),
        )
        return connect(name, **settings)

    monkeypatch.setattr(hub_of_three, "connect", through_the_line)
    vector = np.arange(LENGTH, dtype=np.int64)
    joined = {}

    def part(sums):
        joined[sums.member] = sums
        return sums.sum("long", vector, bound=1 << 40)

    for total in hub_of_three.everywhere(part):
        np.testing.assert_array_equal(total, 3 * vector)
    assert line.resets == 1
    assert line.sent < joined["north"].traffic.bytes_sent + CHUNK + 1_000_000  # not from the beginning again
    line.close()


def test_who_is_late_is_named_with_the_time_since_it_was_heard_of(hub_of_three):
    sums = [hub_of_three.join(name) for name in hub_of_three.homes]
    for one in sums:
        one.wait_until_ready(30)
    pending = [one.start("s", np.ones(3, np.int64), bound=9) for one in sums if one.member != "valley"]
    status = sums[0].status()
    while list(status.missing) != ["valley"]:
        status = sums[0].status()
    assert whom_it_waits_for(status, ["valley"]).startswith("sum 0: waiting for valley (last seen 0 s ago). Grace time")
    late = next(one for one in sums if one.member == "valley").start("s", np.ones(3, np.int64), bound=9)
    assert all(one.result().tolist() == [3, 3, 3] for one in [*pending, late])


def test_a_certificate_that_ends_while_its_member_is_connected_is_refused_at_the_next_call(hub_of_three, monkeypatch):
    connection = hub_of_three.connect("valley")
    connection.hello("test")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=91)

    class Later(dt.datetime):
        @classmethod
        def now(cls, zone=None):
            return later.astimezone(zone)

    monkeypatch.setattr(callers.dt, "datetime", Later)
    with pytest.raises(ConnectionLost, match="the certificate of valley expired on"):
        connection.hello("test")
    connection.close()
