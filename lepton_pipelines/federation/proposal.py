"""From a pipeline to the manifest that every member signs, and back: whether a manifest is that of one's own copy."""

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from lepton_pipelines.federation.manifest import Kind, Manifest, Member
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.hub import Hub
from lepton_pipelines.spec.pipeline import FEWEST_FOR_CONTRIBUTION, Pipeline
from lepton_pipelines.spec.training import Training

if TYPE_CHECKING:
    from lepton_pipelines.identity.organisation_home import OrganisationHome


def proposed_manifest(pipeline: Pipeline, home: "OrganisationHome", run: str, kind: Kind = "training") -> Manifest:
    """Say what every member is to sign: the pipeline, what is done with it, and the keys that were compared here.

    Raises UserError, naming every organisation whose key was not compared here yet, or if the pipeline names no hub or
    does not ask for what is to be done.
    """
    if kind == "contribution" and not pipeline.contribution.report:
        raise UserError(nobody_signed(pipeline))
    hub = hub_of(pipeline)
    keys = {**home.trusted(), home.organisation: home.signer().public}
    if home.organisation not in pipeline.members:
        raise UserError(f"{pipeline.name} does not name {home.organisation} among its organisations.")
    strangers = [name for name in pipeline.members if name not in keys]
    if strangers:
        raise UserError(
            [
                f"{name}'s key was never compared here: ask {name} for its request file and its fingerprint, then run "
                f"lepton org trust {name}.request"
                for name in strangers
            ]
        )
    return Manifest(
        run=run,
        kind=kind,
        pipeline=pipeline.name,
        hub=home.admission().hub_key,
        members=tuple(
            Member(name=name, key=keys[name].hex(), product=product_of(pipeline, name)) for name in pipeline.members
        ),
        spec=pipeline.digest().hex(),
        contract=pipeline.read_contract().agreement().hex(),
        code=version("lepton-pipelines"),
        algorithm=pipeline.training.algorithm,
        parameters=limited(pipeline),
        allow_two_parties=pipeline.allow_two_parties,
        grace_seconds=hub.grace_seconds,
        when_lost=hub.when_lost,
        minimum_members=hub.minimum_members,
        contribution=pipeline.contribution.report,
        created=int(time.time()),
    )


def nobody_signed(pipeline: Pipeline) -> str:
    """Say what to do where a contribution report is asked for and the pipeline does not allow it."""
    return (
        f"{pipeline.name}: nobody signed for a contribution report. Write contribution: {{report: true}} in the "
        f"pipeline, with at least {FEWEST_FOR_CONTRIBUTION} organisations, and policy: {{contribution: true}} in "
        "each organisation's file."
    )


def hub_of(pipeline: Pipeline) -> Hub:
    """Return the hub that a pipeline names. Raises UserError if it runs in one process."""
    if isinstance(pipeline.federation, Hub):
        return pipeline.federation
    raise UserError(
        f"{pipeline.name}: federation is in-process. Over machines write federation: {{hub: host:port}} and list the "
        "organisations' names."
    )


def product_of(pipeline: Pipeline, organisation: str) -> str:
    """Return the id of the data product that an organisation trains on: its own rows under the contract's id."""
    return f"{organisation}/{pipeline.read_contract().id}"


def limited(pipeline: Pipeline) -> dict[str, int | str | bool]:
    """Return the parameters that policies limit. An algorithm that grows no trees has depth 1 and one bin."""
    training = pipeline.training
    depth, bins = (training.max_depth, training.max_bin) if isinstance(training, Training) else (1, 1)
    limits: dict[str, int | str | bool] = {"max_depth": depth, "rounds": training.rounds, "max_bin": bins}
    if isinstance(pipeline.federation, Hub) and pipeline.federation.pad_levels:
        limits["pad_levels"] = True
    return limits


def differences(manifest: Manifest, pipeline: Pipeline, organisation: str, kind: Kind = "training") -> list[str]:
    """Say in what a manifest is not that of this organisation's own copy of the pipeline; empty if it is.

    kind: what is to be done here.
    """
    found = []
    if manifest.kind != kind:
        found.append(f"it is a {manifest.kind}, not a {kind}")
    if manifest.spec != pipeline.digest().hex():
        found.append("its specification is not the one that stands here: compare the two pipeline files")
    if manifest.contract != pipeline.read_contract().agreement().hex():
        found.append("its contract is not the one that stands here: compare the two contract files")
    if manifest.parameters != limited(pipeline) or manifest.algorithm != pipeline.training.algorithm:
        found.append("its parameters are not those of the pipeline that stands here")
    if manifest.products.get(organisation) != product_of(pipeline, organisation):
        found.append(f"it calls {organisation}'s data product something else than {product_of(pipeline, organisation)}")
    if manifest.contribution != pipeline.contribution.report:
        found.append("it says something else than the pipeline of contribution reports")
    if manifest.names != tuple(pipeline.members) and not manifest.continues and manifest.series is None:
        found.append(f"its members are {', '.join(manifest.names)}, the pipeline's {', '.join(pipeline.members)}")
    if manifest.allow_two_parties != pipeline.allow_two_parties:
        found.append("it is for two parties, the pipeline is not")
    if manifest.code != (mine := version("lepton-pipelines")):
        found.append(
            f"it is for lepton-pipelines {manifest.code}, and here is {mine}: other code may grow another model. "
            f"Install the same everywhere (pip install lepton-pipelines=={manifest.code}), then start the run again"
        )
    if isinstance(pipeline.federation, Hub):
        lost = pipeline.federation.when_lost, pipeline.federation.minimum_members
        if (manifest.when_lost, manifest.minimum_members) != lost:
            found.append("it says something else than the pipeline of what happens when an organisation is lost")
    if pipeline.publisher not in manifest.names and manifest.series is None:
        found.append(f"{pipeline.publisher}, which is to register the model, is not among its members")
    return found
