"""What a spec may say about a linear model: XGBoost's names where XGBoost has one."""

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lepton_pipelines.spec.fields import SpecModel

SQUARED_ERROR = "reg:squarederror"
LOGISTIC = "binary:logistic"

Objective = Literal["reg:squarederror", "binary:logistic"]
Solver = Literal["gradient_descent", "closed_form", "newton"]


class LinearParameters(SpecModel):
    """Parameters of a linear or logistic regression.

    Minimised is the weighted mean of the loss (half the squared error, or the log loss) plus
    `lambda` / 2 · ‖θ‖² + `alpha` · ‖θ‖₁; the intercept is not penalised. Thus `lambda` is scikit-learn's
    `Ridge(alpha)` / n, `alpha` its `Lasso(alpha)`, and 1 / (n · `lambda`) its `LogisticRegression(C)`.
    """

    noun: ClassVar[str] = "parameter"

    objective: Objective = Field(
        "reg:squarederror", title="Objective", description="reg:squarederror, or binary:logistic for labels 0 and 1."
    )
    solver: Solver = Field(
        "gradient_descent",
        title="Solver",
        description="gradient_descent shares one gradient a round. closed_form (squared error) and newton (logistic) "
        "share the matrix of the columns' products too, and need a few rounds only.",
    )
    learning_rate: float | Literal["auto"] = Field(
        "auto",
        validation_alias=AliasChoices("learning_rate", "eta"),
        title="Learning rate",
        description="Step of gradient descent, θ ← θ − learning_rate · ∂L/∂θ; auto: found by line search.",
    )
    momentum: float = Field(
        0.0, ge=0, lt=1, title="Momentum", description="Nesterov's momentum; needs a learning_rate."
    )
    tolerance: float = Field(
        1e-9,
        gt=0,
        lt=1,
        title="Tolerance",
        description="Converged when no partial derivative is above this share of the largest it could be.",
    )
    reg_lambda: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("reg_lambda", "lambda"),
        title="Lambda",
        description="L2 penalty on the coefficients; also written lambda.",
    )
    reg_alpha: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("reg_alpha", "alpha"),
        title="Alpha",
        description="L1 penalty on the coefficients; also written alpha.",
    )
    fit_intercept: bool = Field(True, title="Intercept", description="Whether the model has an intercept.")
    standardize: bool = Field(
        True,
        title="Standardize",
        description="Whether penalties, and the steps of a given learning_rate, hold for columns of mean 0 and "
        "standard deviation 1 over all organisations, or for the columns as they are.",
    )
    missing: Literal["refuse", "mean"] = Field(
        "refuse",
        title="Missing",
        description="refuse rows with missing values, or fill in the column's mean over all organisations.",
    )

    @field_validator("learning_rate")
    @classmethod
    def _positive(cls, value: Any, info: ValidationInfo) -> Any:
        if value != "auto" and not 0 < value < float("inf"):
            raise PydanticCustomError("spec", "must be above 0, or auto")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "LinearParameters":
        if self.solver == "closed_form" and self.objective != SQUARED_ERROR:
            raise PydanticCustomError(
                "spec", "has solver closed_form, which needs reg:squarederror. Take solver: newton"
            )
        if self.solver == "newton" and self.objective != LOGISTIC:
            raise PydanticCustomError(
                "spec", "has solver newton, which needs binary:logistic. Take solver: closed_form"
            )
        if self.solver != "gradient_descent" and self.learning_rate != "auto":
            raise PydanticCustomError(
                "spec",
                "has a learning_rate, which is gradient_descent's; solver {solver} has none",
                {"solver": self.solver},
            )
        if self.momentum and self.learning_rate == "auto":
            raise PydanticCustomError(
                "spec",
                "has momentum, which needs a learning_rate: the line search of auto has none. Set one of them only",
            )
        return self
