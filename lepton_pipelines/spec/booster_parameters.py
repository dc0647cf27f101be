"""XGBoost's parameters: names, aliases and defaults, checked before anything is computed.

Fields carry one of XGBoost's own names; its other spellings (`eta`, `lambda`, `min_split_loss`, …) are taken too.
What XGBoost knows and this library does not do is refused by name, with what to do instead; what nobody knows is
refused with the nearest name. Nothing is accepted and then ignored. Defaults are XGBoost 3's.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .errors import UserError
from .fields import SpecModel, did_you_mean

ALIASES = {
    "eta": "learning_rate",
    "min_split_loss": "gamma",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "n_jobs": "nthread",
    "random_state": "seed",
}
"""XGBoost's second spellings, and the fields that they mean."""

OBJECTIVES = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:logistic",
    "binary:logistic",
    "binary:logitraw",
    "binary:hinge",
    "multi:softmax",
    "multi:softprob",
    "count:poisson",
    "reg:gamma",
    "reg:tweedie",
)

_RANKING = (
    "ranks rows within a query by comparing pairs of them, which sums over organisations cannot do. "
    "Train a classification or regression objective on relevance instead"
)
REFUSED_OBJECTIVES = {
    "rank:ndcg": _RANKING,
    "rank:map": _RANKING,
    "rank:pairwise": _RANKING,
    "survival:cox": (
        "needs for every row the sum over all rows that are still at risk at its time, so the event times themselves "
        "would be shown: it is not exact under sums. Model the count of events per period with count:poisson instead"
    ),
    "survival:aft": "needs intervals as labels, which are not supported. Use reg:gamma or count:poisson",
    "reg:expectileerror": "is not supported. Use reg:quantileerror or reg:squarederror",
    "reg:linear": "is XGBoost's deprecated name. Write reg:squarederror",
}
"""Objectives that XGBoost has and this library refuses, each with the rest of the sentence."""

_DART = "belongs to booster=dart, which is not supported. Take it out"
_LINEAR = "belongs to booster=gblinear, which is not supported; for linear models see lepton_pipelines.linear"
_RANK_ONLY = "belongs to the rank:* objectives, which are not supported. Take it out"
_TUNING = "tunes XGBoost's own memory use and changes no model. Take it out"
REFUSED = {
    "rate_drop": _DART,
    "one_drop": _DART,
    "skip_drop": _DART,
    "sample_type": _DART,
    "normalize_type": _DART,
    "feature_selector": _LINEAR,
    "top_k": _LINEAR,
    "updater": "chooses XGBoost's internal algorithm; trees are grown as tree_method=hist does. Take it out",
    "refresh_leaf": "belongs to process_type=update, which is not supported. Take it out",
    "process_type": "other than default refreshes old trees, which is not supported. Take it out",
    "sketch_eps": "was removed from XGBoost; set max_bin instead",
    "predictor": "was removed from XGBoost. Take it out",
    "gpu_id": "was removed from XGBoost. Take it out: training runs on processors",
    "single_precision_histogram": "was removed from XGBoost. Take it out: sums are exact",
    "silent": "was removed from XGBoost; set verbosity instead",
    "num_feature": "follows from the data. Take it out",
    "num_target": "other than 1 (several labels a row) is not supported. Train one model a label",
    "num_output_group": "follows from num_class. Take it out",
    "seed_per_iteration": "is not supported: draws depend on seed and tree already. Take it out",
    "sparse_threshold": _TUNING,
    "max_cached_hist_node": _TUNING,
    "debug_synchronize": _TUNING,
    "aft_loss_distribution": "belongs to survival:aft, which is not supported. Take it out",
    "aft_loss_distribution_scale": "belongs to survival:aft, which is not supported. Take it out",
    "expectile_alpha": "belongs to reg:expectileerror, which is not supported. Use reg:quantileerror",
    "ndcg_exp_gain": _RANK_ONLY,
    "lambdarank_pair_method": _RANK_ONLY,
    "lambdarank_num_pair_per_sample": _RANK_ONLY,
    "lambdarank_normalization": _RANK_ONLY,
    "lambdarank_score_normalization": _RANK_ONLY,
    "lambdarank_unbiased": _RANK_ONLY,
    "lambdarank_bias_norm": _RANK_ONLY,
    "lambdarank_diff_normalization": _RANK_ONLY,
}
"""Parameters that XGBoost has and this library refuses, each with the rest of the sentence."""


def _only(default: str, **refused: str) -> BeforeValidator:
    """A choice of which this library has one value; the others are refused with their reason."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in refused:
            raise PydanticCustomError(
                "spec", "is {value}: {reason}. Write {default}, or nothing", _context(value, refused[value], default)
            )
        return value

    return BeforeValidator(check)


def _context(value: str, reason: str, default: str) -> dict[str, Any]:
    return {"value": value, "reason": reason, "default": default}


def _device(value: Any) -> Any:
    if isinstance(value, str) and value != "cpu":
        raise PydanticCustomError(
            "spec", "is {value}: training runs on processors only. Write cpu, or nothing", {"value": value}
        )
    return value


def _from_json(value: Any) -> Any:
    """XGBoost takes constraints as text too: "(1,-1)" and "[[0, 1], [2]]"."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    if text.startswith("("):
        text = f"[{text.strip('()').rstrip(',')}]"
    try:
        return json.loads(text.replace("'", '"'))
    except json.JSONDecodeError as error:
        raise PydanticCustomError("spec", "cannot be read: {problem}", {"problem": str(error)}) from error


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, int, float)) else value


