"""Going on without a member, or with one again: the rule, the trees, and what it gives away, in numbers."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xgboost

import lepton_pipelines as lp
from lepton_pipelines.federation.manifest import Manifest, Member, Stage
from lepton_pipelines.federation.succession import Replay, following, misfit

NAMES = ("coast", "harbour", "north", "valley")
PARAMETERS = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3}
ROUNDS = 5


@pytest.fixture(scope="module")
def scheduled():
    spec = importlib.util.spec_from_file_location("scheduled", Path(__file__).with_name("scheduled.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["scheduled"] = module
    spec.loader.exec_module(module)
    return module


def rows_of(member):
    random = np.random.default_rng(NAMES.index(member))
    features = random.normal(size=(400, 5)).astype(np.float32)
    label = (features[:, 0] + features[:, 1] * features[:, 2] + random.normal(size=400) > 0).astype(np.float32)
    return features, label


def trained(scheduled, stages, parameters=PARAMETERS, scale=None):
    """The members' models under a schedule of members, and the schedule with its totals."""
    schedule = scheduled.Scheduled([scheduled.Stage(*stage) for stage in stages])

    def part(sums):
        features, label = rows_of(sums.member)
        if scale:
            label = features[:, 0] * scale.get(sums.member, 1.0)
        data = lp.Dataset(features, label)
        scores = {}
        evals = [(data, "train")]
        booster = lp.train(parameters, data, ROUNDS, sums=sums, verbose_eval=False, evals=evals, evals_result=scores)
        return bytes(booster.save_raw("ubj"))

    return schedule.run(part), schedule


def name_of_sum(schedule, wanted):
    return next(place for place, name in schedule.names.items() if name.endswith(wanted))


WITHOUT_COAST = ("harbour", "north", "valley")


@pytest.mark.parametrize("grown", ["depthwise", "lossguide"])
@pytest.mark.parametrize("lost_before", ["round 1/tree 0.0/0", "round 1/tree 0.0/2", "round 1/scores"])
def test_a_tree_is_closed_where_a_member_was_lost_and_all_that_remain_grow_the_same(scheduled, grown, lost_before):
    parameters = {**PARAMETERS, "grow_policy": grown, "max_leaves": 10 if grown == "lossguide" else 0}
    _, whole = trained(scheduled, [(NAMES,)], parameters)
    (_, end) = name_of_sum(whole, lost_before)
    models, changed = trained(scheduled, [(NAMES, end), (WITHOUT_COAST, None)], parameters)
    assert "coast is lost" in str(models.pop("coast"))
    (model,) = set(models.values())
    trees = json.loads(bytes(xgboost.Booster(model_file=bytearray(model)).save_raw("json")))
    trees = trees["learner"]["gradient_booster"]["model"]["trees"]
    assert len(trees) == ROUNDS
    leaves = [tree["left_children"].count(-1) for tree in trees]
    if lost_before == "round 1/tree 0.0/2":
        assert leaves[1] < leaves[0] and leaves[1] <= (4 if grown == "depthwise" else 8)
    first_without = "round 1/scores" if lost_before == "round 1/tree 0.0/2" else lost_before
    assert changed.names[1, 0].endswith(first_without)
    assert len(set(changed.names.values())) == len(changed.names)  # no sum was made twice


def test_a_member_that_comes_back_joins_the_next_tree_and_ends_with_the_others_model(scheduled):
    _, whole = trained(scheduled, [(NAMES,)])
    (_, end) = name_of_sum(whole, "round 1/tree 0.0/2")
    models, changed = trained(scheduled, [(NAMES, end), (WITHOUT_COAST, 3), (NAMES, None)])
    assert set(models) == set(NAMES) and len(set(models.values())) == 1
    assert changed.names[1, 1].endswith("round 2/tree 0.0/0") and changed.names[2, 0].endswith("round 2/scores")


