"""The calls of `federation.proto` for gRPC: how messages are read and written, and which of its settings we use."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.spec.errors import UserError

CHUNK = 1 << 22  # bytes of a vector in one message
INLINE = 1 << 22  # vectors up to here travel with their statement
LARGEST_MESSAGE = max(CHUNK, INLINE) + (1 << 20)
HUB_TARGET = "hub.lepton"
FRAMES = [  # vectors are long: fewer, larger frames and windows that hold one
    ("grpc.http2.max_frame_size", 1 << 22),
    ("grpc.http2.lookahead_bytes", 1 << 24),
    ("grpc.http2.write_buffer_size", 1 << 22),
]

_SERVICE = wire.DESCRIPTOR.services_by_name["Federation"]


def _class_of(descriptor: Any) -> Any:
    return getattr(wire, descriptor.name)


class Calls:
    """The hub's calls over a channel, each as an attribute: `calls.Exchange(request, timeout=…)`."""

    def __init__(self, channel: grpc.Channel) -> None:
        for method in _SERVICE.methods:
            call = channel.unary_unary(
                f"/{_SERVICE.full_name}/{method.name}",
                request_serializer=_class_of(method.input_type).SerializeToString,
                response_deserializer=_class_of(method.output_type).FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the hub has no call {name}")


def handlers(service: object) -> grpc.GenericRpcHandler:
    """Return gRPC's handlers for an object that has a method for each call."""
    methods: dict[str, Any] = {}
    for method in _SERVICE.methods:
        handler: Callable[..., Any] = getattr(service, method.name)
        methods[method.name] = grpc.unary_unary_rpc_method_handler(
            handler,
            request_deserializer=_class_of(method.input_type).FromString,
            response_serializer=_class_of(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, methods)


def take_port(server: grpc.Server, address: str, credentials: Any, let_go: Sequence[Callable[[], object]]) -> int:
    """Have a server listen at an address; return the port.

    Raises UserError if that cannot be had, after calling what gives back everything else that was taken.
    """
    try:
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        for each in let_go:
            each()
        raise UserError(
            f"The hub cannot listen at {address}: something else does, or the address is not this machine's. End what "
            "listens there, or choose another with --listen HOST:PORT."
        ) from error


def kept(work: Callable[[], Any], context: Any) -> Any:
    """Do what the ledger is asked for; what it refuses is told to the caller."""
    try:
        return work()
    except UserError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise
