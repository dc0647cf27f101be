"""Vectors by frames: what holds for gRPC holds for them, and without them gRPC carries the same calls."""

import contextlib
import resource
import socket
import ssl
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.frames import ALPN, FrameBroken, receive_frame, send_frame, tls_context
from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.hub_connection import ConnectionLost
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.federation.wire.calls import HUB_TARGET, LARGEST_MESSAGE


def connect(hub, name="north", *, alpn=ALPN, newest=ssl.TLSVersion.TLSv1_3):
    credentials = hub.homes[name].credentials()
    context = tls_context(
        server=False, authority=credentials.authority, key=credentials.tls_key, certificate=credentials.certificate
    )
    if newest is not ssl.TLSVersion.TLSv1_3:
        context.minimum_version = context.maximum_version = newest
    context.set_alpn_protocols([alpn])
    plain = socket.create_connection(("localhost", hub.server._frames.port), timeout=20)
    try:
        return context.wrap_socket(plain, server_hostname=HUB_TARGET)
    except OSError:
        plain.close()
        raise


def ask_once(hub, **settings):
    with connect(hub, **settings) as connection:
        send_frame(connection, 0, b"")
        return receive_frame(connection)


def totals(hub, length=300_000):
    return hub.everywhere(lambda sums: sums.sum("s", np.full(length, 7), bound=30))


@pytest.fixture
def carried(monkeypatch):
    """The calls that were answered by frames."""
    calls = []
    framed = HubServer._framed
    monkeypatch.setattr(
        HubServer, "_framed", lambda hub, call, *given: (calls.append(call), framed(hub, call, *given))[1]
    )
    return calls


def test_sums_travel_by_frames(hub_of_three, carried):
    carried.clear()
    hub_of_three.stop()
    hub_of_three.serve()
    for total in totals(hub_of_three, 1_200_000):
        assert (total == 21).all()
    assert {"Exchange"} <= set(carried)


def test_without_a_port_for_frames_grpc_gives_the_same_totals(hub_of_three, monkeypatch, carried):
    hub_of_three.stop()
    monkeypatch.setattr("lepton_pipelines.federation.grpc_hub.take_frames", lambda *given, **tls: None)
    hub_of_three.serve()
    for total in totals(hub_of_three):
        assert (total == 21).all()
    assert not carried


def test_a_port_that_cannot_be_reached_is_done_without(hub_of_three, carried):
    hub_of_three.server._frames.close()
    for total in totals(hub_of_three):
        assert (total == 21).all()
    assert not carried


def test_who_was_revoked_is_refused_at_the_next_frame_of_an_open_connection(hub_of_three):
    with connect(hub_of_three, "valley") as connection:
        exchange = wire.ExchangeRequest(envelope=wire.Envelope(run="r-7f3a", member="valley"), wait_milliseconds=1)
        send_frame(connection, 0, exchange.SerializeToString())
        assert receive_frame(connection)[0] == 0
        hub_of_three.hub.revoke("valley", "its laptop was stolen")
        reason = b""
        while not reason:  # the hub reads its list of members once a second
            send_frame(connection, 0, exchange.SerializeToString())
            code, message, _ = receive_frame(connection)
            reason = message if code else b""
    assert reason == b"valley was shut out by the hub's operator: its laptop was stolen"


def test_a_member_that_was_revoked_is_told_why_by_its_sums(hub_of_three):
    connection = hub_of_three.connect("valley")
    exchange = wire.ExchangeRequest(envelope=wire.Envelope(run="r-7f3a", member="valley"), wait_milliseconds=1)
    connection.carry("Exchange", exchange)
    hub_of_three.hub.revoke("valley", "its laptop was stolen")

    def until_refused():
        while True:
            connection.carry("Exchange", exchange)

    with pytest.raises(ConnectionLost, match="valley was shut out by the hub's operator: its laptop was stolen"):
        until_refused()
    connection.close()


@pytest.mark.parametrize(
    "wrong", [{"newest": ssl.TLSVersion.TLSv1_2}, {"alpn": "h2"}, {"stranger": True}], ids=["tls", "alpn", "stranger"]
)
def test_frames_need_tls_1_3_their_own_protocol_and_a_certificate_of_this_hub(hub_of_three, wrong, tmp_path):
    if wrong.pop("stranger", False):
        other = type(hub_of_three.hub).create(tmp_path / "other", "localhost:1")
        home = type(hub_of_three.homes["north"]).create(tmp_path / "stranger", "north")
        request = home.request()
        admission = other.admit(request, fingerprint=request.fingerprint)
        home.accept(admission.model_dump_json().encode(), fingerprint=other.fingerprint)
        hub_of_three.homes["stranger"] = home
        wrong = {"name": "stranger"}
        other.close()
    with pytest.raises(OSError):  # noqa: PT011 - TLS says it in many ways
        ask_once(hub_of_three, **wrong)


FRAMES = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(0, 255), st.binary(max_size=80), st.binary(max_size=80)).map(
        lambda frame: struct.pack(">BII", frame[0], len(frame[1]), len(frame[2])) + frame[1] + frame[2]
    ),
    st.sampled_from([struct.pack(">BII", 0, LARGEST_MESSAGE + 1, 0), struct.pack(">BII", 1, 0, 2**32 - 1)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(FRAMES, min_size=1, max_size=3))
def test_no_bytes_bring_the_frames_down_or_make_them_hold_much(hub_of_three, sent):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError), connect(hub_of_three) as connection:
        for frame in sent:
            connection.sendall(frame)
        connection.settimeout(0.05)
        for _ in sent:
            receive_frame(connection)
    with connect(hub_of_three) as connection:
        send_frame(connection, 2, wire.GetChunkRequest(run="r-7f3a").SerializeToString())
        assert receive_frame(connection)[0] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_head_that_announces_too_much_is_not_believed():
    here, there = socket.socketpair()
    with here, there:
        here.sendall(struct.pack(">BII", 0, 0, 2**32 - 1))
        with pytest.raises(FrameBroken, match="a frame of 0 and 4294967295 bytes"):
            receive_frame(there)
