"""Work of the compute pool, done in its owner's own Prefect work pool: what is asked of one offer under a reservation.

Who reserves computers never speaks to this Prefect server. A job is a document in the ledger; the owner's own
deployment of this flow, with the owner's own code, looks for jobs and does them.
"""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from lepton_pipelines.data.storage import open_url
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.market.place import Place
from lepton_pipelines.organisation.market_place import HubMarket, LocalMarket
from lepton_pipelines.pool.offers import OfferFile
from lepton_pipelines.pool.serving import serve_once
from lepton_pipelines.pool.work import Bench
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.yaml_file import read_model


@flow(name="pool-jobs", flow_run_name="{name}", persist_result=False)
def pool_jobs(
    name: str, offer: Path, home: Path | None = None, var: Path = Path("var"), mlflow: str | None = None
) -> list[str]:
    """Do what is asked of an offer of one's own and not done yet; return the jobs that ended.

    Args:
        name: The organisation that offers; its own.
        offer: The offer's file.
        home: The folder with the organisation's keys, whose hub holds the market; empty for a market in a folder.
        var: Without home: the folder where runs and records are kept.
        mlflow: For scoring; empty: below var.
    """
    place: Place = LocalMarket(var, name) if home is None else HubMarket(OrganisationHome(home))
    kept, jobs = (var, var / "pool" / name) if home is None else (home, home / "pool")
    bench = Bench(place, kept / "products", open_url, lambda: open_tracking(mlflow, folder=var.absolute()))
    done = serve_once(bench, read_model(OfferFile, offer), jobs, get_run_logger().info)
    if done:
        lines = [{"job": one.job, "outcome": one.outcome, "core-seconds": round(one.core_seconds, 3)} for one in done]
        create_table_artifact(lines, key="pool-jobs", description="Work that was asked for under reservations")
    return [one.job for one in done]
