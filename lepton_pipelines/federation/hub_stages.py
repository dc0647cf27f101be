"""Which runs a hub takes, and which of them go on as others, with other members."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lepton_pipelines.federation.hub import CONTINUED, RUNNING, SUSPENDED
from lepton_pipelines.federation.manifest import PROTOCOLS, Manifest
from lepton_pipelines.federation.succession import misfit
from lepton_pipelines.identity.hub_home import AdmittedMember
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.grpc_hub import LiveRun


def check_proposal(
    manifest: Manifest,
    member: str,
    *,
    hub: bytes,
    known: Callable[[str], AdmittedMember | None],
    runs: "Mapping[str, LiveRun]",
) -> None:
    """Refuse a run of strangers, for another hub or in another protocol.

    member: who proposes it. hub: its key. known: tells whom the hub admitted. runs: all of the hub's, by id.
    Raises UserError.
    """
    if member not in manifest.names:
        raise UserError(f"{member} proposes a run that it is not a member of.")
    if bytes.fromhex(manifest.hub) != hub:
        raise UserError("the manifest names another hub's key.")
    if not PROTOCOLS[0] <= manifest.protocol <= PROTOCOLS[1]:
        raise UserError(f"the manifest is for protocol {manifest.protocol}, the hub speaks {PROTOCOLS}.")
    for name, key in manifest.keys.items():
        admitted = known(name)
        if admitted is None or admitted.revoked:
            raise UserError(f"{name} is not admitted to this hub. Its operator can admit it: lepton hub admit")
        if admitted.signing_key != key:
            raise UserError(f"the manifest has another key for {name} than the hub admitted.")
    if manifest.continues:
        _check_successor(runs, manifest)


def _check_successor(runs: "Mapping[str, LiveRun]", manifest: Manifest) -> None:
    """Refuse a manifest that goes on from a run that does not stand still, or leaves somebody out who is here."""
    first, last = (runs.get(stage.run) for stage in (manifest.continues[0], manifest.continues[-1]))
    if first is None or last is None or last.machine.manifest.digest().hex() != manifest.continues[-1].manifest:
        raise UserError(f"the hub has no run {manifest.continues[-1].run} with this manifest to go on from.")
    root, before = first.machine, last.machine
    if before.state not in (SUSPENDED, CONTINUED):
        raise UserError(f"run {before.manifest.run} is {before.state}: its members stay as they are.")
    problem = misfit(root.manifest, manifest)
    if problem:
        raise UserError(f"run {manifest.run}: {problem}.")
    here = [name for name in before.manifest.names if name not in manifest.names and name not in before.lost]
    if here:
        raise UserError(f"{', '.join(here)} is not lost, and would be left out of run {manifest.run}.")


def note_successor(runs: "Mapping[str, LiveRun]", live: "LiveRun") -> None:
    """Close the runs that one goes on from, once all its members have signed."""
    if live.machine.state == RUNNING:
        for stage in live.machine.manifest.continues:
            runs[stage.run].change(lambda machine, _: machine.continued(live.machine.manifest.run))


def concerns(runs: "Mapping[str, LiveRun]", live: "LiveRun", member: str) -> bool:
    """Whether there is something for a member to do in a run: it is under way, or went on without the member."""
    if live.machine.state != CONTINUED:
        return live.is_under_way()
    newest = _newest(runs, live)
    return newest.is_under_way() and member not in newest.machine.manifest.names


def back_again(runs: "Mapping[str, LiveRun]", live: "LiveRun", member: str) -> str:
    """Let a member that joins a run which went on without it be taken in again; return why that is of no use."""
    if live.machine.state != CONTINUED:
        return ""
    newest = _newest(runs, live)
    if not newest.is_under_way():
        run, after = live.machine.manifest.run, newest.machine
        return f"run {run} went on as run {after.manifest.run}, which is {after.state}"
    if member not in newest.machine.manifest.names:
        newest.change(lambda machine, now: machine.welcome(now, member))
    return ""


def _newest(runs: "Mapping[str, LiveRun]", live: "LiveRun") -> "LiveRun":
    while live.machine.state == CONTINUED:
        live = runs[live.machine.successor]
    return live
