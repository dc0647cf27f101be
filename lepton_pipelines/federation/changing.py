"""Going on with other members, between one stage of a run and the next: what a member asks of its hub and its folder.

The rule itself is in `succession.py`, what is added up again in `stages.py`.
"""

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.hub import ABORTED, CONTINUED, RUNNING, SUSPENDED
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.federation.manifest import Manifest, read_manifest
from lepton_pipelines.federation.proposal import hub_of
from lepton_pipelines.federation.stages import may_change
from lepton_pipelines.federation.succession import following
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.private_files import write_private
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy
from lepton_pipelines.spec.pipeline import Pipeline

if TYPE_CHECKING:
    from lepton_pipelines.identity.organisation_home import OrganisationHome

Tell = Callable[[str], None]
STAGES_FILE = "stages.json"
_LOOK_SECONDS = 1.0
_SETTLE_SECONDS = 30.0  # in which a hub that is there has noticed what a member noticed
_PATIENCE = 15.0


def stages_here(run_id: str, home: "OrganisationHome") -> list[str]:
    """Return the ids of a run's stages as this organisation last knew them; its own alone if its members stayed."""
    path = home.run_folder(run_id) / STAGES_FILE
    return list(json.loads(path.read_bytes())) if path.exists() else [run_id]


def stage_of_now(
    run_id: str, home: "OrganisationHome", pipeline: Pipeline, *, policy: Policy, tell: Tell | None
) -> str:
    """Return the id of the stage that a run is in, with this organisation among its members.

    Waits, if the run went on without it, until the others have let it in. Raises UserError if they have ended the run
    meanwhile, RunSuspended if they do not let it in within the grace time.
    """
    from lepton_pipelines.federation.grpc_member import RunSuspended

    hub = hub_of(pipeline)
    if hub.when_lost == "suspend":
        return run_id
    with closing(HubConnection(home.credentials(), address=hub.hub, patience=_PATIENCE)) as connection:
        end, told = time.monotonic() + hub.grace_seconds + _SETTLE_SECONDS, False
        while True:
            newest = _newest(connection, run_id)
            if newest.status == SUSPENDED and (newest.lost or newest.returning):
                _propose_following(connection, run_id, newest, home, pipeline, policy, tell)
                newest = _newest(connection, run_id)
            if newest.status != CONTINUED:
                break
            refused = connection.come_back(newest.run)
            if refused:
                raise UserError(f"{home.organisation}: {refused}. There is nothing to come back to.")
            if not told and tell is not None:
                tell(f"run {run_id} goes on without {home.organisation}, which is back and waits to be let in")
            told = True
            if time.monotonic() > end:
                raise RunSuspended(
                    f"run {run_id} goes on as {newest.successor} without {home.organisation}, which was not let in "
                    f"again. Try once more with: lepton run --resume {run_id}"
                )
            time.sleep(_LOOK_SECONDS)
    stages = [stage.run for stage in read_manifest(newest.manifest).continues]
    write_private(home.run_folder(run_id) / STAGES_FILE, json.dumps([*stages, newest.run]).encode(), replace=True)
    return str(newest.run)


def go_on(run_id: str, home: "OrganisationHome", pipeline: Pipeline, *, policy: Policy, tell: Tell) -> bool:
    """Tell whether a run that stands still is to be joined again: with the members that are left, or that came back.

    If so, the manifest of these members stands at the hub.
    """
    hub = hub_of(pipeline)
    if hub.when_lost == "suspend":
        return False
    latest = stages_here(run_id, home)[-1]
    with closing(HubConnection(home.credentials(), address=hub.hub, patience=_PATIENCE)) as connection:
        end = time.monotonic() + _SETTLE_SECONDS
        while (status := connection.look(latest)).status == RUNNING and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        if status.status == CONTINUED:
            return True
        if status.status != SUSPENDED or not (status.lost or status.returning):
            return False
        return _propose_following(connection, run_id, status, home, pipeline, policy, tell)


def stands_still_again(run_id: str, home: "OrganisationHome", pipeline: Pipeline) -> bool:
    """Tell whether a run was to go on and a member refused: then the run before can still be resumed by all."""
    hub, latest = hub_of(pipeline), stages_here(run_id, home)[-1]
    if latest == run_id:
        return False
    with closing(HubConnection(home.credentials(), address=hub.hub, patience=_PATIENCE)) as connection:
        newest = _newest(connection, run_id)
    return newest.run != latest and newest.status == SUSPENDED


def _newest(connection: HubConnection, run_id: str) -> wire.RunStatus:
    """Return the last stage of a run that this organisation is a member of, whatever its state.

    One that a member refused to sign is none: the run before it can still be resumed by all its members.
    """
    runs = connection.runs()
    stages = [(read_manifest(one.manifest), one) for one in runs]
    went_on = {one.run for one in runs if one.status == CONTINUED}
    own = [
        (len(manifest.continues), one)
        for manifest, one in stages
        if manifest.root == run_id
        and (one.status != ABORTED or not manifest.continues or manifest.continues[-1].run in went_on)
    ]
    return max(own, key=lambda each: each[0])[1]


def _propose_following(
    connection: HubConnection,
    run_id: str,
    latest: wire.RunStatus,
    home: "OrganisationHome",
    pipeline: Pipeline,
    policy: Policy,
    tell: Tell | None,
) -> bool:
    """Propose to go on without who was lost; False, saying why, if that is not possible."""
    lost, returning = list(latest.lost), list(latest.returning)
    if home.organisation in lost or not may_change(home.run_folder(run_id)):
        return False  # from before the first tree on only the same members can resume
    root = read_manifest(connection.look(run_id).manifest)
    manifest, why = None, f"{pipeline.publisher} is to register the model"
    if pipeline.publisher not in lost:
        try:
            manifest = following(root, read_manifest(latest.manifest), lost, returning)
            _check(manifest, home, policy)
            _check_not_refused(connection, manifest)
        except (ValueError, UserError) as error:
            manifest, why = None, str(error).removesuffix(".")
    if manifest is None:
        if tell is not None:
            changed = f"without {', '.join(lost)}" if lost else f"with {', '.join(returning)} again"
            tell(f"run {run_id} cannot go on {changed}: {why}")
        return False
    if tell is not None:
        what = f"without {', '.join(lost)}" if lost else f"with {', '.join(returning)} again"
        tell(f"run {run_id} goes on {what}, as {manifest.run} of {', '.join(manifest.names)}")
    connection.propose(manifest)
    return True


def _check_not_refused(connection: HubConnection, manifest: Manifest) -> None:
    """Raise ValueError, with the reason, if this stage was proposed before and a member refused it."""
    for one in connection.runs():
        if one.run == manifest.run and one.status == ABORTED:
            raise ValueError(one.reason)


def _check(manifest: Manifest, home: "OrganisationHome", policy: Policy) -> None:
    """Refuse members that this home's own rules do not allow, before the others are asked. Raises UserError."""
    from lepton_pipelines.federation.runs import accept

    with closing(RunHistory(home.folder)) as history:
        accept(manifest, home, policy=policy, history=history, pipeline=None, kind=manifest.kind)
