"""The runs of a contribution report: one with all members, and one more without each in turn.

The totals of two such runs, subtracted, are nearly the left-out one's own, so they happen only where every member
signed for them beforehand (`contribution` in the manifest): first all sign the whole run, then those that are left sign
each run without somebody. That one differs from the whole run's manifest in its id, its members and in `series`, which
names the whole run, and in nothing else: every member writes the same bytes. docs/security.md says what it gives away.
No I/O in here.
"""

from lepton_pipelines.federation.manifest import LONGEST_RUN, Manifest, Stage
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import FEWEST_FOR_CONTRIBUTION


def left_out(whole: Manifest, name: str) -> Manifest:
    """Return the manifest of the run without one of the members of a contribution report's whole run.

    Raises UserError if the run is none of which somebody can be left out.
    """
    if whole.kind != "contribution" or whole.series is not None:
        raise UserError(f"run {whole.run} is no contribution report: nobody is left out of it.")
    if len(whole.names) < FEWEST_FOR_CONTRIBUTION or name not in whole.names:
        raise UserError(f"run {whole.run} of {', '.join(whole.names)} is not repeated without {name}.")
    run = f"{whole.run}-without-{name}"
    if len(run) > LONGEST_RUN:
        raise UserError(f"{run} is too long for a run's id, which has up to {LONGEST_RUN} characters. Name it shorter.")
    changes = {
        "run": run,
        "members": tuple(member for member in whole.members if member.name != name),
        "series": Stage(run=whole.run, manifest=whole.digest().hex()),
    }
    return Manifest.model_validate({**whole.model_dump(), **changes})


def misfit(whole: Manifest, manifest: Manifest) -> str:
    """Say why a manifest is not that of a run of this contribution report without one member; empty if it is."""
    absent = [name for name in whole.names if name not in manifest.names]
    try:
        fits = len(absent) == 1 and left_out(whole, absent[0]) == manifest
    except UserError as error:
        return str(error).removesuffix(".")
    return "" if fits else f"it changes more of the manifest of run {whole.run} than to leave one member out"


def trainings(manifest: Manifest) -> int:
    """Return as how many runs a manifest counts for each of its members: a report's as all that follow from it."""
    if manifest.series is not None:
        return 0
    return {"training": 1, "watch": 0, "contribution": len(manifest.names)}[manifest.kind]
