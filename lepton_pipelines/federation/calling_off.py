"""A run that is called off where it was begun: a signed abort for everyone, whatever the run's own sums are doing."""

from contextlib import closing
from typing import TYPE_CHECKING

from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.federation.manifest import read_manifest
from lepton_pipelines.federation.runs import decline
from lepton_pipelines.identity.private_files import write_private

if TYPE_CHECKING:
    from lepton_pipelines.identity.organisation_home import OrganisationHome

_PROPOSED = "proposed-here"  # in the run's folder
_PATIENCE = 2.0  # seconds: the process that asks for this has hardly more


def note_proposed(home: "OrganisationHome", run_id: str) -> None:
    """Write down that this organisation has proposed a run."""
    path = home.run_folder(run_id) / _PROPOSED
    if not path.exists():
        write_private(path, b"")


def was_proposed_from(home: "OrganisationHome", run_id: str) -> bool:
    """Whether this organisation has proposed the run, from this folder."""
    return (home.folder / "runs" / run_id / _PROPOSED).exists()


def call_off(run_id: str, home: "OrganisationHome", reason: str, *, address: str | None = None) -> list[str]:
    """End a run for every member, with a signed reason that they are shown; return which of its stages that were.

    Over a connection of its own: the process's sums may be busy, or closed already. A run that is over stays as it is.
    Raises UserError if the hub cannot be reached.
    """
    ended = []
    with closing(HubConnection(home.credentials(), address=address, patience=_PATIENCE)) as connection:
        for one in connection.runs_under_way():
            manifest = read_manifest(one.manifest)
            if manifest.root == run_id:
                decline(manifest, home, connection, reason)
                ended.append(manifest.run)
    return ended
