"""What an organisation refuses at home, and what the refused runs would have given away."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from lepton_pipelines.federation.home_rules import (
    RUNS_REMEMBERED,
    RowDigests,
    RowGuard,
    RunHistory,
    WatchGuard,
    check_invitation,
    check_rows,
)
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.manifest import Manifest, Member, read_manifest
from lepton_pipelines.federation.row_sketch import RowSketch
from lepton_pipelines.federation.series import left_out
from lepton_pipelines.federation.succession import following
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy

KEYS = {name: SigningKey.generate().public for name in ("east", "harbour", "north", "south", "valley")}
HUB = SigningKey.generate().public
DAY = 86400.0


def manifest(run="r-1", members=("harbour", "north", "valley"), **fields):
    parties = tuple(Member(name=n, key=KEYS[n].hex(), product=f"{n}/patients") for n in sorted(members))
    usual = {"spec": "00" * 32, "contract": "11" * 32, "code": "test", "parameters": {"max_depth": 4, "rounds": 60}}
    return Manifest(run=run, hub=HUB.hex(), members=parties, **{**usual, **fields})


@pytest.fixture
def history(tmp_path):
    kept = RunHistory(tmp_path / "north")
    yield kept
    kept.close()


def check(asked, history, policy=None, **settings):
    usual = {"organisation": "north", "keys": KEYS, "hub_key": HUB, "now": 100 * DAY}
    check_invitation(asked, policy=policy or Policy(), history=history, **{**usual, **settings})


@pytest.mark.parametrize(
    ("asked", "policy", "reason"),
    [
        ({}, {"members": ["valley"]}, "harbour is not among the members that policy.members allows"),
        ({}, {"minimum_members": 4}, "it has 3 members, policy.minimum_members is 4"),
        ({"algorithm": "linear"}, {"algorithms": ["boosting"]}, "it trains linear, policy.algorithms allows boosting"),
        ({"parameters": {"max_depth": 9}}, {"max_depth": 8}, "it asks for max_depth 9, the policy allows up to 8"),
        ({"parameters": {}}, {"max_depth": 8}, "it asks for max_depth None, the policy allows up to 8"),
        ({"parameters": {"rounds": 500}}, {"max_rounds": 100}, "it asks for rounds 500, the policy allows up to 100"),
        ({"parameters": {"max_bin": 512}}, {"max_bin": 256}, "it asks for max_bin 512, the policy allows up to 256"),
    ],
)
def test_an_invitation_outside_the_policy_is_refused_with_the_reason_and_noted(history, asked, policy, reason):
    with pytest.raises(UserError, match=reason):
        check(manifest(**asked), history, Policy(**policy))
    ((run, _, noted),) = history.refusals()
    assert run == "r-1" and reason in noted
    check(manifest(), history, Policy(members=["harbour", "valley"], max_depth=8, max_rounds=100))


def test_more_runs_than_the_policy_allows_in_a_week_are_refused(history):
    for number, day in enumerate((80, 95, 99)):
        history.signed(manifest(f"r-{number}"), "north", now=day * DAY)
    check(manifest("r-9"), history, Policy(runs_per_week=3))
    with pytest.raises(UserError, match=r"2 runs were signed within seven days, policy.runs_per_week is 2"):
        check(manifest("r-9"), history, Policy(runs_per_week=2))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"keys": {"north": KEYS["north"], "harbour": KEYS["harbour"]}}, "valley's key was never compared here"),
        ({"keys": {**KEYS, "valley": KEYS["east"]}}, "another key for valley than the one that was compared here"),
        ({"keys": {**KEYS, "north": KEYS["east"]}}, "another key for north than the one that was compared here"),
        ({"hub_key": KEYS["east"]}, "another hub than the one that was accepted here"),
        ({"further": ["its specification is not the one that stands here"]}, "its specification is not the one"),
        ({"organisation": "east"}, "east is not among its members"),
    ],
)
def test_a_manifest_with_other_keys_hub_or_pipeline_is_refused(history, settings, reason):
    with pytest.raises(UserError, match=reason):
        check(manifest(), history, **settings)


FIVE = ("east", "harbour", "north", "south", "valley")


@pytest.mark.parametrize(
    ("members", "allowed"),
    [
        (FIVE, True),
        (("east", "harbour", "north", "south"), False),
        (("east", "harbour", "north"), True),
    ],
)
def test_members_of_two_runs_over_a_product_differ_by_none_or_at_least_two(history, members, allowed):
    history.signed(manifest("r-1", FIVE), "north", now=DAY)
    if allowed:
        check(manifest("r-2", members), history)
        return
    with pytest.raises(UserError, match=r"differ from those of run r-1 .* by valley alone"):
        check(manifest("r-2", members), history)
    check(manifest("r-2", members, privacy={"epsilon": "1"}), history)


def test_the_refused_members_would_have_given_away_an_organisations_histogram():
    random = np.random.default_rng(0)
    histograms = {name: random.integers(0, 500, 64) for name in FIVE}

    def total(members):
        federation = InProcessFederation(members)
        pending = [federation.sums(name).start("root", histograms[name], bound=10_000) for name in members]
        totals = [one.result() for one in pending]
        federation.close()
        return totals[0]

    with_valley, without = total(FIVE), total(FIVE[:-1])
    np.testing.assert_array_equal(with_valley - without, histograms["valley"])  # cell for cell: all of it

    two_less = total(FIVE[:-2])
    mixed = with_valley - two_less
    np.testing.assert_array_equal(mixed, histograms["valley"] + histograms["south"])
    assert (mixed != histograms["valley"]).mean() > 0.95


def digests(rows, people=None):
    people = rows if people is None else people
    return RowDigests(RowSketch.of(people, b"secret"), RowSketch.of(rows, b"secret"))


def test_a_product_that_changed_by_a_few_rows_is_not_trained_on_again(history):
    rows = np.random.default_rng(1).integers(0, 2**63, 1_000, np.uint64)
    history.signed(manifest("r-1"), "north")
    history.trained_on("r-1", digests(rows))

    check_rows(manifest("r-2"), "north", digests(rows), history)  # the same rows: nothing to subtract
    with pytest.raises(UserError, match="differs by 3 rows from the one of run r-1, fewer than 20"):
        check_rows(manifest("r-2"), "north", digests(rows[3:]), history)
    with pytest.raises(UserError, match="differs by 19 rows"):
        check_rows(manifest("r-2"), "north", digests(np.concatenate([rows, np.arange(19, dtype=np.uint64)])), history)
    with pytest.raises(UserError, match="differs by 1 rows"):  # the same row once more
        check_rows(manifest("r-2"), "north", digests(np.concatenate([rows, rows[:1]])), history)
    check_rows(manifest("r-2"), "north", digests(rows[20:]), history)
    check_rows(manifest("r-2", privacy={"epsilon": "1"}), "north", digests(rows[3:]), history)
    assert len(history.refusals()) == 3


def test_a_contract_that_gains_a_column_does_not_hide_that_three_people_left(history):
    people = np.arange(1_000, dtype=np.uint64)
    history.signed(manifest("r-1"), "north")
    history.trained_on("r-1", digests(people + np.uint64(5_000), people))
    with pytest.raises(UserError, match="differs by 3 rows"):
        check_rows(manifest("r-2"), "north", digests(people[3:] + np.uint64(9_000), people[3:]), history)


def test_rows_of_the_last_runs_over_a_product_are_remembered(history):
    rows = np.arange(100, dtype=np.uint64)
    for number in range(RUNS_REMEMBERED + 3):
        history.signed(manifest(f"r-{number}"), "north", now=DAY * number + 1)
        history.trained_on(f"r-{number}", digests(rows))
    kept = [one.run for one in history.runs() if one.rows is not None]
    assert kept == [f"r-{number}" for number in range(3, RUNS_REMEMBERED + 3)]


def test_watches_do_not_make_the_rows_of_trainings_forgotten(history):
    history.signed(manifest("r-0"), "north", now=1)
    history.trained_on("r-0", digests(np.arange(100, dtype=np.uint64)))
    for number in range(RUNS_REMEMBERED + 3):
        history.signed(manifest(f"w-{number}", kind="watch"), "north", now=DAY * number + 2)
        history.trained_on(f"w-{number}", digests(np.arange(200, 300, dtype=np.uint64)))
    kept = [one.run for one in history.runs() if one.rows is not None]
    assert kept == ["r-0", *(f"w-{number}" for number in range(3, RUNS_REMEMBERED + 3))]


def test_a_watch_is_none_of_the_trainings_that_the_policy_allows_a_week(history):
    history.signed(manifest("w-1", kind="watch"), "north", now=99 * DAY)
    check(manifest("r-1"), history, Policy(runs_per_week=1))
    history.signed(manifest("r-1"), "north", now=99 * DAY)
    check(manifest("w-2", kind="watch"), history, Policy(runs_per_week=1))
    with pytest.raises(UserError, match="1 runs were signed within seven days"):
        check(manifest("r-2"), history, Policy(runs_per_week=1))


def test_a_watch_of_rows_that_changed_by_a_few_is_put_off_and_they_are_not_noted(history, tmp_path):
    rows = np.arange(100, dtype=np.uint64)
    history.signed(manifest("r-1"), "north", now=1)
    history.trained_on("r-1", digests(rows))
    watch = manifest("w-1", kind="watch")
    history.signed(watch, "north", now=2)
    guard = WatchGuard.like(RowGuard.of(tmp_path / "north", watch, "north"))
    guard.check(digests(rows[3:]))
    assert "differs by 3 rows from the one of run r-1" in guard.reason
    assert [one.run for one in history.runs() if one.rows is not None] == ["r-1"]
    guard.check(digests(rows[30:]))
    assert guard.reason is None
    guard.note()
    assert [one.run for one in history.runs() if one.rows is not None] == ["r-1", "w-1"]
    with pytest.raises(UserError, match="differs by 2 rows from the one of run w-1"):  # a watch is not forgotten either
        check_rows(manifest("r-2"), "north", digests(rows[32:]), history)


def test_a_history_from_before_there_were_watches_is_one_of_trainings(tmp_path):
    (tmp_path / "north").mkdir(mode=0o700)
    old = sqlite3.connect(tmp_path / "north" / "history.sqlite")
    old.execute("CREATE TABLE runs (run TEXT PRIMARY KEY, signed REAL, product TEXT, members TEXT, private INTEGER,"
                " people BLOB, rows BLOB)")  # fmt: skip
    old.execute("INSERT INTO runs VALUES ('r-1', 1, 'north/patients', '[\"north\"]', 0, NULL, NULL)")
    old.commit()
    old.close()
    with closing(RunHistory(tmp_path / "north")) as history:
        history.signed(manifest("w-1", kind="watch"), "north")
        assert [(one.run, one.kind) for one in history.runs()] == [("r-1", "training"), ("w-1", "watch")]


def test_rows_that_a_release_before_sketches_noted_are_compared_with(history, tmp_path):
    rows = np.arange(100, dtype=np.uint64)
    history.signed(manifest("r-1"), "north")
    with closing(sqlite3.connect(tmp_path / "north" / "history.sqlite")) as old:
        old.execute("UPDATE runs SET people = ?, rows = ?", (rows.tobytes(), rows.tobytes()))
        old.commit()
    guard = RowGuard.of(tmp_path / "north", manifest("r-2"), "north")
    less = RowSketch.of(rows[3:], guard.salt)
    with pytest.raises(UserError, match="differs by 3 rows from the one of run r-1"):
        guard.check(RowDigests(less, less))


def test_the_refused_retrain_would_have_given_away_the_new_patients():
    random = np.random.default_rng(2)
    codes, gradients = random.integers(0, 8, 1_000), random.integers(-99, 99, 1_000)

    def histogram(rows):
        return np.bincount(codes[rows], gradients[rows], 8).astype(np.int64)

    before, after = histogram(np.arange(999)), histogram(np.arange(1_000))
    told = after - before  # what anyone with both totals can compute
    assert np.count_nonzero(told) == 1 and told[codes[999]] == gradients[999]


FOUR = ("east", "harbour", "north", "valley")


def going_on(run="r-1", members=FOUR, **fields):
    return manifest(run, members, when_lost="go_on", **fields)


def test_a_policy_refuses_runs_that_may_go_on_without_a_member_by_its_name(history):
    check(going_on(), history)
    with pytest.raises(UserError, match=r"may go on without an organisation .* policy.when_lost is suspend"):
        check(going_on(), history, Policy(when_lost="suspend"))


def test_only_what_was_signed_for_is_gone_on_with_and_it_is_no_run_of_its_own(history):
    root = going_on()
    after = following(root, root, ["east"], [])
    with pytest.raises(UserError, match="it goes on from run r-1, which was not signed for here"):
        check(after, history)
    history.signed(root, "north", now=99 * DAY)
    check(after, history, Policy(runs_per_week=1))  # differs by one: signed for
    with pytest.raises(UserError, match="changes more of the manifest of run r-1 than its members"):
        check(after.model_copy(update={"parameters": {"max_depth": 8}}), history)
    history.signed(after, "north", now=99 * DAY)
    with pytest.raises(UserError, match="another manifest was signed here under this id"):
        check(following(root, root, ["valley"], []), history)
    check(following(root, after, [], ["east"]), history)


def test_after_going_on_only_all_of_them_together_may_train_again_and_only_if_they_sign_for_it_again(history):
    root = going_on()
    for one in (root, following(root, root, ["east"], [])):
        history.signed(one, "north", now=99 * DAY)
    check(going_on("r-2"), history)
    with pytest.raises(UserError, match=r"differ from those of run r-1\.1 over data product north/patients by east"):
        check(manifest("r-2", FOUR), history)
    with pytest.raises(UserError, match="differ from those of run r-1 over data product north/patients by east"):
        check(going_on("r-2", FOUR[1:]), history)


def test_a_later_run_may_go_on_without_a_member_if_all_signed_for_that_in_the_earlier_one_too(history):
    history.signed(going_on("r-1"), "north", now=98 * DAY)
    later = going_on("r-2")
    history.signed(later, "north", now=99 * DAY)
    check(following(later, later, ["east"], []), history)
    history.signed(manifest("r-0", FOUR), "north", now=97 * DAY)
    with pytest.raises(UserError, match=r"differ from those of run r-0 over data product north/patients by east"):
        check(following(later, later, ["east"], []), history)


def test_a_history_of_a_release_that_kept_no_manifests_is_read(tmp_path):
    (tmp_path / "north").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "north" / "history.sqlite")) as old:
        old.execute(
            "CREATE TABLE runs (run TEXT PRIMARY KEY, signed REAL NOT NULL, product TEXT NOT NULL,"
            " members TEXT NOT NULL, private INTEGER NOT NULL, people BLOB, rows BLOB)"
        )
        old.execute("INSERT INTO runs VALUES ('r-0', 1.0, 'north/patients', '[\"north\"]', 0, NULL, NULL)")
        old.commit()
    kept = RunHistory(tmp_path / "north")
    kept.signed(going_on(), "north")
    assert [one.manifest for one in kept.runs()] == [None, going_on()]
    kept.close()


MEMBERS = ("harbour", "north", "south", "valley")
SIGNS = Policy(contribution=True)


def report(run="c-1", members=MEMBERS, **fields):
    return manifest(run, members, kind="contribution", contribution=True, **fields)


def test_a_run_without_a_member_is_signed_only_as_part_of_a_report_that_all_members_signed(history):
    whole = report()
    shorter = left_out(whole, "south")
    with pytest.raises(UserError, match="leaves a member out of run c-1, which not all of its members signed"):
        check(shorter, history, SIGNS)
    check(whole, history, SIGNS)
    history.signed(whole, "north")
    with pytest.raises(UserError, match="which not all of its members signed"):
        check(shorter, history, SIGNS)
    history.complete("c-1")
    for name in ("harbour", "south", "valley"):
        check(left_out(whole, name), history, SIGNS)
        history.signed(left_out(whole, name), "north")
    assert shorter.names == ("harbour", "north", "valley") and shorter.run == "c-1-without-south"
    assert read_manifest(shorter.encoded()) == shorter


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"spec": "22" * 32}, "changes more of the manifest of run c-1 than to leave one member out"),
        ({"run": "c-2"}, "changes more of the manifest of run c-1"),
        ({"series": None}, "its members differ from those of run c-1 over data product north/patients by south alone"),
        ({"kind": "training", "series": None}, "its members differ from those of run c-1 .* by south alone"),
    ],
    ids=str,
)
def test_a_run_that_only_looks_like_part_of_a_report_is_refused(history, changed, reason):
    history.signed(report(), "north")
    history.complete("c-1")
    forged = left_out(report(), "south").model_copy(update=changed)
    with pytest.raises(UserError, match=reason):
        check(forged, history, SIGNS)


def test_nobody_is_left_out_of_a_run_that_was_not_signed_for_that_way(history):
    """Members who trained together and had not signed for reports then: the difference would show that run's, too."""
    history.signed(manifest("r-1", MEMBERS), "north")
    history.signed(report(), "north")
    history.complete("c-1")
    with pytest.raises(UserError, match=r"its members differ from those of run r-1 .* by south alone"):
        check(left_out(report(), "south"), history, SIGNS)


