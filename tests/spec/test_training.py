"""`training` with an algorithm that is not the engine: its own parameters, checked with the same messages."""

import pytest

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline, read_pipeline
from lepton_pipelines.spec.training import AlgorithmTraining, Training

SPEC = """\
name: rents
organisations: [north, south, west]
contract: contract.odcs.yaml
split: {key: flat_id}
training:
  label: rent
"""


@pytest.fixture
def read(tmp_path):
    """Read a pipeline whose training holds these lines."""

    def run(*lines):
        path = tmp_path / "pipeline.yaml"
        path.write_text(SPEC + "".join(f"  {line}\n" for line in lines))
        return read_pipeline(path)

    return run


def test_without_a_name_it_is_the_engines(read):
    assert isinstance(read("max_depth: 3").training, Training)
    assert read("algorithm: xgboost").training == read().training


def test_an_algorithms_parameters_are_those_of_its_own_model(read):
    training = read("algorithm: linear", "lambda: 0.5", "solver: closed_form", "rounds: 7").training
    assert isinstance(training, AlgorithmTraining)
    assert (training.rounds, training.start) == (7, "anew")
    assert training.parameters().model_dump(exclude_unset=False, include={"reg_lambda", "solver"}) == {
        "reg_lambda": 0.5,
        "solver": "closed_form",
    }


def test_a_spec_with_another_algorithm_survives_json(read):
    pipeline = read("algorithm: linear", "alpha: 0.25", "objective: binary:logistic")
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["algorithm: linear", "lambada: 1"],
            "training.lambada is not a parameter of this algorithm. Did you mean",
        ),
        (["algorithm: linear", "max_depth: 4"], "training.max_depth is not a parameter of this algorithm. Known are: "),
        (["algorithm: linear", "alpha: -1"], "training.alpha: input should be greater than or equal to 0 (it is -1)"),
        (
            ["algorithm: linear", "solver: newtn"],
            "'closed_form' or 'newton' (it is 'newtn')",
        ),
        (["algorithm: linear", "rounds: 0"], "training.rounds: input should be greater than or equal to 1"),
        (["algorithm: linear", "early_stopping_rounds: 5"], "training.early_stopping_rounds is not a parameter"),
        (["algorithm: liner"], "algorithm liner is not installed here. Did you mean linear?"),
        (["algorithm: xgboost", "solver: newton"], "training.solver is not a parameter"),
    ],
)
def test_a_wrong_parameter_is_told_with_file_and_line(read, lines, message):
    with pytest.raises(UserError) as error:
        read(*lines)
    (told,) = error.value.problems
    assert message in told
    assert told.startswith(f"pipeline.yaml:{6 + len(lines)}  ")


def test_parameters_that_do_not_go_together_are_told_as_the_trainings(read):
    with pytest.raises(UserError, match=r"^pipeline.yaml:5  training has solver newton, which needs binary:logistic"):
        read("algorithm: linear", "solver: newton")
