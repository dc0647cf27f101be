"""Every bad input is refused before training, with one clear message, and leaves nothing behind."""

import os
import re
import socket
import sqlite3

import numpy as np
import pandas as pd
import pytest


def with_value(column, value, *, rows=slice(0, 3)):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: "float64" if isinstance(value, float) else str})
        frame.loc[frame.index[rows], column] = value
        return frame

    return change


def spoil_rows(hospital, change):
    return lambda example: example.change_rows(hospital, change)


def spoil_text(file, old, new):
    return lambda example: example.replace(file, old, new)


def two_of_one_name(example):
    example.replace("pipeline.yaml", "harbour: harbour.yaml", "harbour: north.yaml")


def make_category(example):
    """Make a column categorical in the contract, with values that the rows do not keep to."""
    example.replace(
        "contract.odcs.yaml",
        "        logicalType: number\n        logicalTypeOptions: {minimum: 0, maximum: 100}\n"
        "        description: Mean distance",
        "        logicalType: string\n"
        "        customProperties: [{property: lepton, value: {categories: [small, large]}}]\n"
        "        description: Mean distance",
    )
    for hospital in ("north", "harbour", "valley"):
        example.change_rows(hospital, lambda frame: frame.assign(mean_radius="small"))
    example.change_rows("valley", with_value("mean_radius", "huge"))


BAD = {
    "a missing file": (
        spoil_text("harbour.yaml", "data/harbour/", "data/harbor/"),
        r"harbour: .*data/harbor/ does not",
    ),
    "a wrong column name": (
        spoil_rows("harbour", lambda frame: frame.rename(columns={"mean_radius": "radius_mean"})),
        r'harbour: column "mean_radius" is missing .*found "radius_mean"',
    ),
    "a wrong type": (spoil_rows("north", with_value("mean_area", "large")), r"north: .*mean_area"),
    "a category outside the contract": (make_category, r"valley: .*mean_radius.*huge"),
    "a label outside the contract": (spoil_rows("valley", with_value("malignant", 2.0)), r"valley: 3 rows .*label.*2"),
    "a label that is not a number": (spoil_rows("valley", with_value("malignant", np.nan)), r"valley: 3 rows"),
    "an infinite label": (spoil_rows("valley", with_value("malignant", np.inf)), r"valley: 3 rows"),
    "a label with one class": (
        spoil_rows("valley", lambda frame: frame.assign(malignant=0)),
        r"valley: every row has the label malignant = 0",
    ),
    "fewer rows than the contract's minimum": (
        spoil_rows("north", lambda frame: frame.head(50)),
        r"north: has 50 rows, the contract wants at least 100",
    ),
    "two organisations with the same name": (two_of_one_name, r"the file of north, but the pipeline gives it to"),
    "an unknown parameter": (spoil_text("pipeline.yaml", "max_depth", "max_deph"), r"Did you mean max_depth\?"),
    "an unknown objective": (
        spoil_text("pipeline.yaml", "binary:logistic", "binary:logistics"),
        r"is not an objective.*Did you mean binary:logistic",
    ),
    "a tab": (spoil_text("pipeline.yaml", "  label: malignant", "\tlabel: malignant"), r"pipeline.yaml:\d+ .*tab"),
    "a duplicate key": (
        spoil_text("pipeline.yaml", "  max_depth: 4", "  max_depth: 4\n  max_depth: 5"),
        r"training.max_depth is given twice",
    ),
    "a wrong unit": (spoil_text("harbour.yaml", "{workers: 1}", "{workers: 1, memory: 4 Gallons}"), r"4 Gallons"),
    "a policy that does not allow it": (
        spoil_text("harbour.yaml", "max_depth: 8", "max_depth: 2"),
        r"harbour: policy.max_depth is 2, training.max_depth is 4",
    ),
    "MLflow that does not answer": (
        lambda example: example.replace(
            "north.yaml", "on_violation", f"tracking: {{mlflow: 'http://127.0.0.1:{closed_port()}'}}\non_violation"
        ),
        r"MLflow at http://127.0.0.1:\d+ is not reachable",
    ),
}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("spoil", BAD)
def test_checking_refuses(spoil, command_line, example):
    change, message = BAD[spoil]
    change(example)
    ended = command_line("check", example.spec, "--var", example.var)
    assert ended.code == 2
    assert_one_plain_message(ended, message)
    assert not example.var.exists()


@pytest.fixture(scope="module")
def ran(tmp_path_factory, prefect_server, copy_example, commands_in_one_process):
    """The folder of runs, and how running every bad example ended, one after the other in a process of their own."""
    var, commands = tmp_path_factory.mktemp("var"), []
    for number, (change, _) in enumerate(BAD.values()):
        example = copy_example(tmp_path_factory.mktemp(f"bad-{number}"))
        change(example)
        commands.append(("run", example.spec, "--var", var))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    home = {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "PREFECT_API_URL": prefect_server}
    ended = commands_in_one_process(commands, {**kept, **home, "NO_COLOR": "1", "COLUMNS": "120"})
    return var, dict(zip(BAD, ended, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", BAD)
def test_running_refuses_before_training_and_leaves_nothing(spoil, ran):
    var, ended = ran
    assert ended[spoil].code == 2
    assert_one_plain_message(ended[spoil], BAD[spoil][1])
    assert "boosting" not in ended[spoil].out
    assert_nothing_left(var)


def test_a_prefect_server_that_does_not_answer_is_named_before_anything_starts(lepton, example):
    address = f"http://127.0.0.1:{closed_port()}/api"
    ended = lepton("run", example.spec, "--var", example.var, PREFECT_API_URL=address)
    assert ended.code == 2
    assert re.search(rf"Prefect at {address} cannot be reached \(.*unset PREFECT_API_URL", ended.err.replace("\n", " "))
    assert "Traceback" not in ended.err
    assert not example.var.exists()


def test_a_working_folder_that_cannot_be_written_is_named(command_line, example):
    # A file where a folder should be: even root cannot write below it.
    example.var.write_text("")
    ended = command_line("check", example.spec, "--var", example.var)
    assert ended.code == 2
    assert_one_plain_message(ended, r"is a file, but runs are kept in the folder .* Name another with --var")


def assert_one_plain_message(ended, message):
    assert re.search(message, ended.err), ended.err
    assert "Traceback" not in ended.out + ended.err
    lines = [line for line in ended.err.splitlines() if line]
    assert len(lines) == 1, ended.err


def assert_nothing_left(var):
    assert not (var / "runs").exists()
    database = var / "mlflow" / "mlflow.db"
    if database.exists():
        with sqlite3.connect(database) as connection:
            assert connection.execute("select count(*) from runs").fetchone() == (0,)
