"""How an organisation's part finds its sums: in this process by the run's id, or at a hub.

In one process a flow opens a run, every organisation's part joins it, whoever opened it closes it. With a hub one
member proposes the run and each connects to it, once its own rules allow that.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from lepton_pipelines.federation.in_process import InProcessFederation, InProcessSums
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.home_rules import RunHistory
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import Kind, Manifest
    from lepton_pipelines.federation.stages import StagedSums
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.organisation import Policy
    from lepton_pipelines.spec.pipeline import Pipeline

PATIENCE = 15.0  # seconds after which a hub that was not there at all counts as down
_lock = threading.Lock()
_runs: dict[str, InProcessFederation] = {}
_at_hubs: dict[tuple[str, str], "StagedSums"] = {}


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


def join(run_id: str, member: str) -> "InProcessSums | StagedSums":
    """Return the member's sums in a run that was opened in this process, or that this process has joined at a hub.

    Raises UserError if no such run is open here, or if it does not know the member.
    """
    with _lock:
        federation, at_hub = _runs.get(run_id), _at_hubs.get((run_id, member))
    if at_hub is not None:
        return at_hub
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


@contextmanager
def joined_run(
    run_id: str,
    home: "OrganisationHome",
    *,
    policy: "Policy",
    pipeline: "Pipeline",
    kind: "Kind" = "training",
    manifest: "Manifest | None" = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator["StagedSums"]:
    """Be in a run at a hub for the length of a block, where `join` finds it; one that is new to the hub is proposed.

    A run whose members changed is joined as what it goes on as. kind: what is done there; a run of another kind is
    refused. manifest: what is proposed, if not what follows from the pipeline. tell: is told in a sentence whom the run
    waits for.
    Raises UserError if the organisation's own rules or the hub refuse it, or if another process is in it already.
    """
    from lepton_pipelines.federation.changing import stage_of_now
    from lepton_pipelines.federation.home_rules import RunHistory
    from lepton_pipelines.federation.proposal import hub_of, proposed_manifest

    with only_process(run_id, home):
        address = hub_of(pipeline).hub
        if not is_known(run_id, home, address=address):
            proposed = manifest or proposed_manifest(pipeline, home, run_id, kind)
            with closing(RunHistory(home.folder)) as history:  # nobody is invited to what this home itself refuses
                accept(proposed, home, policy=policy, history=history, pipeline=pipeline, kind=kind)
            try:
                propose(proposed, home, address=address)
            except UserError:
                # Another member, started at the same moment, was first: its manifest is checked like an invitation.
                if not is_known(run_id, home, address=address):
                    raise
        stage = stage_of_now(run_id, home, pipeline, policy=policy, tell=tell)
        live = connect(stage, home, policy=policy, address=address, pipeline=pipeline, kind=kind, tell=tell)
        with staged(live, home) as sums:
            key = (run_id, home.organisation)
            with _lock:
                _at_hubs[key] = sums
            try:
                yield sums
            finally:
                with _lock:
                    del _at_hubs[key]


def staged(live: "HubSums", home: "OrganisationHome") -> "StagedSums":
    """Return the sums of a run from its first stage on. live: of the stage of now."""
    from lepton_pipelines.federation.stages import StagedSums

    manifest = live.manifest
    earlier = [home.run_folder(stage.run) for stage in manifest.continues]
    return StagedSums(live, earlier, folder=home.run_folder(manifest.run), root=home.run_folder(manifest.root))


@contextmanager
def only_process(run_id: str, home: "OrganisationHome") -> Iterator[None]:
    """Hold an organisation's part of a run for this process: two would show two keys for one epoch.

    Raises UserError if another process holds it.
    """
    path = home.run_folder(run_id) / "lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{home.organisation}: another process on this machine takes part in run {run_id} already "
                "(lepton org serve, or another lepton run). Let it finish, or stop it first."
            ) from None
        yield
    finally:
        os.close(file)


def is_held(run_id: str, home: "OrganisationHome") -> bool:
    """Whether a process on this machine takes part in the run for this organisation."""
    path = home.folder / "runs" / run_id / "lock"
    if not path.exists():
        return False
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def connect(
    run_id: str,
    home: "OrganisationHome",
    *,
    policy: "Policy",
    address: str | None = None,
    pipeline: "Pipeline | None" = None,
    kind: "Kind" = "training",
    tell: Callable[[str], None] | None = None,
) -> "HubSums":
    """Join a run at the hub: check its manifest against this organisation's own rules, sign it, and return its sums.

    home: the organisation's folder with its keys and the hub's admission. policy: what it lets happen with its rows.
    address: where the hub is dialled, if not where its admission says. pipeline: the organisation's own copy; a
    manifest for another one, or another kind of run, is refused. tell: is told in a sentence whom the run waits for.
    Raises UserError if the rules refuse it (the other members are told) or if there is no such run. The sums are to be
    closed; use them as a context manager, so that an error here is told to the other members.
    """
    from importlib.metadata import version

    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.home_rules import RowGuard, RunHistory
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.journal import JournalFailedError

    name = home.organisation
    connection = HubConnection(home.credentials(), address=address, patience=PATIENCE)
    try:
        connection.hello(version("lepton-pipelines"))
        manifest = manifest_of(connection, run_id)
        with closing(RunHistory(home.folder)) as history:
            accept(manifest, home, policy=policy, history=history, pipeline=pipeline, kind=kind, connection=connection)
            history.signed(manifest, name)
        connection.patience = float(manifest.grace_seconds)
        guard = RowGuard.of(home.folder, manifest, name)
        return HubSums(connection, manifest, name, home.signer(), home.run_folder(run_id), tell=tell, guard=guard)
    except JournalFailedError as error:
        connection.close()
        raise UserError(f"{name}: {error}. Nothing was sent. Give write permission or space there.") from error
    except BaseException:
        connection.close()
        raise


def accept(
    manifest: "Manifest",
    home: "OrganisationHome",
    *,
    policy: "Policy",
    history: "RunHistory",
    pipeline: "Pipeline | None",
    kind: "Kind" = "training",
    connection: "HubConnection | None" = None,
) -> None:
    """Check an invitation against the organisation's own rules. connection: where one that they refuse is declined.

    kind: what is to be done here.

    Raises UserError with every reason, which is noted at home and, with a connection, told to the other members.
    """
    from lepton_pipelines.federation.home_rules import check_invitation
    from lepton_pipelines.federation.proposal import differences
    from lepton_pipelines.spec.algorithm_code import code_refusals

    name, signer = home.organisation, home.signer()
    try:
        check_invitation(
            manifest,
            organisation=name,
            keys={**home.trusted(), name: signer.public},
            hub_key=home.credentials().hub_key,
            policy=policy,
            history=history,
            further=()
            if pipeline is None
            else (*differences(manifest, pipeline, name, kind), *code_refusals(policy, pipeline.training.algorithm)),
        )
    except UserError as error:
        if connection is not None and manifest.keys.get(name) == signer.public:
            decline(manifest, home, connection, str(error))
        raise


def decline(manifest: "Manifest", home: "OrganisationHome", connection: "HubConnection", reason: str) -> None:
    """Tell the other members, signed, that this organisation does not take part: they need not wait for it."""
    from lepton_pipelines.federation.effects import Say
    from lepton_pipelines.federation.envelope import Author, Slot
    from lepton_pipelines.federation.wire import federation_pb2 as wire

    author = Author(manifest.run, home.organisation, home.signer())
    body = wire.Abort(reason=reason[:4000]).SerializeToString()
    connection.abort(Say(author.state(Slot(0, wire.KIND_ABORT, 0), body)))


def is_known(run_id: str, home: "OrganisationHome", *, address: str | None = None) -> bool:
    """Whether the hub has a run of this id that this organisation is a member of."""
    from lepton_pipelines.federation.hub_connection import HubConnection

    connection = HubConnection(home.credentials(), address=address, patience=PATIENCE)
    try:
        return any(one.run == run_id for one in connection.runs())
    finally:
        connection.close()


def invitation(run_id: str, home: "OrganisationHome", *, address: str | None = None) -> "Manifest | None":
    """Return the manifest of a run that this organisation is a member of; None if the hub has none of this id."""
    from lepton_pipelines.federation.hub_connection import HubConnection

    connection = HubConnection(home.credentials(), address=address, patience=PATIENCE)
    try:
        known = any(one.run == run_id for one in connection.runs())
        return manifest_of(connection, run_id) if known else None
    finally:
        connection.close()


def propose(manifest: "Manifest", home: "OrganisationHome", *, address: str | None = None) -> None:
    """Open a run at the hub, which invites its members. Raises UserError if the hub refuses it."""
    from importlib.metadata import version

    from lepton_pipelines.federation.calling_off import note_proposed
    from lepton_pipelines.federation.hub_connection import HubConnection

    connection = HubConnection(home.credentials(), address=address, patience=PATIENCE)
    try:
        connection.hello(version("lepton-pipelines"))
        connection.propose(manifest)
    finally:
        connection.close()
    note_proposed(home, manifest.run)


def manifest_of(connection: "HubConnection", run_id: str) -> "Manifest":
    """Return the manifest that the hub shows for a run. Raises UserError if it is another run's, or none."""
    from lepton_pipelines.federation.manifest import read_manifest

    manifest = read_manifest(connection.look(run_id).manifest)
    if manifest.run != run_id:
        raise UserError(f"the hub shows the manifest of run {manifest.run} for run {run_id}.")
    return manifest


def forget_totals(run_id: str, home: "OrganisationHome") -> None:
    """Delete the totals of a run that is over here: nobody will ask for them again. What was signed stays."""
    from lepton_pipelines.federation.changing import stages_here
    from lepton_pipelines.federation.journal import RunJournal

    for stage in stages_here(run_id, home):
        journal = RunJournal(home.run_folder(stage))
        journal.drop_totals(journal.done)
        journal.close()
