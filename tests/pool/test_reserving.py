"""Who may reserve what, when and how much: the ledger's rules, so everybody's replica holds them."""

from datetime import UTC, datetime, timedelta

import pytest

from lepton_pipelines.ledger.compute_entries import ComputeOffered, ComputeReserved
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.offers import compute_offer, compute_offers, offer_compute, withdraw_compute
from lepton_pipelines.pool.reserving import release
from lepton_pipelines.pool.status import status
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.hours import covers

MONDAY = datetime(2999, 1, 7, 20, tzinfo=UTC)  # a Monday evening


def test_what_is_offered_is_found_by_everybody_without_its_address(pool):
    pool.offer(compute="{scheduler: 'tls://dask.harbour:8786'}", accelerators="{count: 1, kind: NVIDIA A2}", quota=10)
    (found,) = compute_offers(pool.of("valley"), "nvidia spare")
    told = found.summary()
    assert (told["offer"], told["cores"], told["memory"], told["accelerators"]) == ("harbour/evenings", 4, 8 * 10**9, 1)
    assert "dask.harbour" not in str(told) + str(pool.of("valley").get(found.terms.terms))
    assert offer_compute(pool.of("harbour"), pool.write(
        compute="{workers: 2}", accelerators="{count: 1, kind: NVIDIA A2}", quota=10
    )) == ("harbour/evenings", 1, False)  # fmt: skip
    assert pool.offer(cores=6) and compute_offer(pool.of("north"), "harbour/evenings").terms.version == 2


def test_a_double_reservation_is_refused_with_the_name_of_who_holds_it(pool):
    pool.offer()
    held = pool.reserve("north", cores=3)
    with pytest.raises(
        PoolRefused, match=rf"has 1 cores free at .*, not 2; reserved are {held.reserved.reservation} of north"
    ):
        pool.reserve("valley", cores=2)
    assert pool.reserve("valley", cores=1).holder == "valley"
    later = pool.reserve("valley", cores=4, start=datetime.now(UTC) + timedelta(hours=2))
    assert later.reserved.cores == 4
    with pytest.raises(PoolRefused, match="has 0 cores free"):  # free now, and taken before it would end
        pool.reserve("north", cores=1, hours=3.0, start=datetime.now(UTC) + timedelta(hours=1.5))


def test_a_log_that_took_a_double_reservation_is_refused_by_the_rules_themselves(pool):
    pool.offer()
    held = pool.reserve("north", cores=4).reserved
    fields = held.model_dump(include=set(ComputeReserved.model_fields) - {"ledger", "id", "time", "author"})
    with pytest.raises(EntryRefused, match=f"reserved are {held.reservation} of north"):
        pool.of("valley").record(ComputeReserved, **fields | {"reservation": "c-mine"})
    with pytest.raises(EntryRefused, match=f"there is a reservation {held.reservation} already"):
        pool.of("valley").record(ComputeReserved, **fields)


def test_what_is_released_can_be_reserved_again_and_only_holder_and_owner_release(pool):
    pool.offer()
    held = pool.reserve("north", cores=4).reserved.reservation
    with pytest.raises(EntryRefused, match=f"valley cannot release {held}: north holds it, of harbour's"):
        release(pool.of("valley"), held, "mine now")
    release(pool.of("harbour"), held, "needed at home")
    with pytest.raises(EntryRefused, match=f"{held} ended at"):
        release(pool.of("north"), held, "done")
    assert pool.reserve("valley", cores=4).reserved.cores == 4


@pytest.mark.parametrize(
    ("terms", "wanted", "reason"),
    [
        ({"members": "[valley]"}, {}, "is for valley, not for north"),
        ({"quota": 3}, {"hours": 2.0}, r"is for 3 core-hours a month: north has reserved 0 in .*, 4 more are too many"),
        ({"until": "2026-01-31"}, {}, "is on offer until 2026-01-31"),
        ({"hours": "[mon-fri 18:00-06:00]"}, {"start": MONDAY, "hours": 11.0}, "is on offer mon-fri 18:00-06:00"),
        ({}, {"memory": 9 * 10**9}, r"has 8000000000 memory free"),
        ({}, {"accelerators": 1}, "has 0 accelerators free"),
        ({}, {"start": datetime(2020, 1, 1, tzinfo=UTC)}, "which is past"),
        ({}, {"work": "scoring"}, "rows stay at home, so north scores on computers of its own"),
    ],
)
def test_a_reservation_beyond_the_offer_is_refused_by_its_clause(pool, terms, wanted, reason):
    pool.offer(**terms)
    with pytest.raises(PoolRefused, match=reason):
        pool.reserve("north", **wanted)


