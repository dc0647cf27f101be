"""Which folder holds an organisation's keys."""

from pathlib import Path

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation


def home_of(own: Organisation, home: Path | None) -> OrganisationHome:
    """Return the folder with an organisation's keys: the one named, or the one in its file, or ./organisation.

    Raises UserError if it is another organisation's.
    """
    found = OrganisationHome(home or Path(own.identity or "organisation"))
    if found.organisation != own.organisation:
        raise UserError(
            f"{found.folder} holds the keys of {found.organisation}, but the file is {own.organisation}'s. "
            "Name the folder with --home, or as identity in the organisation's file."
        )
    return found
