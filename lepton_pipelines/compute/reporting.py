"""Workers tell their client how far they have come while they build; through Dask's own events, on any cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, get_worker


def report(topic: str, told: Any) -> None:
    """Tell something to whoever hears the topic; on a worker. told: of JSON's types, small."""
    get_worker().log_event(topic, told)


@contextmanager
def hearing(client: Client, topic: str, hear: Callable[[Any], None]) -> Iterator[None]:
    """Have `hear` called with what workers report under a topic, in the client's thread, for the length of a block."""

    def take(event: tuple[float, Any]) -> None:
        hear(event[1])

    client.subscribe_topic(topic, take)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.unsubscribe_topic(topic)  # type: ignore[no-untyped-call]
