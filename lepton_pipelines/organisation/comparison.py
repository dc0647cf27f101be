"""What a demo compares the federation with: each organisation alone, and all rows in one place. Stock XGBoost both.

Only where the rows are public and all organisations live in one process: for the pooled model the rows do leave
their organisations. A spec that asks for it with a hub is refused when it is read.

The pooled model is grown by XGBoost on the federation's bin edges. XGBoost makes its own edges, and where a column
has no more values than bins, one bin a value, beginning at the value. So every value is replaced by the lower end
of its bin: the cuts are then our edges, which is checked, and the trees hold for the rows as they are.
"""

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.model_file import booster_of, read_model
from lepton_pipelines.boosting.tree import Tree
from lepton_pipelines.data.encoding import Encoded
from lepton_pipelines.evaluation.result import TreesEqual
from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.algorithms import train_here, uses_engine
from lepton_pipelines.organisation.evaluating import Contender
from lepton_pipelines.organisation.models import first_rounds
from lepton_pipelines.organisation.rows import TakeRows
from lepton_pipelines.organisation.wire import gather
from lepton_pipelines.spec.booster_parameters import BoosterParameters

if TYPE_CHECKING:
    from lepton_pipelines.organisation.run import OrganisationRun

Float32Array = NDArray[np.float32]

# Leaves are sums of many gradients, ours of fixed-point ones: 24 bits of the largest.
LEAF_TOLERANCE = 1e-4
SAMPLING = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")


@dataclass
class Compared:
    """The other models, and whether the pooled trees are the federation's."""

    contenders: list[Contender] = field(default_factory=list)
    trees_equal: TreesEqual | None = None


def compare(part: "OrganisationRun") -> Compared:
    """Train the other models that the spec asks for and hand them to everybody."""
    told, found = part.pipeline.comparison, Compared()
    sets = [
        Encoded.joined([taken[name] for taken in part.rows.ask(TakeRows(("train", "valid")))])
        for name in ("train", "valid")
    ]
    members, publisher = part.pipeline.members, part.pipeline.publisher
    engine, algorithm = uses_engine(part.pipeline), part.pipeline.training.algorithm
    if told.alone:
        mine = train_alone(part, *sets) if engine else train_here(part, sets[0])
        alone = gather(part.sums, "comparison/alone", member=part.name, members=members, document=mine)
        found.contenders += [Contender(f"{name} alone", "alone", model, algorithm) for name, model in alone.items()]
    if told.pooled:
        rows = gather(part.sums, "comparison/rows", member=part.name, members=members, document=_packed(sets[0]))
        document = b""
        if part.publishes:
            everybody = Encoded.joined([_unpacked(packed) for packed in rows.values()])
            document = _pooled(part, everybody) if engine else b"null\n" + train_here(part, everybody)
        told_by = gather(part.sums, "comparison/pooled", member=part.name, members=members, document=document)
        header, _, model = told_by[publisher].partition(b"\n")
        equal = json.loads(header)
        found.trees_equal = None if equal is None else TreesEqual.model_validate(equal)
        found.contenders.append(Contender("pooled", "pooled", model, algorithm))
    return found