def test_the_same_members_train_on_after_a_report_if_they_sign_for_reports_again(history):
    history.signed(manifest("r-1", MEMBERS, contribution=True), "north")
    for one in (report(), left_out(report(), "south")):
        history.signed(one, "north")
    check(manifest("r-2", MEMBERS, contribution=True), history, SIGNS)
    with pytest.raises(UserError, match=r"its members differ from those of run c-1-without-south .* by south alone"):
        check(manifest("r-2", MEMBERS), history, SIGNS)
    with pytest.raises(UserError, match="by east alone"):
        check(manifest("r-2", (*MEMBERS, "east"), contribution=True), history, SIGNS)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({}, "policy.contribution does not sign for that"),
        ({"contribution": True, "minimum_members": 4}, "it is repeated with 3 members, policy.minimum_members is 4"),
        ({"contribution": True, "runs_per_week": 3}, "0 runs were signed within seven days, it is 4 more"),
    ],
    ids=str,
)
def test_a_home_refuses_a_report_that_its_policy_does_not_allow(history, policy, reason):
    with pytest.raises(UserError, match=reason):
        check(report(), history, Policy(**policy))


def test_a_report_counts_as_all_its_trainings_and_no_part_of_it_a_second_time(history):
    limited = Policy(contribution=True, runs_per_week=5)
    history.signed(report(), "north", now=99 * DAY)
    history.complete("c-1")
    for name in ("harbour", "south", "valley"):
        check(left_out(report(), name), history, limited)
        history.signed(left_out(report(), name), "north", now=99 * DAY)
    check(manifest("r-1", MEMBERS, contribution=True), history, limited)
    history.signed(manifest("r-1", MEMBERS, contribution=True), "north", now=99 * DAY)
    with pytest.raises(UserError, match=r"5 runs were signed within seven days, policy.runs_per_week is 5"):
        check(manifest("r-2", MEMBERS, contribution=True), history, limited)


def test_of_three_members_nobody_is_left_out():
    with pytest.raises(UserError, match="of harbour, north, valley is not repeated without north"):
        left_out(report(members=("harbour", "north", "valley")), "north")
    with pytest.raises(ValueError, match="for contribution reports and for going on"):
        report(when_lost="go_on")


def test_a_manifest_that_signs_for_no_reports_has_the_bytes_that_it_had_before_there_were_any():
    assert b"contribution" not in manifest().encoded() and b"series" not in manifest().encoded()
    assert read_manifest(manifest().encoded()) == manifest()
