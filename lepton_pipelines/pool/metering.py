"""Tasks on a Dask cluster, no more at once than were reserved, and what they took by Dask's own measure."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from distributed import Client, as_completed, get_task_stream

from lepton_pipelines.pool.errors import PoolRefused

Answer = TypeVar("Answer")


class Metered:
    """Runs the tasks of one job. cores: most at once, each on one worker thread. seconds: until the reservation ends.

    core_seconds, tasks: what they have taken so far, by Dask's task stream.
    """

    def __init__(self, client: Client, cores: int, seconds: float) -> None:
        self.client, self.cores = client, cores
        self.core_seconds, self.tasks = 0.0, 0
        self._end = time.monotonic() + seconds

    def map(self, function: Callable[..., Answer], items: Sequence[Any], *shared: Any) -> list[Answer]:
        """Run a task for every item; answers in the items' order.

        shared: what every task gets besides, futures of data that lies on the workers. Raises what a task raised, and
        PoolRefused when the reservation ends first.
        """
        stream = get_task_stream(self.client)
        try:
            with self.client.as_current(), stream:
                return self._run(function, items, shared)
        finally:
            seconds, tasks = computed(stream.data)
            self.core_seconds, self.tasks = self.core_seconds + seconds, self.tasks + tasks

    def _run(self, function: Callable[..., Answer], items: Sequence[Any], shared: tuple[Any, ...]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        places: dict[Any, int] = {}
        waiting = iter(enumerate(items))

        def submit() -> Any:
            for place, item in waiting:
                future = self.client.submit(function, item, *shared, pure=False)
                places[future] = place
                return future
            return None

        first = [future for future in (submit() for _ in range(self.cores)) if future is not None]
        under_way = as_completed(first, timeout=max(0.0, self._end - time.monotonic()))  # type: ignore[no-untyped-call]
        try:
            for future in under_way:
                answers[places.pop(future)] = future.result()
                following = submit()
                if following is not None:
                    under_way.add(following)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise PoolRefused("the reservation ended before the work did. Reserve more hours or cores.") from error
        finally:
            self.client.cancel(list(places), force=True)  # type: ignore[no-untyped-call]
        return [answers[place] for place in range(len(items))]


def computed(records: Iterable[dict[str, Any]]) -> tuple[float, int]:
    """Add up what a task stream says of computing: seconds of worker threads, and of how many tasks."""
    spans = [
        each["stop"] - each["start"]
        for record in records
        for each in record["startstops"]
        if each["action"] == "compute"
    ]
    return float(sum(spans)), len(spans)
