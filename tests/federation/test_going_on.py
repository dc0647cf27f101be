"""Going on without a lost member asks the own rules first; what they refuse costs no run."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from lepton_pipelines.cli.app import app
from lepton_pipelines.federation.changing import go_on, stage_of_now, stands_still_again
from lepton_pipelines.federation.grpc_member import RunSuspended
from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.manifest import Member
from lepton_pipelines.federation.runs import connect, decline, propose, staged
from lepton_pipelines.federation.succession import following
from lepton_pipelines.spec.hub import Hub
from lepton_pipelines.spec.organisation import Policy

LEFT = ("harbour", "north")
POLICY = Policy(minimum_members=2)


@pytest.fixture
def run(hub_of_three):
    """A run of three over data products, who all sign for going on with two after six seconds (signs of life: five)."""
    for home in hub_of_three.homes.values():
        for other in hub_of_three.homes.values():
            if other is not home:
                asked = other.request()
                home.trust(asked.model_dump_json().encode(), fingerprint=asked.fingerprint)
    members = tuple(Member(name=m.name, key=m.key, product=f"{m.name}/rows") for m in hub_of_three.manifest.members)
    changes = {"run": "r", "members": members, "when_lost": "go_on", "minimum_members": 2, "grace_seconds": 6}
    return type(hub_of_three.manifest).model_validate(
        {**hub_of_three.manifest.model_dump(), **changes, "allow_two_parties": True}
    )


@pytest.fixture
def pipeline(hub_of_three):
    hub = Hub(hub=f"localhost:{hub_of_three.port}", when_lost="go_on", minimum_members=2, grace_seconds=6)
    return SimpleNamespace(federation=hub, publisher="north", name="test")


def suspended(hub_of_three, run, pipeline):
    """Begin the run with all three, beyond its first tree, and lose valley."""
    propose(run, hub_of_three.homes["north"], address=pipeline.federation.hub)
    joined = {
        name: staged(connect("r", home, policy=POLICY, address=pipeline.federation.hub), home)
        for name, home in hub_of_three.homes.items()
    }
    for sums in joined.values():
        sums.wait_until_ready(30)
        sums.let_members_change()
    pending = [sums.start("a", np.ones(3, np.int64), bound=3) for sums in joined.values()]
    assert all(one.result().tolist() == [3, 3, 3] for one in pending)
    joined["valley"].close()
    for one in [joined[name].start("b", np.ones(3, np.int64), bound=3) for name in LEFT]:
        with pytest.raises(RunSuspended, match="valley did not come back"):
            one.result()
    for sums in joined.values():
        sums.close()


def states(hub_of_three, name="north"):
    with closing(hub_of_three.connect(name)) as connection:
        return {one.run: one.status for one in connection.runs()}


def resumed_by_all(hub_of_three, pipeline):
    """The total of the next sum, at each of the three, once valley is back."""
    stages = {
        name: stage_of_now("r", home, pipeline, policy=POLICY, tell=None)
        for name, home in sorted(hub_of_three.homes.items(), reverse=True)
    }
    assert set(stages.values()) == {"r"}
    joined = [
        staged(connect("r", home, policy=POLICY, address=pipeline.federation.hub), home)
        for home in hub_of_three.homes.values()
    ]
    for sums in joined:
        sums.wait_until_ready(30)
    for name in ("a", "b"):
        pending = [sums.start(name, np.ones(3, np.int64), bound=3) for sums in joined]
        assert all(one.result().tolist() == [3, 3, 3] for one in pending)
    for sums in joined:
        sums.close()


def test_what_the_own_rules_forbid_is_not_proposed_and_the_run_can_be_resumed_by_all(hub_of_three, run, pipeline):
    earlier = run.model_copy(update={"run": "earlier", "when_lost": "suspend", "minimum_members": 3})
    for name, home in hub_of_three.homes.items():
        with closing(RunHistory(home.folder)) as history:
            history.signed(earlier, name)
    suspended(hub_of_three, run, pipeline)
    shown = CliRunner().invoke(app, ["hub", "status", "--home", str(hub_of_three.hub.folder)]).output
    assert "  run r: suspended: waits for valley, key epoch 1; " in shown
    told = []
    assert not go_on("r", hub_of_three.homes["north"], pipeline, policy=POLICY, tell=told.append)
    assert "cannot go on without valley: north refuses run r.1: its members differ from those of run earlier" in told[0]
    assert states(hub_of_three) == {"r-7f3a": "inviting", "r": "suspended"}
    assert not stands_still_again("r", hub_of_three.homes["north"], pipeline)
    resumed_by_all(hub_of_three, pipeline)


def test_a_member_that_refuses_to_go_on_costs_the_others_no_run(hub_of_three, run, pipeline):
    suspended(hub_of_three, run, pipeline)
    assert go_on("r", hub_of_three.homes["north"], pipeline, policy=POLICY, tell=lambda _: None)
    assert stage_of_now("r", hub_of_three.homes["north"], pipeline, policy=POLICY, tell=None) == "r.1"
    after = following(run, run, ["valley"], [])
    with closing(hub_of_three.connect("harbour")) as connection:
        decline(after, hub_of_three.homes["harbour"], connection, "harbour refuses run r.1")
    assert states(hub_of_three) == {"r-7f3a": "inviting", "r": "suspended", "r.1": "aborted"}
    assert stands_still_again("r", hub_of_three.homes["north"], pipeline)
    told = []
    assert not go_on("r", hub_of_three.homes["harbour"], pipeline, policy=POLICY, tell=told.append)
    assert told == ["run r cannot go on without valley: harbour refuses run r.1"]
    resumed_by_all(hub_of_three, pipeline)
