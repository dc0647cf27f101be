"""XGBoost's model files: trees, base score, objective and columns, written and read as stock XGBoost does.

The bytes are made here, not by the XGBoost that happens to be installed: organisations with different releases get
the same file. They follow XGBoost's documented model schema as of 3.2, the oldest release that the files are for,
and any later release loads them. Read is whatever 3.2 or later wrote, JSON or UBJSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_pipelines.boosting.tree import NONE, Tree
from lepton_pipelines.boosting.ubjson import read_ubjson, write_ubjson
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    import xgboost

FORMAT = (3, 2, 0)
"""The XGBoost release whose file format is written, and the oldest that is read."""

_NO_PARENT = 2147483647
_DELETED = 2147483647  # XGBoost's mark, as the column of a node that pruning took away
_INT64_NAMES = 15  # how XGBoost marks category names that are whole numbers
_PLAIN = "reg_loss_param"
_OBJECTIVE_PARAMETERS = {
    "reg:squarederror": _PLAIN,
    "reg:logistic": _PLAIN,
    "binary:logistic": _PLAIN,
    "binary:logitraw": _PLAIN,
    "reg:gamma": _PLAIN,
    "reg:tweedie": "tweedie_regression_param",
    "count:poisson": "poisson_regression_param",
    "reg:quantileerror": "quantile_loss_param",
    "reg:pseudohubererror": "pseudo_huber_param",
    "multi:softmax": "softmax_multiclass_param",
    "multi:softprob": "softmax_multiclass_param",
}

CategoryNames = Sequence[str] | Sequence[int]


@dataclass(frozen=True)
class Model:
    """What a model file holds.

    trees: in the order of the file. rounds: where each round's trees begin and the last ends, rounds + 1 entries.
    base_score: float32 values as XGBoost stores them: a probability for logistic objectives, a mean for those with a
        logarithmic link, margins for multi-class; one an output, or one for all.
    objective: its name. objective_parameters: its parameters, as text, by XGBoost's names.
    num_class: 0 unless multi-class. num_target: the number of quantiles of reg:quantileerror, else 1.
    n_features, feature_names, feature_types: the columns; empty if they have no names or types.
    category_names: for each column the names behind its codes, in order of the codes; empty for numbers, and empty
        altogether if no column has names.
    num_parallel_tree: trees of each output and round.
    attributes: free text by name; `best_iteration` and `best_score` are XGBoost's own.
    """

    trees: Sequence[Tree]
    base_score: tuple[float, ...]
    objective: str
    n_features: int
    rounds: Sequence[int]
    objective_parameters: Mapping[str, str] = field(default_factory=dict)
    num_class: int = 0
    num_target: int = 1
    feature_names: Sequence[str] = ()
    feature_types: Sequence[str] = ()
    category_names: Sequence[CategoryNames] = ()
    num_parallel_tree: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Margins a row."""
        return max(self.num_class, self.num_target, 1)


def model_of(
    parameters: BoosterParameters,
    trees: Sequence[Tree],
    base_score: Sequence[float],
    *,
    n_features: int,
    feature_names: Sequence[str] = (),
    feature_types: Sequence[str] = (),
    category_names: Sequence[CategoryNames] = (),
    attributes: Mapping[str, str] | None = None,
) -> Model:
    """Put a trained model together; every round has the trees of all outputs, times num_parallel_tree."""
    multi_class = parameters.num_class > 1 or parameters.objective.startswith("multi:")
    levels = len(parameters.quantile_levels)
    a_round = max(parameters.num_class, levels, 1) * parameters.num_parallel_tree
    if len(trees) % a_round:
        raise ValueError(f"{len(trees)} trees are not whole rounds of {a_round}")
    return Model(
        trees=trees,
        base_score=tuple(float(np.float32(value)) for value in base_score),
        objective=parameters.objective,
        n_features=n_features,
        rounds=range(0, len(trees) + 1, a_round),
        objective_parameters=_objective_parameters(parameters),
        num_class=parameters.num_class if multi_class else 0,
        num_target=levels or 1,
        feature_names=feature_names,
        feature_types=feature_types,
        category_names=category_names,
        num_parallel_tree=parameters.num_parallel_tree,
        attributes=attributes or {},
    )


