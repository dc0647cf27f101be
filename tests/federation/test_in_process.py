"""Sums between threads of one process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lepton_pipelines.federation.in_process import InProcessFederation, InProcessSums
from lepton_pipelines.federation.runs import close_run, join, open_run, opened_run
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import BoundExceeded, SumAborted, Sums

MEMBERS = ("north", "harbour", "valley")


def at_every_member(federation: InProcessFederation, part: Callable[[InProcessSums], object]) -> list[object]:
    """Run a part at every member in a thread of its own; the errors it raised stand for its results."""

    def run(member: str) -> object:
        try:
            with federation.sums(member) as sums:
                return part(sums)
        except (SumAborted, BoundExceeded, ValueError) as error:
            return error

    with ThreadPoolExecutor(len(federation.members)) as pool:
        results = list(pool.map(run, federation.members))
    federation.close()
    return results


@pytest.mark.parametrize("values", [0, 1, 7, 5_000, 40_000])
@pytest.mark.parametrize("bound", [0, 1, 900, 2**33, 2**61, 2**63 - 1])
def test_every_member_gets_the_exact_total(values, bound):
    random = np.random.default_rng(values + bound % 1000)
    parts = {name: random.integers(-(bound // 3), bound // 3, (values,), endpoint=True) for name in MEMBERS}

    totals = at_every_member(
        InProcessFederation(MEMBERS), lambda sums: sums.sum("cells", parts[sums.member], bound=bound)
    )

    for total in totals:
        assert isinstance(total, np.ndarray) and total.dtype == np.int64
        np.testing.assert_array_equal(total, sum(parts.values()))


def test_a_shape_survives_the_sum_and_the_vector_is_not_changed():
    vector = np.arange(24).reshape(2, 3, 4)
    totals = at_every_member(InProcessFederation(MEMBERS), lambda sums: sums.sum("a", vector, bound=100))
    np.testing.assert_array_equal(totals[0], 3 * np.arange(24).reshape(2, 3, 4))
    np.testing.assert_array_equal(vector, np.arange(24).reshape(2, 3, 4))


def test_sums_are_under_way_while_a_member_goes_on_computing():
    def part(sums):
        pending = [sums.start(f"s{i}", np.full(20_000, i), bound=1000) for i in range(5)]
        return [int(sum_.result()[0]) for sum_ in reversed(pending)]

    assert at_every_member(InProcessFederation(MEMBERS), part) == [[12, 9, 6, 3, 0]] * 3


def test_the_in_process_federation_is_a_sums():
    assert isinstance(InProcessFederation(MEMBERS).sums("north"), Sums)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"name": "other"}, r"valley is about to add up 'other'; harbour and north: 's'"),
        ({"vector": np.zeros(3, np.int64)}, r"valley has a vector of shape \(3\); harbour and north: \(2\)"),
        ({"bound": 9}, r"valley announced the bound 9; harbour and north: 5"),
        ({"context": b"\xff" * 32}, r"valley is at the state ffffffffffffffff…; harbour and north: \(none\)"),
    ],
)
def test_a_member_that_is_about_to_add_up_something_else_is_named(what, message):
    usual = {"name": "s", "vector": np.zeros(2, np.int64), "bound": 5, "context": b""}

    def part(sums):
        mine = {**usual, **what} if sums.member == "valley" else usual
        return sums.sum(mine["name"], mine["vector"], bound=mine["bound"], context=mine["context"])

    results = at_every_member(InProcessFederation(MEMBERS), part)
    assert all(isinstance(result, SumAborted) for result in results)
    with pytest.raises(SumAborted, match=message):
        raise results[0]


def test_a_member_that_fails_releases_the_others():
    def part(sums):
        sums.sum("first", np.ones(4, np.int64), bound=5)
        if sums.member == "harbour":
            raise ValueError("column radius_mean is missing")
        return sums.sum("second", np.ones(4, np.int64), bound=5)

    results = at_every_member(InProcessFederation(MEMBERS), part)
    assert [str(result) for result in results if isinstance(result, SumAborted)] == [
        "harbour has stopped: ValueError: column radius_mean is missing"
    ] * 2


def test_a_member_whose_thread_ends_releases_the_others():
    federation = InProcessFederation(MEMBERS, grace_seconds=0.05)
    dead = threading.Thread(target=lambda: federation.sums("valley").start("s", np.ones(1, np.int64), bound=3))
    dead.start()
    dead.join()
    with ThreadPoolExecutor(2) as pool:
        for future in [
            pool.submit(lambda m=member: [federation.sums(m).sum(name, np.ones(1, np.int64), bound=3) for name in "st"])
            for member in ("north", "harbour")
        ]:
            with pytest.raises(SumAborted, match="valley has stopped: its thread ended"):
                future.result(timeout=30)
    federation.close()


def test_an_abort_wakes_a_member_that_waits():
    federation = InProcessFederation(MEMBERS)
    pending = federation.sums("north").start("s", np.ones(1, np.int64), bound=3)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(pending.result)
        federation.abort("north withdrew its data product")
        with pytest.raises(SumAborted, match="north withdrew its data product"):
            future.result(timeout=30)
    with pytest.raises(SumAborted, match="withdrew"):
        federation.sums("harbour").start("s", np.ones(1, np.int64), bound=3)
    federation.close()


def test_a_value_beyond_the_bound_is_refused_at_home_and_a_total_beyond_it_everywhere():
    results = at_every_member(
        InProcessFederation(MEMBERS), lambda sums: sums.sum("s", np.array([7, 3]), bound=6 if sums.member else 0)
    )
    assert all(isinstance(result, BoundExceeded | SumAborted) for result in results)
    results = at_every_member(InProcessFederation(MEMBERS), lambda sums: sums.sum("s", np.array([7, 3]), bound=12))
    assert {str(result) for result in results} == {"sum 's': 1 of 2 cells of the total are beyond the bound 12"}


def test_a_name_is_used_once():
    results = at_every_member(
        InProcessFederation(MEMBERS),
        lambda sums: [sums.sum("s", np.zeros(1, np.int64), bound=0) for _ in range(2)],
    )
    assert all("a name is used once" in str(result) for result in results if isinstance(result, ValueError))


def test_traffic_is_what_the_network_would_carry():
    federation = InProcessFederation(MEMBERS)
    at_every_member(federation, lambda sums: sums.sum("s", np.zeros(100_000, np.int64), bound=2**20))
    traffic = federation.sums("north").traffic
    assert traffic.sums == 1
    assert 400_000 < traffic.bytes_sent < 401_000  # 20 bits, three members and a sign: four bytes a value
    assert 400_000 < traffic.bytes_received < 401_000


def test_two_members_are_refused_unless_they_ask_for_it():
    with pytest.raises(UserError, match="allow_two_parties"):
        InProcessFederation(["north", "harbour"])
    federation = InProcessFederation(["north", "harbour"], allow_two_parties=True)
    totals = at_every_member(federation, lambda sums: int(sums.sum("s", np.ones(1, np.int64), bound=2)[0]))
    assert totals == [2, 2]


def test_runs_are_found_by_their_id_and_gone_when_closed():
    open_run("r-1", MEMBERS)
    assert join("r-1", "north") is join("r-1", "north")
    with pytest.raises(UserError, match="already open"):
        open_run("r-1", MEMBERS)
    with pytest.raises(UserError, match="stranger is not a member"):
        join("r-1", "stranger")
    close_run("r-1")
    with pytest.raises(UserError, match="run r-1 is not open"):
        join("r-1", "north")


def test_an_error_inside_an_opened_run_is_what_its_members_are_told():
    federation = open_run("r-2", MEMBERS)
    close_run("r-2")
    sums = federation.sums("north")

    def fail():
        with opened_run("r-2", MEMBERS) as opened:
            nonlocal sums
            sums = opened.sums("north")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    with pytest.raises(SumAborted, match="boom"):
        sums.start("s", np.zeros(1, np.int64), bound=1)