def test_gradients_beyond_the_agreed_power_are_cut_off_and_do_not_wrap(scheduled):
    squared = {"objective": "reg:squarederror", "max_depth": 3, "eta": 0.5}
    _, whole = trained(scheduled, [(NAMES,)], squared, scale={"coast": 1e6})
    (_, end) = name_of_sum(whole, "round 0/scores")
    stages = [(NAMES, end), (WITHOUT_COAST, 1), (NAMES, None)]
    models, changed = trained(scheduled, stages, squared, scale={"coast": 1e6})
    assert changed.names[2, 0].endswith("round 1/tree 0.0/0")  # its scale was agreed without coast
    assert len(set(models.values())) == 1
    ((_, root),) = [item for item in changed.own.items() if item[0] == ("coast", changed.names[2, 0])]
    gradients = root.reshape(-1, 2)[:, 0]
    signs = {place: np.sign(value) for place, value in enumerate(gradients) if value}
    _, honest = trained(scheduled, [(NAMES,)], squared, scale={"coast": 1e6})
    expected = honest.own["coast", changed.names[2, 0]].reshape(-1, 2)[:, 0]
    agreeing = np.mean([signs.get(place, 0) == np.sign(value) for place, value in enumerate(expected) if value])
    assert agreeing > 0.8 and np.abs(gradients).max() <= 400 << 30


# ---- the rule ----


def manifest(**changes):
    members = tuple(Member(name=name, key=f"{place:064x}") for place, name in enumerate(NAMES, 1))
    told = {"run": "r", "hub": "00" * 32, "members": members, "spec": "00" * 32, "contract": "11" * 32, "code": "test"}
    return Manifest(**{**told, "when_lost": "go_on", "minimum_members": 3, **changes})


def test_what_follows_is_the_same_manifest_without_who_was_lost():
    root = manifest()
    after = following(root, root, ["coast"], [])
    assert after.run == "r.1" and after.names == WITHOUT_COAST and after.root == "r"
    assert after.continues == (Stage(run="r", manifest=root.digest().hex()),)
    again = following(root, after, [], ["coast"])
    assert again.run == "r.2" and again.names == NAMES and len(again.continues) == 2
    assert misfit(root, after) == misfit(root, again) == ""


def test_no_run_goes_on_with_fewer_members_than_were_signed_for():
    root = manifest()
    with pytest.raises(ValueError, match="2 members are left, and it needs 3 to go on"):
        following(root, root, ["coast", "valley"], [])
    with pytest.raises(ValueError, match="did not sign for going on"):
        following(manifest(when_lost="suspend"), root, ["coast"], [])
    with pytest.raises(ValueError, match="minimum_members below 3 needs allow_two_parties"):
        manifest(minimum_members=2)


def test_a_manifest_that_changes_more_than_members_is_named():
    root = manifest()
    after = following(root, root, ["coast"], [])
    assert "changes more" in misfit(root, after.model_copy(update={"grace_seconds": 1}))
    assert "was signed here" in misfit(manifest(code="other"), after)
    stranger = (*after.members, Member(name="zoo", key="ee" * 32))
    assert "zoo did not sign" in misfit(root, after.model_copy(update={"members": stranger}))
    assert "it has 2 members" in misfit(root, after.model_copy(update={"members": after.members[:2]}))


def test_before_the_first_tree_a_replay_does_not_pass_from_one_stage_to_the_next():
    replay = Replay([2], [2])
    assert [replay.next(), replay.next()] == [(0, 0), (0, 1)]
    with pytest.raises(ValueError, match="before the first tree"):
        replay.next()
    replay.may_change = True
    assert replay.next() is None and replay.live


# ---- what it gives away ----


def test_the_next_root_without_a_member_taken_from_the_last_with_it_is_nearly_its_own(scheduled):
    """docs/security.md quotes these numbers."""
    _, whole = trained(scheduled, [(NAMES,)])
    (_, end) = name_of_sum(whole, "round 3/tree 0.0/2")
    _, changed = trained(scheduled, [(NAMES, end), (WITHOUT_COAST, None)])
    last, following_ = (name_of_sum(changed, f"round {round_}/tree 0.0/0") for round_ in (3, 4))
    difference = (changed.totals[last] - changed.totals[following_]).reshape(-1, 2).astype(float)
    own = changed.own["coast", changed.names[last]].reshape(-1, 2).astype(float)
    alike = [float(np.corrcoef(difference[:, kind], own[:, kind])[0, 1]) for kind in (0, 1)]
    assert alike[0] > 0.97 and alike[1] > 0.99, alike  # gradients, hessians