Share = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BoosterParameters(SpecModel):
    """How trees are boosted: XGBoost's parameters, by its names and with its defaults.

    `BoosterParameters.read(params)` takes a mapping as `xgboost.train` does and says plainly what is wrong with it.
    """

    noun: ClassVar[str] = "parameter"

    objective: str = Field(
        default="reg:squarederror", title="Objective", description="What is optimised, by XGBoost's name."
    )
    num_class: int = Field(default=0, ge=0, title="Classes", description="Number of classes of multi:*.")
    base_score: tuple[float, ...] | None = Field(
        default=None, title="Base score", description="Prediction before the first tree; unset: estimated."
    )
    eval_metric: tuple[str, ...] = Field(
        default=(), title="Metrics", description="Computed each round; the last one decides early stopping."
    )
    disable_default_eval_metric: bool = Field(
        default=False, title="No default metric", description="Leave out the objective's own metric."
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, title="Seed", description="Of row and column sampling.")

    learning_rate: float = Field(
        default=0.3, ge=0, allow_inf_nan=False, title="Learning rate", description="How far a tree moves (eta)."
    )
    gamma: NotNegative = Field(default=0.0, title="Gamma", description="Least loss reduction of a split.")
    max_depth: int = Field(default=6, ge=0, title="Depth", description="Most levels of a tree; 0: no limit.")
    max_leaves: int = Field(default=0, ge=0, title="Leaves", description="Most leaves of a tree; 0: no limit.")
    min_child_weight: NotNegative = Field(
        default=1.0, title="Child weight", description="Least sum of hessians in a child."
    )
    max_delta_step: NotNegative | None = Field(
        default=None, title="Step limit", description="Largest leaf weight; 0: no limit. Unset: 0.7 for count:poisson."
    )
    subsample: Share = Field(default=1.0, title="Rows", description="Share of rows drawn for each tree.")
    sampling_method: Annotated[
        Literal["uniform"],
        _only("uniform", gradient_based="draws rows by their gradients, which only XGBoost on a GPU does"),
    ] = Field(default="uniform", title="Sampling", description="Rows are drawn uniformly.")
    colsample_bytree: Share = Field(default=1.0, title="Columns a tree", description="Share of columns of a tree.")
    colsample_bylevel: Share = Field(default=1.0, title="Columns a level", description="Share of columns of a level.")
    colsample_bynode: Share = Field(default=1.0, title="Columns a node", description="Share of columns of a node.")
    reg_lambda: NotNegative = Field(default=1.0, title="L2", description="L2 regularisation of leaf weights (lambda).")
    reg_alpha: NotNegative = Field(default=0.0, title="L1", description="L1 regularisation of leaf weights (alpha).")
    scale_pos_weight: NotNegative = Field(
        default=1.0, title="Positive weight", description="Factor on the weight of rows with label 1."
    )
    grow_policy: Literal["depthwise", "lossguide"] = Field(
        default="depthwise", title="Growth", description="Split level by level, or the best leaf first."
    )
    max_bin: int = Field(default=256, ge=2, le=256, title="Bins", description="Most bins of a column.")
    num_parallel_tree: int = Field(
        default=1, ge=1, title="Parallel trees", description="Trees of each round (a boosted random forest)."
    )
    monotone_constraints: Annotated[
        tuple[Literal[-1, 0, 1], ...] | dict[str, Literal[-1, 0, 1]] | None, BeforeValidator(_from_json)
    ] = Field(
        default=None, title="Monotone", description="-1, 0 or 1 for each column, or a table of column names to them."
    )
    interaction_constraints: Annotated[tuple[tuple[int | str, ...], ...] | None, BeforeValidator(_from_json)] = Field(
        default=None, title="Interactions", description="Groups of columns that may stand on one path."
    )
    max_cat_to_onehot: int = Field(
        default=4, ge=1, title="One-hot up to", description="Columns with fewer categories are split one against rest."
    )
    max_cat_threshold: int = Field(
        default=64, ge=1, title="Categories a split", description="Most categories considered on one side of a split."
    )

    tweedie_variance_power: float = Field(
        default=1.5, ge=1, lt=2, title="Tweedie power", description="Of reg:tweedie: 1 is Poisson, 2 is gamma."
    )
    huber_slope: float = Field(
        default=1.0, allow_inf_nan=False, title="Huber slope", description="Of reg:pseudohubererror; not 0."
    )
    quantile_alpha: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(), title="Quantiles", description="Of reg:quantileerror; several give several outputs."
    )

    nthread: int | None = Field(
        default=None, title="Threads", description="Unset, 0 or less: as many as there are processors."
    )
    verbosity: int = Field(default=1, ge=0, le=3, title="Verbosity", description="0 silent, 1 warnings, 2 and 3 more.")
    validate_parameters: Literal[True] = Field(
        default=True, title="Validate", description="Parameters are always checked."
    )

    booster: Annotated[
        Literal["gbtree"],
        _only(
            "gbtree",
            dart="dropout of trees is not supported",
            gblinear="a linear booster is not supported; for linear models see lepton_pipelines.linear",
        ),
    ] = Field(default="gbtree", title="Booster", description="Trees.")
    tree_method: Annotated[
        Literal["auto", "hist"],
        _only(
            "hist",
            exact="it sorts single values, which no sum over organisations can do",
            approx="it makes new bins for every tree, at the cost of a sketch a round",
            gpu_hist="training runs on processors only",
        ),
    ] = Field(default="hist", title="Tree method", description="Trees are grown on histograms.")
    device: Annotated[Literal["cpu"], BeforeValidator(_device)] = Field(
        default="cpu", title="Device", description="Training runs on processors."
    )
    multi_strategy: Annotated[
        Literal["one_output_per_tree"],
        _only("one_output_per_tree", multi_output_tree="trees whose leaves are vectors are not supported"),
    ] = Field(default="one_output_per_tree", title="Multi-output", description="Each tree serves one output.")

    @classmethod
    def read(cls, params: "Mapping[str, Any] | BoosterParameters | None") -> Self:
        """Check parameters given as `xgboost.train` takes them.

        Raises UserError that lists everything wrong, each with its parameter and what to do.
        """
        if isinstance(params, cls):
            return params
        given = params.model_dump(exclude_unset=True) if isinstance(params, BoosterParameters) else dict(params or {})
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise UserError(
                [_problem(cls, given, dict(details)) for details in error.errors(include_url=False)]
            ) from None

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        named: dict[str, Any] = {}
        for key, value in data.items():
            if key in REFUSED and key not in cls.model_fields and not (key, value) == ("process_type", "default"):
                raise PydanticCustomError("spec", "has {key}, which {reason}", {"key": key, "reason": REFUSED[key]})
            name = ALIASES.get(str(key), str(key))
            if name in named and named[name] != value:
                raise PydanticCustomError(
                    "spec",
                    "has {name} twice, as {first} and {second}. Leave one",
                    {"name": name, "first": repr(named[name]), "second": repr(value)},
                )
            if not (key == "process_type" and value == "default"):
                named[name] = value
        return named

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str) -> str:
        if name in REFUSED_OBJECTIVES:
            raise PydanticCustomError(
                "spec", "is {name}, which {reason}", {"name": name, "reason": REFUSED_OBJECTIVES[name]}
            )
        if name not in OBJECTIVES:
            hint = did_you_mean(name, OBJECTIVES) or f" Known are: {', '.join(OBJECTIVES)}."
            raise PydanticCustomError("spec", "is not an objective: {name}.{hint}", {"name": name, "hint": hint})
        return name

    @field_validator("eval_metric", "base_score", "quantile_alpha", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().startswith("["):
            value = _from_json(value)
        if value is not None and hasattr(value, "tolist"):
            value = value.tolist()
        return _as_list(value) if value is not None else ()

    @field_validator("base_score")
    @classmethod
    def _no_base_score(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value or None

    @field_validator("huber_slope")
    @classmethod
    def _slope(cls, value: float) -> float:
        if value == 0:
            raise PydanticCustomError("spec", "is 0, but must be another number", {})
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        multi_class = self.objective.startswith("multi:")
        if multi_class and self.num_class < 1:
            raise PydanticCustomError("spec", "lacks num_class: {name} needs it", {"name": self.objective})
        if not multi_class and self.num_class > 1:
            raise PydanticCustomError(
                "spec",
                "has num_class {number}, but {name} has one output. Use multi:softprob, or take num_class out",
                {"number": self.num_class, "name": self.objective},
            )
        if self.objective == "reg:quantileerror" and not self.quantile_alpha:
            raise PydanticCustomError("spec", "lacks quantile_alpha: reg:quantileerror needs it, 0.5 for example", {})
        return self

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """The levels of reg:quantileerror, ascending as given; empty for other objectives."""
        return self.quantile_alpha if self.objective == "reg:quantileerror" else ()


def _problem(model: type[BoosterParameters], given: Mapping[str, Any], details: dict[str, Any]) -> str:
    """One sentence for what pydantic found."""
    location, kind, message = details["loc"], str(details["type"]), str(details["msg"])
    if kind == "spec" and not location:
        return f"params {message}."
    name = str(location[0]) if location else "params"
    spelling = next((alias for alias, field in ALIASES.items() if field == name and alias in given), name)
    if kind == "extra_forbidden":
        known = [*model.model_fields, *ALIASES]
        return f"{spelling} is not a parameter.{did_you_mean(spelling, known)}"
    if kind == "missing":
        return f"{spelling} is missing. Add it."
    if kind == "spec":
        return f"{spelling} {message}" if message.endswith((".", "?")) else f"{spelling} {message}."
    return f"{spelling}: {message[:1].lower()}{message[1:]} (it is {given.get(spelling)!r})."
