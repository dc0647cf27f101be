"""Models between an organisation's own MLflow registry and the market: offered from it, and pulled into it."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from lepton_pipelines.ledger.lineage import Lineage, trace
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.models import ALGORITHM, Card, CardColumn, ModelOffer, model_file, offer_model
from lepton_pipelines.market.place import Place
from lepton_pipelines.organisation.outcome import SPEC_FILE, input_column
from lepton_pipelines.registry.champion import load_version
from lepton_pipelines.registry.promotion import promote
from lepton_pipelines.registry.publishing import Publication, Published, publish
from lepton_pipelines.registry.signature import InputColumn
from lepton_pipelines.registry.tracking import Tracking, quiet_logging
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline, parse_pipeline


def offer_from_registry(
    place: Place, tracking: Tracking, name: str, version: int, *, licence: str, title: str, description: str
) -> str:
    """Offer a version of this organisation's own registry, with its columns and the scores that the ledger has.

    Raises UserError if it is not there, was not published in the ledger, or is no stock XGBoost model.
    """
    found = load_version(tracking, name, str(version))
    if found.algorithm != ALGORITHM:
        raise MarketRefused(
            f"{name} v{version} is a model of algorithm {found.algorithm}; only stock XGBoost models are offered, "
            "which anyone can read without our code."
        )
    pipeline = _spec(tracking, name, version)
    contract = pipeline.read_contract()
    known = place.history().runs.versions.get((name, version))
    run = None if known is None else place.history().runs.by_id.get(known.published.run)
    if run is None:
        raise MarketRefused(f"the ledger does not know {name} v{version}: it was published without it.")
    scores = {metric: score for _, evaluation in run.evaluations for metric, score in evaluation.metrics.items()}
    card = Card(
        title=title,
        description=description,
        licence=licence,
        objective=str(getattr(pipeline.training, "objective", "")),
        label=pipeline.training.label,
        columns=[CardColumn.model_validate(_plain(input_column(column))) for column in contract.features],
        scores=scores,
        run=run.opened.run,
        members=run.members,
    )
    return offer_model(place, name, version, found.model, card)


def pull(
    place: Place, ledger: Path, tracking: Tracking, offer: ModelOffer, *, licence: str | None = None
) -> tuple[Published, Lineage]:
    """Verify a model on offer in this organisation's own copy of the ledger, and register it here with its origin.

    ledger: the replica, verified in full. Returns the version in the own registry and what was proved of it. Pulled
    again, it is the same version. licence: what it must be, if given. Raises UserError if it has another one, or if its
    file is not the one in the ledger.
    """
    card = offer.card
    if licence is not None and card.licence != licence:
        raise MarketRefused(f"{offer.id} has the licence {card.licence}, you asked for {licence}. Nothing was pulled.")
    model = model_file(place, offer)
    _check_readable(model, offer)
    name = offer.id.split("/")[1]
    lineage = trace(verify_ledger(ledger), name, offer.version, digest_of(model))
    published = publish(
        tracking,
        Publication(
            run_id=f"pulled-{offer.id.replace('/', '-')}-{offer.version}",
            experiment=f"pulled-{name}",
            registered_model=offer.id.replace("/", "."),
            model=model,
            columns=[
                InputColumn(
                    column.name, column.kind, column.missing, tuple(column.categories), column.minimum, column.maximum
                )
                for column in card.columns
            ],
            description=f"{card.title}. Pulled from {offer.id} v{offer.version}, licence {card.licence}, trained by "
            f"{', '.join(card.members)} in run {card.run}.",
            scores=card.scores,
            files={"lineage.txt": "\n".join([*lineage.proved, "", "not proved:", *lineage.not_proved]) + "\n"},
            tags={
                "lepton.origin": f"{offer.id}/{offer.version}",
                "lepton.licence": card.licence,
                "lepton.ledger_entry": str(offer.index),
            },
        ),
    )
    return published, lineage


def use(tracking: Tracking, published: Published, offer: ModelOffer, *, by: str) -> str:
    """Make a pulled version the champion of its name here; return by what it is found from now on."""
    why = f"pulled from {offer.id} v{offer.version}"
    promote(tracking, published.registered_model, published.version, reason=why, by=by)
    return "@champion"


def _check_readable(model: bytes, offer: ModelOffer) -> None:
    """Refuse a file that XGBoost does not read."""
    import xgboost

    try:
        xgboost.Booster(model_file=bytearray(model))
    except xgboost.core.XGBoostError as error:
        raise MarketRefused(
            f"the file of {offer.id} v{offer.version} is no model that XGBoost {xgboost.__version__} reads. Nothing "
            "was pulled; ask who offers it."
        ) from error


def _spec(tracking: Tracking, name: str, version: int) -> Pipeline:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="lepton-") as folder, tracking.as_current(), quiet_logging():
        try:
            run = tracking.client().get_model_version(name, str(version)).run_id
            path = download_artifacts(artifact_uri=f"runs:/{run}/{SPEC_FILE}", dst_path=folder)
            return parse_pipeline(json.loads(Path(path).read_bytes()), name=f"the spec of {name} v{version}")
        except (MlflowException, OSError, ValueError) as error:
            raise UserError(f"{name} v{version}: the spec that it was trained with cannot be read: {error}") from error


def _plain(column: InputColumn) -> dict[str, object]:
    told = asdict(column)
    return {**told, "categories": list(column.categories)}
