"""How an organisation's part finds its sums: in this process by the run's id, or at a hub.

In one process a flow opens a run, every organisation's part joins it, whoever opened it closes it. With a hub one
member proposes the run and each connects to it, once its own rules allow that.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lepton_pipelines.federation.in_process import InProcessFederation, InProcessSums
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import Manifest
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.organisation import Policy

_lock = threading.Lock()
_runs: dict[str, InProcessFederation] = {}


def open_run(run_id: str, members: Sequence[str], *, allow_two_parties: bool = False) -> InProcessFederation:
    """Begin an in-process run under this id.

    Raises UserError if the id is taken, or if there are too few members.
    """
    federation = InProcessFederation(members, allow_two_parties=allow_two_parties, run=run_id)
    with _lock:
        if run_id in _runs:
            raise UserError(f"run {run_id} is already open in this process. Close it, or give the new run its own id.")
        _runs[run_id] = federation
    return federation


def join(run_id: str, member: str) -> InProcessSums:
    """Return the member's sums in an open run.

    Raises UserError if no such run is open here, or if it does not know the member.
    """
    with _lock:
        federation = _runs.get(run_id)
    if federation is None:
        raise UserError(
            f"{member}: run {run_id} is not open in this process. In-process runs live where they were opened; for "
            "organisations in processes of their own set federation: {hub: host:port}."
        )
    if member not in federation.members:
        raise UserError(f"{member} is not a member of run {run_id}: {', '.join(federation.members)} are.")
    return federation.sums(member)


def close_run(run_id: str, *, reason: str | None = None) -> None:
    """End a run; members that still wait get SumAborted with the reason. A run that is not open stays so."""
    with _lock:
        federation = _runs.pop(run_id, None)
    if federation is not None:
        if reason is not None:
            federation.abort(reason)
        federation.close()


@contextmanager
def opened_run(
    run_id: str, members: Sequence[str], *, allow_two_parties: bool = False
) -> Iterator[InProcessFederation]:
    """Open a run for the length of a block."""
    federation = open_run(run_id, members, allow_two_parties=allow_two_parties)
    try:
        yield federation
    except BaseException as error:
        close_run(run_id, reason=f"{type(error).__name__}: {error}")
        raise
    finally:
        close_run(run_id)


def connect(
    run_id: str,
    home: "OrganisationHome",
    *,
    policy: "Policy",
    address: str | None = None,
    spec: bytes | None = None,
) -> "HubSums":
    """Join a run at the hub: check its manifest against this organisation's own rules, sign it, and return its sums.

    home: the organisation's folder with its keys and the hub's admission. policy: what it lets happen with its rows.
    address: where the hub is dialled, if not where its admission says. spec: digest of the organisation's own copy of
    the pipeline; a manifest for another one is refused.
    Raises UserError if the rules refuse it or there is no such run. The sums are to be closed; use them as a context
    manager, so that an error here is told to the other members.
    """
    from importlib.metadata import version

    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.home_rules import RunHistory, check_invitation
    from lepton_pipelines.federation.hub_connection import HubConnection

    credentials, signer, name = home.credentials(), home.signer(), home.organisation
    connection = HubConnection(credentials, address=address)
    try:
        connection.hello(version("lepton-pipelines"))
        manifest = _manifest_of(connection, run_id)
        history = RunHistory(home.folder)
        try:
            check_invitation(
                manifest,
                organisation=name,
                keys={**home.trusted(), name: signer.public},
                hub_key=credentials.hub_key,
                policy=policy,
                history=history,
                spec=spec,
            )
            history.signed(manifest, name)
        finally:
            history.close()
        connection.patience = float(manifest.grace_seconds)
        return HubSums(connection, manifest, name, signer, home.run_folder(run_id))
    except BaseException:
        connection.close()
        raise


def propose(manifest: "Manifest", home: "OrganisationHome", *, address: str | None = None) -> None:
    """Open a run at the hub, which invites its members. Raises UserError if the hub refuses it."""
    from importlib.metadata import version

    from lepton_pipelines.federation.hub_connection import HubConnection

    connection = HubConnection(home.credentials(), address=address)
    try:
        connection.hello(version("lepton-pipelines"))
        connection.propose(manifest)
    finally:
        connection.close()


def _manifest_of(connection: "HubConnection", run_id: str) -> "Manifest":
    from lepton_pipelines.federation.manifest import read_manifest

    manifest = read_manifest(connection.look(run_id).manifest)
    if manifest.run != run_id:
        raise UserError(f"the hub shows the manifest of run {manifest.run} for run {run_id}.")
    return manifest
