"""What is trained, and how: the engine's parameters, or those of another algorithm that is installed.

`training.algorithm` is xgboost unless it says otherwise. The parameters of another algorithm stand beside it and are
checked by the algorithm's own model, with the same messages.
"""

from functools import lru_cache
from types import new_class
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from .algorithm import find_algorithm
from .booster_parameters import BoosterParameters
from .errors import UserError
from .fields import Column, Name, SpecModel, did_you_mean

XGBOOST = "xgboost"

Start = Literal["anew", "champion"]


class Training(BoosterParameters):
    """What is predicted, and how the booster is trained: XGBoost's parameter names and defaults."""

    noun: ClassVar[str] = "parameter"

    algorithm: Literal["xgboost"] = Field(
        "xgboost", title="Algorithm", description="Gradient boosted trees; another one has parameters of its own."
    )
    label: Column = Field(title="Label", description="The contract's column to predict.")
    rounds: int = Field(100, ge=1, le=100_000, title="Rounds", description="Most boosting rounds.")
    early_stopping_rounds: int | None = Field(
        None,
        ge=1,
        title="Early stopping",
        description="Stop when the validation score has not improved for this many rounds; unset: never.",
    )
    start: Start = Field(
        "anew", title="Start", description="Train anew, or go on boosting from the champion (warm start)."
    )
    edges: Literal["anew", "kept"] = Field(
        "anew",
        title="Bin edges",
        description="Search the bins' edges anew in each run, or keep those of the run before while the rows of all "
        "are between half and twice as many and every bin holds enough of them; with data.cache old rows then keep "
        "their codes, too.",
    )


class AlgorithmTraining(SpecModel):
    """What is predicted, with an algorithm other than the engine; its own parameters stand beside these."""

    model_config = ConfigDict(extra="allow")
    noun: ClassVar[str] = "parameter"
    early_stopping_rounds: ClassVar[None] = None

    algorithm: Name = Field(title="Algorithm", description="Name of an installed algorithm, such as linear.")
    label: Column = Field(title="Label", description="The contract's column to predict.")
    rounds: int = Field(100, ge=1, le=100_000, title="Rounds", description="Most rounds.")
    start: Start = Field("anew", title="Start", description="Train anew, or go on from the champion.")
    objective: str = Field(
        "reg:squarederror", title="Objective", description="What is predicted, by XGBoost's names; chooses the scores."
    )

    def parameters(self) -> Any:
        """Return the algorithm's own parameters, an instance of its model."""
        model = find_algorithm(self.algorithm).parameters
        return model(**{name: getattr(self, name) for name in model.model_fields})


def _kind(value: Any) -> str:
    name = value.get("algorithm", XGBOOST) if isinstance(value, dict) else getattr(value, "algorithm", XGBOOST)
    return "the engine" if name == XGBOOST else "another algorithm"


def _of_algorithm(value: Any) -> Any:
    """Check the parameters by the model of the algorithm that is named."""
    if not isinstance(value, dict):
        return value
    name = value.get("algorithm")
    try:
        model = training_model(str(name))
    except UserError as error:
        location = ("algorithm",)
        fault = PydanticCustomError("spec", "cannot be taken: {why}", {"why": str(error)})
        details = InitErrorDetails(type=fault, loc=location, input=name)
        raise ValidationError.from_exception_data("training", [details]) from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [_told(model, dict(one)) for one in error.errors(include_url=False)]
        raise ValidationError.from_exception_data("training", found) from None


@lru_cache
def training_model(name: str) -> type[AlgorithmTraining]:
    """Return the model of `training` for an algorithm: what all have, and its own parameters.

    Raises UserError if the algorithm is not installed.
    """
    parameters = find_algorithm(name).parameters
    body = {"__module__": __name__, "__doc__": parameters.__doc__}
    made: type[AlgorithmTraining] = new_class(
        f"{name.capitalize()}Training",
        (parameters, AlgorithmTraining),
        {"extra": "forbid"},
        lambda namespace: namespace.update(body),
    )
    return made


_KNOWN_ERRORS = frozenset(get_args(core_schema.ErrorType))


def _told(model: type[AlgorithmTraining], details: dict[str, Any]) -> InitErrorDetails:
    """Repeat a problem; an unknown parameter is told with the algorithm's own names."""
    location, given, kind = details["loc"], details.get("input"), details["type"]
    if kind == "extra_forbidden":
        name, known = str(location[-1]), parameter_names(model)
        guess = did_you_mean(name, known) or f" Known are: {', '.join(known)}."
        fault: Any = PydanticCustomError("spec", "is not a parameter of this algorithm.{guess}", {"guess": guess})
    elif kind in _KNOWN_ERRORS:
        fault = kind
    else:
        fault = PydanticCustomError(kind, "{message}", {"message": details["msg"]})
    return InitErrorDetails(type=fault, loc=location, input=given, ctx=details.get("ctx", {}))


def parameter_names(model: type[SpecModel]) -> list[str]:
    """Return the names that a model's fields may be given by."""
    names: list[str] = []
    for name, told in model.model_fields.items():
        other = told.validation_alias
        names += [str(one) for one in other.choices] if isinstance(other, AliasChoices) else [name]
    return names


AnyTraining = Annotated[
    Annotated[Training, Tag("the engine")]
    | Annotated[SerializeAsAny[AlgorithmTraining], BeforeValidator(_of_algorithm), Tag("another algorithm")],
    Discriminator(_kind),
]