def _objective_parameters(parameters: BoosterParameters) -> dict[str, str]:
    """The parameters that XGBoost keeps with an objective, written as it writes them."""
    group = _OBJECTIVE_PARAMETERS.get(parameters.objective)
    if group == _PLAIN:
        return {"scale_pos_weight": _text(parameters.scale_pos_weight)}
    if group == "tweedie_regression_param":
        return {"tweedie_variance_power": _text(parameters.tweedie_variance_power)}
    if group == "poisson_regression_param":
        step = 0.7 if parameters.max_delta_step is None else parameters.max_delta_step
        return {"max_delta_step": _text(step)}
    if group == "quantile_loss_param":
        return {"quantile_alpha": _vector(parameters.quantile_levels)}
    if group == "pseudo_huber_param":
        return {"huber_slope": _text(parameters.huber_slope)}
    if group == "softmax_multiclass_param":
        return {"num_class": str(parameters.num_class)}
    return {}


def _text(value: float) -> str:
    """The shortest text that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="-")


def _vector(values: Sequence[float]) -> str:
    numbers = (np.format_float_scientific(np.float32(v), unique=True, trim="-", exp_digits=1) for v in values)
    return f"[{','.join(number.replace('e', 'E').replace('E+', 'E') for number in numbers)}]"


def write_model(model: Model) -> bytes:
    """Encode a model as UBJSON: the same bytes for the same model, whatever releases are installed."""
    for name, entries in (("feature_names", model.feature_names), ("feature_types", model.feature_types)):
        if entries and len(entries) != model.n_features:
            raise ValueError(f"{len(entries)} {name} for {model.n_features} columns")
    objective: dict[str, Any] = {"name": model.objective}
    if model.objective in _OBJECTIVE_PARAMETERS:
        objective[_OBJECTIVE_PARAMETERS[model.objective]] = dict(model.objective_parameters)
    document = {
        "learner": {
            "attributes": {str(key): str(value) for key, value in model.attributes.items()},
            "feature_names": list(model.feature_names),
            "feature_types": list(model.feature_types),
            "gradient_booster": {
                "model": {
                    "cats": _write_categories(model.category_names),
                    "gbtree_model_param": {
                        "num_parallel_tree": str(model.num_parallel_tree),
                        "num_trees": str(len(model.trees)),
                    },
                    "iteration_indptr": [int(place) for place in model.rounds],
                    "tree_info": [tree.class_index for tree in model.trees],
                    "trees": [_write_tree(tree, place, model.n_features) for place, tree in enumerate(model.trees)],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": _vector(model.base_score),
                "boost_from_average": "1",
                "num_class": str(model.num_class),
                "num_feature": str(model.n_features),
                "num_target": str(model.num_target),
            },
            "objective": objective,
        },
        "version": list(FORMAT),
    }
    return write_ubjson(document)


def _write_tree(tree: Tree, place: int, n_features: int) -> dict[str, Any]:
    nodes = sorted(tree.categories)
    sets = [np.asarray(tree.categories[node], np.int32) for node in nodes]
    sizes = np.array([len(codes) for codes in sets], np.int64)
    categorical = np.zeros(len(tree), np.uint8)
    categorical[nodes] = 1
    return {
        "base_weights": tree.base_weight.astype(np.float32, copy=False),
        "categories": np.concatenate(sets) if sets else np.zeros(0, np.int32),
        "categories_nodes": np.array(nodes, np.int32),
        "categories_segments": np.cumsum(sizes) - sizes,
        "categories_sizes": sizes,
        "default_left": tree.default_left.astype(np.uint8),
        "id": place,
        "left_children": tree.left,
        "loss_changes": tree.gain,
        "parents": np.where(tree.parent == NONE, _NO_PARENT, tree.parent).astype(np.int32),
        "right_children": tree.right,
        "split_conditions": np.nan_to_num(tree.threshold, nan=0.0, posinf=np.inf, neginf=-np.inf),
        "split_indices": tree.feature,
        "split_type": categorical,
        "sum_hessian": tree.hessian,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(n_features),
            "num_nodes": str(len(tree)),
            "size_leaf_vector": "1",
        },
    }


def _write_categories(names: Sequence[CategoryNames]) -> dict[str, Any]:
    encoded, order = [], []
    for column in names:
        if len(column) and all(isinstance(name, (int, np.integer)) for name in column):
            encoded.append({"type": _INT64_NAMES, "values": np.array(column, np.int64)})
            order.append(np.argsort(np.array(column, np.int64), kind="stable"))
        else:
            # XGBoost 3.2 cuts letters beyond ASCII in two; what it wrote is kept as it is.
            texts = [str(name).encode(errors="surrogateescape") for name in column]
            offsets = np.cumsum([0, *map(len, texts)]) if texts else np.zeros(0)
            values = np.frombuffer(b"".join(texts), np.int8)
            encoded.append({"offsets": offsets.astype(np.int32), "values": values})
            # XGBoost compares the bytes as signed characters: letters beyond ASCII come first.
            signed = [np.frombuffer(text, np.int8).tolist() for text in texts]
            order.append(np.array(sorted(range(len(signed)), key=signed.__getitem__), np.int64))
    segments = np.cumsum([0, *map(len, names)]) if names else np.zeros(0)
    return {
        "enc": encoded,
        "feature_segments": segments.astype(np.int32),
        "sorted_idx": np.concatenate(order).astype(np.int32) if order else np.zeros(0, np.int32),
    }


def read_model(source: "bytes | bytearray | str | Path | xgboost.Booster") -> Model:
    """Read a model file, its bytes (JSON or UBJSON), or a Booster.

    Raises UserError for files of releases before 3.2, for other boosters than gbtree, for trees whose leaves are
    vectors, and for damaged files; each names what was found and what to do.
    """
    document = _read_document(source)
    try:
        version = tuple(int(part) for part in document["version"])
        if version < FORMAT:
            raise UserError(
                f"the model was written by XGBoost {'.'.join(map(str, version))}; {'.'.join(map(str, FORMAT[:2]))} is "
                "the oldest that is read. Load it with a newer XGBoost and save it again."
            )
        return _read_learner(document["learner"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"the model lacks something that XGBoost's model files have ({type(error).__name__}: {error}): "
            "it is damaged, or not a model of XGBoost."
        ) from error


def _read_document(source: Any) -> Any:
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise UserError(f"there is no model file {path}.")
        source = path.read_bytes()
    elif hasattr(source, "save_raw"):
        source = source.save_raw("ubj")
    data = bytes(source)
    if not data.startswith(b"{"):
        raise UserError(
            "the model is neither JSON nor UBJSON. Models in XGBoost's old binary format must be loaded with an old "
            "XGBoost and saved as .ubj or .json."
        )
    if data[1:].lstrip()[:1] not in (b'"', b"}"):
        return read_ubjson(data)
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError(f"the model is not whole JSON: {error}.") from error


def _read_learner(learner: Mapping[str, Any]) -> Model:
    booster = learner["gradient_booster"]
    # XGBoost 3.4 writes dart as gbtree with a weight for each tree.
    dropped = any(float(weight) != 1 for weight in booster.get("model", {}).get("weight_drop", ()))
    if booster["name"] != "gbtree" or dropped:
        raise UserError(
            f"the model's booster is {'dart' if dropped else booster['name']}; training goes on from gbtree only. "
            "Train it anew with booster=gbtree."
        )
    trees = booster["model"]
    settings, objective = learner["learner_model_param"], learner["objective"]
    info = [int(output) for output in trees["tree_info"]]
    rounds = trees.get("iteration_indptr")
    score = json.loads(settings["base_score"].lower())
    return Model(
        trees=[_read_tree(tree, output) for tree, output in zip(trees["trees"], info, strict=True)],
        base_score=tuple(float(np.float32(value)) for value in (score if isinstance(score, list) else [score])),
        objective=str(objective["name"]),
        n_features=int(settings["num_feature"]),
        rounds=[int(place) for place in rounds],
        objective_parameters=dict(objective.get(_OBJECTIVE_PARAMETERS.get(objective["name"], ""), {})),
        num_class=int(settings["num_class"]),
        num_target=int(settings.get("num_target", 1)),
        feature_names=[str(name) for name in learner.get("feature_names", ())],
        feature_types=[str(kind) for kind in learner.get("feature_types", ())],
        category_names=_read_categories(trees.get("cats")),
        num_parallel_tree=int(trees["gbtree_model_param"]["num_parallel_tree"]),
        attributes={str(key): str(value) for key, value in learner.get("attributes", {}).items()},
    )


def _read_tree(stored: Mapping[str, Any], output: int) -> Tree:
    if int(stored["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise UserError(
            "the model's leaves are vectors (multi_strategy=multi_output_tree), which is not supported. "
            "Train it anew with one_output_per_tree."
        )
    left = np.asarray(stored["left_children"], np.int32)
    parent = np.asarray(stored["parents"], np.int32)
    feature = np.asarray(stored["split_indices"], np.int32)
    segments = np.asarray(stored["categories_segments"], np.int64)
    ends = segments + np.asarray(stored["categories_sizes"], np.int64)
    codes = np.asarray(stored["categories"], np.int32)
    nodes = np.asarray(stored["categories_nodes"], np.int32)
    tree = Tree(
        left=left,
        right=np.asarray(stored["right_children"], np.int32),
        parent=np.where(parent == _NO_PARENT, NONE, parent).astype(np.int32),
        feature=feature,
        threshold=np.asarray(stored["split_conditions"], np.float32),
        default_left=np.asarray(stored["default_left"], np.uint8).astype(np.bool_),
        bin=np.full(len(left), NONE, np.int32),
        gain=np.asarray(stored["loss_changes"], np.float32),
        hessian=np.asarray(stored["sum_hessian"], np.float32),
        base_weight=np.asarray(stored["base_weights"], np.float32),
        categories={
            int(node): np.sort(codes[first:last]) for node, first, last in zip(nodes, segments, ends, strict=True)
        },
        class_index=output,
    )
    for name in ("right", "parent", "feature", "threshold", "default_left", "gain", "hessian", "base_weight"):
        if len(getattr(tree, name)) != len(tree):
            raise ValueError(f"a tree of {len(tree)} nodes has {len(getattr(tree, name))} values of {name}")
    return _without_deleted(tree) if (feature == _DELETED).any() else _checked(tree)


def _checked(tree: Tree) -> Tree:
    """Refuse trees whose nodes point outside: they come from a file."""
    inner = tree.left != NONE
    for children in (tree.left[inner], tree.right[inner]):
        if len(children) and not (children.min() > 0 and children.max() < len(tree)):
            raise ValueError("a node's child lies outside its tree")
    return tree


def _without_deleted(tree: Tree) -> Tree:
    """Leave out the nodes that XGBoost's pruning marked as deleted, and number the others anew."""
    keep = tree.feature != _DELETED
    number = np.where(keep, np.cumsum(keep) - 1, NONE).astype(np.int32)

    def renumbered(nodes: Any) -> Any:
        return np.where(nodes == NONE, NONE, number[nodes])[keep].astype(np.int32)

    return _checked(
        Tree(
            left=renumbered(tree.left),
            right=renumbered(tree.right),
            parent=renumbered(tree.parent),
            feature=tree.feature[keep],
            threshold=tree.threshold[keep],
            default_left=tree.default_left[keep],
            bin=tree.bin[keep],
            gain=tree.gain[keep],
            hessian=tree.hessian[keep],
            base_weight=tree.base_weight[keep],
            categories={int(number[node]): codes for node, codes in tree.categories.items() if keep[node]},
            class_index=tree.class_index,
        )
    )


def _read_categories(stored: Mapping[str, Any] | None) -> list[CategoryNames]:
    names: list[CategoryNames] = []
    for column in (stored or {}).get("enc", ()):
        if "offsets" in column:
            data = np.asarray(column["values"], np.int8).tobytes()
            places = [int(place) for place in column["offsets"]]
            names.append([data[lo:hi].decode(errors="surrogateescape") for lo, hi in pairwise(places)])
        else:
            names.append([int(value) for value in column["values"]])
    return names


def booster_of(data: bytes, *, nthread: int | None = None) -> "xgboost.Booster":
    """Load a model's bytes into a stock Booster."""
    import xgboost

    booster = xgboost.Booster({"nthread": nthread} if nthread else None)
    booster.load_model(bytearray(data))
    return booster
