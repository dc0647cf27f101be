"""Seeded schedules of a simulator in batches, on all processors, and the command that asks for them."""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

BATCH = 50  # schedules a task of a worker process


def command(checked: Callable[..., str], *ends: str) -> int:
    """Run schedules as the command line asks. checked: runs a seed and returns how it ended, one of `ends`."""
    parser = argparse.ArgumentParser(description="Run the federation's state machines under seeded schedules.")
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    if options.seed is not None:
        print(checked(options.seed, trace=options.trace))  # noqa: T201
        return 0
    began, tally, counted = time.monotonic(), dict.fromkeys(ends, 0), 0
    seeds = range(options.first, options.first + options.schedules)
    batches = [seeds[begin : begin + BATCH] for begin in range(0, len(seeds), BATCH)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for batch, (found, failure) in zip(batches, pool.map(partial(run_batch, checked), batches), strict=True):
            if failure:
                print(f"\n{failure}")  # noqa: T201
                pool.shutdown(cancel_futures=True)
                return 1
            tally = {end: tally[end] + found.get(end, 0) for end in ends}
            counted += len(batch)
            if counted % 1000 == 0:
                print(f"{counted} schedules, {tally}, {counted / (time.monotonic() - began):.0f}/s", flush=True)  # noqa: T201
    print(f"{counted} schedules, {tally}, {time.monotonic() - began:.0f} s")  # noqa: T201
    return 0


def run_batch(checked: Callable[..., str], seeds: range) -> tuple[dict[str, int], str]:
    """Run some schedules; return how many ended how, and the first failure."""
    tally: dict[str, int] = {}
    for seed in seeds:
        try:
            end = checked(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            return tally, f"seed {seed}: {type(error).__name__}: {error}"
        tally[end] = tally.get(end, 0) + 1
    return tally, ""