def train_alone(part: "OrganisationRun", train: Encoded, valid: Encoded) -> bytes:
    """Train stock XGBoost on this organisation's own rows, on its own Dask cluster; return the model file."""
    import dask.array as da
    import xgboost
    import xgboost.dask

    client, training = part.client, part.pipeline.training
    names, types = list(part.features.names), list(part.features.types)

    def dealt(values: Float32Array, chunk: int) -> Any:
        return da.from_array(values, chunks=(chunk, *values.shape[1:]))  # type: ignore[no-untyped-call]

    def matrix(rows: Encoded) -> Any:
        chunk = max(1, -(-len(rows) // part.summary.workers))
        return xgboost.dask.DaskDMatrix(
            client,
            dealt(rows.X, chunk),
            dealt(rows.label, chunk),
            weight=None if rows.weight is None else dealt(rows.weight, chunk),
            feature_names=names,
            feature_types=types,
            enable_categorical=True,
        )

    watched = len(valid) > 0 and training.early_stopping_rounds is not None
    with client.as_current(), xgboost.config_context(verbosity=0):
        trained = xgboost.dask.train(
            client,
            stock_parameters(part.parameters, part.threads),
            matrix(train),
            num_boost_round=training.rounds,
            evals=[(matrix(valid), "valid")] if watched else [],
            early_stopping_rounds=training.early_stopping_rounds if watched else None,
            verbose_eval=False,
        )
    booster = trained["booster"]
    if watched:
        booster = booster[: booster.best_iteration + 1]
    return bytes(booster.save_raw("ubj"))


def _pooled(part: "OrganisationRun", rows: Encoded) -> bytes:
    """Train on all rows with the federation's edges; return what is known of the trees, and the model file."""
    import xgboost

    model = train_pooled(part.parameters, rows, part.binning, part.boosted.rounds, part.features, part.threads)
    sampled = any(getattr(part.parameters, name) < 1 for name in SAMPLING)
    equal = None
    if not sampled and part.pipeline.training.start == "anew":
        equal = compare_trees(part.boosted.model, model, rows.X, f"XGBoost {xgboost.__version__}")
        if not equal.equal:
            message = f"{equal.trees - equal.trees_equal} of {equal.trees} trees differ from stock XGBoost's"
            progress.tell(part.folder.run_id, progress.Notice(part.name, message))
    rounds = min(part.boosted.rounds, len(read_model(part.model).rounds) - 1)
    header = json.dumps(None if equal is None else equal.model_dump())
    return header.encode() + b"\n" + first_rounds(model, rounds)


def train_pooled(
    parameters: BoosterParameters, rows: Encoded, binning: Binning, rounds: int, features: Any, threads: int
) -> bytes:
    """Train stock XGBoost on rows with given edges; return the model file.

    Raises ValueError if XGBoost's cuts are not those edges.
    """
    import xgboost

    matrix = xgboost.QuantileDMatrix(
        on_edges(rows.X, binning),
        rows.label,
        weight=rows.weight,
        max_bin=int(binning.bins.max()) + 1,
        feature_names=list(features.names),
        feature_types=list(features.types),
        enable_categorical=True,
        nthread=threads,
    )
    _check_cuts(matrix, binning)
    stock = {**stock_parameters(parameters, threads), "max_bin": int(binning.bins.max()) + 1, "verbosity": 0}
    booster = xgboost.train(stock, matrix, num_boost_round=rounds)
    return bytes(booster.save_raw("ubj"))


def on_edges(values: Float32Array, binning: Binning) -> Float32Array:
    """Replace every number by the lower end of its bin; in the first bin by something below the first edge."""
    mapped = values.copy()
    for column in range(values.shape[1]):
        if binning.categorical[column]:
            continue
        edges = np.asarray(binning.edges[column], np.float32)
        lower = np.concatenate([[edges[0] - np.float32(1) - abs(edges[0])], edges[:-1]]).astype(np.float32)
        held = ~np.isnan(values[:, column])
        places = np.searchsorted(edges, values[held, column], side="right")
        mapped[held, column] = lower[np.minimum(places, len(edges) - 1)]
    return mapped


def _check_cuts(matrix: Any, binning: Binning) -> None:
    """Compare XGBoost's cuts with the edges: all but each column's first (a lower end) and last (above all rows)."""
    indptr, cuts = matrix.get_quantile_cut()
    for column in range(binning.features):
        if binning.categorical[column]:
            continue
        own = np.asarray(binning.edges[column], np.float32)[:-1]
        theirs = cuts[indptr[column] : indptr[column + 1]][1:-1]
        if not np.array_equal(theirs, own):
            raise ValueError(f"XGBoost cuts column {column} at {theirs}, not at the federation's edges {own}")


def compare_trees(federated: bytes, pooled: bytes, values: Float32Array, reference: str) -> TreesEqual:
    """Compare two models tree by tree: splits exactly, leaves and margins within what fixed point allows.

    values: float32, (rows, features), rows on which margins are compared.
    """
    import xgboost

    ours, theirs = read_model(federated).trees, read_model(pooled).trees
    highest = np.fmax.reduce(values, axis=0)
    equal = sum(same_tree(one, other, highest) for one, other in zip(ours, theirs, strict=False))
    margins = []
    for model in (federated, pooled):
        booster = booster_of(model)
        rows = xgboost.DMatrix(
            values,
            feature_names=booster.feature_names,
            feature_types=booster.feature_types,
            enable_categorical=True,
        )
        margins.append(booster.predict(rows, output_margin=True))
    trees = max(len(ours), len(theirs))
    return TreesEqual(
        equal=equal == trees,
        trees_equal=equal,
        trees=trees,
        largest_margin_difference=float(np.abs(margins[0] - margins[1]).max(initial=0)),
        reference=f"{reference}, hist, pooled rows, same edges",
    )


def same_tree(one: Tree, other: Tree, highest: Float32Array) -> bool:
    """Tell whether two trees split alike everywhere and end in the same leaves, however their nodes are numbered.

    highest: float32, (features,), each column's largest value. Above it every threshold splits alike: all that is
    there from all that is missing. XGBoost writes a number of its own there, the federation knows no largest value.
    """
    pairs = [(0, 0)]
    while pairs:
        a, b = pairs.pop()
        if (one.left[a] < 0) != (other.left[b] < 0):
            return False
        if one.left[a] < 0:
            if not np.isclose(one.threshold[a], other.threshold[b], rtol=LEAF_TOLERANCE, atol=LEAF_TOLERANCE / 100):
                return False
            continue
        if one.feature[a] != other.feature[b] or one.default_left[a] != other.default_left[b]:
            return False
        categories, others = one.categories.get(a), other.categories.get(b)
        if (categories is None) != (others is None):
            return False
        if categories is not None and others is not None:
            if sorted(map(int, categories)) != sorted(map(int, others)):
                return False
        elif one.threshold[a] != other.threshold[b] and not (
            min(one.threshold[a], other.threshold[b]) > highest[one.feature[a]]
        ):
            return False
        pairs += [(int(one.left[a]), int(other.left[b])), (int(one.right[a]), int(other.right[b]))]
    return True


def stock_parameters(parameters: BoosterParameters, threads: int) -> dict[str, Any]:
    """Return the parameters as `xgboost.train` takes them; what the user left open stays XGBoost's to choose."""
    told = parameters.model_dump(exclude_unset=True, exclude_none=True)
    for name in ("verbosity", "validate_parameters", "disable_default_eval_metric"):
        told.pop(name, None)
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
    if isinstance(told.get("base_score"), list) and len(told["base_score"]) == 1:
        told["base_score"] = told["base_score"][0]
    return {**told, "tree_method": "hist", "nthread": threads, "verbosity": 0}


def _packed(rows: Encoded) -> bytes:
    file = io.BytesIO()
    weight = np.zeros(0, np.float32) if rows.weight is None else rows.weight
    np.savez(file, allow_pickle=False, X=rows.X, label=rows.label, weight=weight, row_id=rows.row_id)
    return file.getvalue()


def _unpacked(data: bytes) -> Encoded:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        weight = file["weight"]
        return Encoded(file["X"], file["label"], weight if len(weight) else None, file["row_id"])
