"""Categories that members find together: the model is the one that the list in the contract gives."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xgboost

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.organisation.evaluating import ModelInUse
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline, read_pipeline

NAMES = ("harbour", "north", "valley")
PROGRAM = Path(__file__).with_name("found_program.py")
FOUND = ["9", "10", "a", "b", "c"]


def program():
    spec = importlib.util.spec_from_file_location("found_program", PROGRAM)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def wards(module_example):
    """The healthcare example with a ward for every patient, whose list the contract leaves open."""
    example, ward = module_example, program().ward
    for name in NAMES:
        example.change_rows(name, lambda rows, name=name: rows.assign(ward=ward(name, rows)))
    example.replace(
        "contract.odcs.yaml",
        "      - name: mean_radius\n",
        "      - name: ward\n        logicalType: string\n        required: true\n        customProperties: "
        "[{property: lepton, value: {categories: found}}]\n      - name: mean_radius\n",
    )
    example.replace("pipeline.yaml", "rounds: 60", "rounds: 4")
    return example


@pytest.fixture(scope="module")
def train_here(wards):
    """Trains in one process, and returns what every organisation made and was told."""

    def train(pipeline: Pipeline, run: str, **settings):
        federation = InProcessFederation(NAMES)

        def member(name):
            with federation.sums(name) as sums:
                own = read_organisation(wards.folder / f"{name}.yaml")
                part = OrganisationRun(pipeline, own, sums, RunFolder(wards.var, run), share=3, **settings)
                said = program().train(part)
                return {**said, "bytes": part.model, "wire": part.sums.by_purpose()}

        try:
            with ThreadPoolExecutor(len(NAMES)) as threads:
                return list(threads.map(member, NAMES))
        finally:
            federation.close()

    return train


@pytest.fixture(scope="module")
def found(wards, train_here):
    return train_here(read_pipeline(wards.spec), "r-found")


def test_the_union_is_sorted_without_what_is_rare_and_the_same_at_all(found):
    assert [one["categories"] for one in found] == [{"ward": FOUND}] * 3
    assert all("union of categories" in [wire.purpose for wire in one["wire"]] for one in found)


def test_the_model_has_the_bytes_of_one_with_the_list_in_the_contract(wards, found, train_here):
    listed = read_pipeline(wards.spec).with_categories({"ward": FOUND})
    assert not listed.read_contract().to_find
    again = train_here(listed, "r-listed")
    assert {one["model"] for one in again} == {one["model"] for one in found}
    booster = xgboost.Booster()
    booster.load_model(bytearray(found[0]["bytes"]))
    assert "ward" in booster.get_score()  # or the test would hold for any order of the list


def test_boosting_goes_on_from_a_champion_with_the_same_categories_only(wards, found, train_here, monkeypatch):
    spec = read_pipeline(wards.spec)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"start": "champion"})})
    model, known = found[0]["bytes"], {"ward": FOUND}
    monkeypatch.setattr(
        OrganisationRun, "champion", lambda part: ModelInUse("1", "xgboost", model, known) if part.publishes else None
    )
    longer = train_here(spec, "r-longer")[0]["bytes"]
    booster = xgboost.Booster()
    booster.load_model(bytearray(longer))
    assert booster.num_boosted_rounds() == 8
    known["ward"] = ["9", "a", "b", "c"]
    assert {one["model"] for one in train_here(spec, "r-anew")} == {one["model"] for one in found}


def test_a_watch_for_drift_looks_with_the_categories_of_the_champion(wards, monkeypatch):
    known = {"ward": ["b", "9", "somewhere else"]}
    monkeypatch.setattr(
        OrganisationRun, "champion", lambda part: ModelInUse("1", "xgboost", b"", known) if part.publishes else None
    )
    pipeline, federation = read_pipeline(wards.spec), InProcessFederation(NAMES)

    def member(name):
        with federation.sums(name) as sums:
            own = read_organisation(wards.folder / f"{name}.yaml")
            part = OrganisationRun(pipeline, own, sums, RunFolder(wards.var, "w-1"), share=3, trains=False)
            try:
                part.ingest()
                return part.contract.feature_categories
            finally:
                part.close()

    try:
        with ThreadPoolExecutor(len(NAMES)) as threads:
            assert list(threads.map(member, NAMES)) == [known] * 3
    finally:
        federation.close()


def test_rows_are_not_split_by_a_column_whose_categories_are_found(wards):
    spec = read_pipeline(wards.spec)
    split = spec.split.model_copy(update={"key": "ward"})
    with pytest.raises(UserError, match="the categories of ward are found anew in each run"):
        spec.model_copy(update={"split": split}).read_contract()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hub_gives_the_same_model_also_if_a_member_is_killed_between_the_sums_of_the_union(processes, wards, found):
    options = ("--example", str(wards.folder))
    steady = [processes.start(name, *options, program=PROGRAM) for name in NAMES[:2]]
    assert processes.start(NAMES[2], *options, "--die", "0", program=PROGRAM).gone() == -9
    again = processes.start(NAMES[2], *options, program=PROGRAM)
    assert processes.finish([*steady, again]) == {found[0]["model"]}
    assert all(one.said[-1]["categories"] == {"ward": FOUND} for one in [*steady, again])
