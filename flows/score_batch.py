"""A batch of an organisation's rows, scored by a registered model on the organisation's own Dask cluster."""

from pathlib import Path

from prefect import flow
from pydantic import PositiveInt

from flows.promote import tracking_of
from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.registry.scoring import Scored
from lepton_pipelines.spec.organisation import read_organisation
from tasks import scoring as tasks


@flow(name="score-batch", flow_run_name="{model} at {source}", persist_result=False)
def score_batch(
    model: str,
    organisation: Path,
    source: str,
    target: str,
    version: PositiveInt | None = None,
    var: Path = Path("var"),
) -> Scored:
    """Score an organisation's parquet files; started again, it goes on where it was, and leaves alone what is done.

    Args:
        model: The registered model.
        organisation: File of the organisation whose rows they are: its storage, its Dask cluster, its MLflow.
        source: A parquet file, a folder or a pattern, a path or s3://bucket/folder/.
        target: Folder for the scored files, outside of the source.
        version: The model's version; empty for the champion.
        var: Where MLflow's records are, if the organisation's file names no server.
    """
    own = read_organisation(organisation)
    tracking = tracking_of(organisation, var)
    number = None if version is None else str(version)
    batch = tasks.find_model(tracking, model, number, own, source, target)
    with open_cluster(own.compute, organisation=own.organisation) as client:
        scored = tasks.score(batch, client)
    tasks.show_scores(batch, scored)
    return scored
