"""Messages that nobody should send: the hub refuses them, stays up, and keeps within its memory."""

import pickle
import resource

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.federation.wire.calls import LARGEST_MESSAGE

SERVICE = "/lepton.federation.v1.Federation/"
CALLS = [method.name for method in wire.DESCRIPTOR.services_by_name["Federation"].methods]


@pytest.fixture
def raw(hub_of_three):
    """Send bytes as they are, with a member's certificate; returns what became of them."""
    connection = hub_of_three.connect("north")

    def send(name, data):
        call = connection._channel.unary_unary(
            SERVICE + name, request_serializer=lambda data: data, response_deserializer=lambda data: data
        )
        try:
            return call(data, timeout=20)
        except grpc.RpcError as error:
            return error.code()

    yield send
    connection.close()


def envelopes():
    return st.builds(
        wire.Envelope,
        run=st.sampled_from(["r-7f3a", "", "r-other", "\0" * 50]),
        epoch=st.sampled_from([0, 1, 2, 2**32 - 1]),
        kind=st.integers(0, 12),
        number=st.sampled_from([0, 1, 2**63]),
        member=st.sampled_from(["north", "valley", "", "(hub)"]),
        body=st.binary(max_size=64) | st.just(pickle.dumps({"a": 1})),
        signature=st.binary(max_size=70),
    )


MESSAGES = st.one_of(
    st.tuples(st.sampled_from(CALLS), st.binary(max_size=200)),
    st.tuples(
        st.sampled_from(CALLS), st.sampled_from([pickle.dumps(np.arange(9)), b"\x0a\xff\xff\xff\xff\x0f", b"{}"])
    ),
    envelopes()
    .filter(lambda e: e.kind != wire.KIND_ABORT)
    .map(lambda e: ("Exchange", wire.ExchangeRequest(envelope=e, data=b"x", wait_milliseconds=1).SerializeToString())),
    st.builds(
        wire.PutChunkRequest,
        run=st.just("r-7f3a"),
        epoch=st.integers(0, 3),
        number=st.sampled_from([0, 2**63]),
        offset=st.sampled_from([0, 2**63]),
        data=st.binary(max_size=50),
        size=st.sampled_from([0, 10, 2**62]),
    ).map(lambda chunk: ("PutChunk", chunk.SerializeToString())),
)


def test_whatever_is_sent_the_hub_answers_the_next_call(hub_of_three, raw):
    @given(MESSAGES)
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def send(message):
        name, data = message
        if name not in ("List", "Join"):  # these wait, as they should
            raw(name, data)

    send()
    hello = wire.HelloRequest(member="north", oldest_protocol=1, newest_protocol=1)
    assert wire.HelloReply.FromString(raw("Hello", hello.SerializeToString())).protocol == 1
    assert all(live.machine.state == "inviting" for live in hub_of_three.server._runs.values())


def test_a_message_beyond_the_limit_is_refused_before_it_is_held_in_memory(raw):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bytes(LARGEST_MESSAGE + 1)
    for _ in range(20):
        assert raw("PutChunk", data) == grpc.StatusCode.RESOURCE_EXHAUSTED
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes; both ends are in this process
    assert grown < 200_000


def test_a_vector_that_nobody_announced_is_not_stored(hub_of_three, raw):
    chunk = wire.PutChunkRequest(run="r-7f3a", epoch=1, number=0, offset=0, data=bytes(1 << 20), size=1 << 20)
    for _ in range(5):
        reply = wire.PutChunkReply.FromString(raw("PutChunk", chunk.SerializeToString()))
        assert reply.status == wire.STATUS_REFUSED and "takes no 1048576 bytes of north now" in reply.reason
    assert not hub_of_three.server._runs["r-7f3a"]._chunks