def test_a_quota_counts_what_was_reserved_and_not_what_was_given_back_before_it_began(pool):
    pool.offer(quota=4)
    later = pool.reserve("north", hours=2.0, start=MONDAY).reserved.reservation
    with pytest.raises(PoolRefused, match="north has reserved 4 in 2999-01"):
        pool.reserve("north", start=MONDAY)
    release(pool.of("north"), later, "not needed")
    assert pool.reserve("north", start=MONDAY).reserved.start == "2999-01-07T20:00:00Z"


def test_work_is_placed_where_there_is_room_at_home_first_and_then_where_it_is_cheapest(pool):
    pool.offer("harbour", price="{amount: 0.10, currency: EUR}")
    pool.offer("valley", price="{amount: 0.05, currency: EUR}")
    pool.offer("north")
    placed = [pool.reserve("north", None, cores=4).reserved.offer for _ in range(3)]
    assert placed == ["north/evenings", "valley/evenings", "harbour/evenings"]
    with pytest.raises(PoolRefused) as refused:
        pool.reserve("north", None, cores=1)
    assert len(refused.value.problems) == 3


def test_nobody_offers_or_withdraws_under_anothers_name_and_what_is_withdrawn_is_not_reserved(pool):
    with pytest.raises(PoolRefused, match="the offer is harbour's, but you speak for north"):
        offer_compute(pool.of("north"), pool.write("harbour"))
    pool.offer()
    terms = compute_offer(pool.of("north"), "harbour/evenings").terms.terms
    with pytest.raises(EntryRefused, match="north cannot speak for harbour/evenings"):
        pool.of("north").record(ComputeOffered, offer="harbour/evenings", version=2, cores=9, memory=1, terms=terms)
    withdraw_compute(pool.of("harbour"), "harbour/evenings", "moved")
    with pytest.raises(PoolRefused, match="harbour/evenings is not on offer"):
        pool.reserve()


def test_the_status_says_what_is_free_and_a_ledger_with_all_of_it_verifies(pool):
    pool.offer()
    pool.reserve("north", cores=3)
    told = status(pool.of("valley"))
    assert told["offers"][0]["free"] == {"cores": 1, "memory": 8 * 10**9 - (1 << 30), "accelerators": 0}
    assert told["offers"][0]["reserved_core_hours_this_month"] == {"north": 3.0}
    assert told["core_hours"]["by_organisation"] == {"north": {"reserved": 3.0, "measured": 0.0}}
    assert any("1 compute offer" in line for line in verify_ledger(pool.folder / "var" / "ledger" / "valley").proved)


@pytest.mark.parametrize("hours", ["mon-fri 18:00-6:00", "workdays 8-18", "mon 24:00-06:00"])
def test_hours_that_are_none_are_refused_with_the_field(pool, hours):
    with pytest.raises(UserError, match="hours"):
        pool.offer(hours=f"['{hours}']")


@pytest.mark.parametrize(
    ("hours", "start", "end", "inside"),
    [
        (["mon-fri 18:00-06:00"], "2999-01-07T18:00", "2999-01-08T06:00", True),
        (["mon-fri 18:00-06:00"], "2999-01-11T18:00", "2999-01-12T06:00", True),  # Friday into Saturday
        (["mon-fri 18:00-06:00"], "2999-01-12T18:00", "2999-01-12T19:00", False),
        (["sun 20:00-04:00"], "2999-01-14T01:00", "2999-01-14T04:00", True),  # Monday, from the week before
        (["sat-sun 00:00-24:00", "mon 00:00-02:00"], "2999-01-12T00:00", "2999-01-14T02:00", True),
        (["fri-mon 00:00-24:00"], "2999-01-11T00:00", "2999-01-15T00:00", True),
        ([], "2999-01-01T00:00", "2999-02-01T00:00", True),
    ],
)
def test_hours_cover_what_lies_in_them_without_a_gap(hours, start, end, inside):
    times = [datetime.fromisoformat(f"{each}:00+00:00") for each in (start, end)]
    assert covers(hours, *times) == inside
