"""The examples run as their READMEs say: rows fetched or generated, then the whole pipeline by one command."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_pipelines.spec.pipeline import read_pipeline

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
FETCHED = {"heart-disease": "heart-disease", "finance": "credit-default", "air-quality": "beijing-air"}
GENERATED = ("retail", "manufacturing", "grid-load")
WHOLE = ("heart-disease", "finance")  # run with all their rounds: what the README's table says is then compared
SCORES = {"AUC": "auc", "log loss": "logloss"}


def table(example: str) -> list[dict[str, str]]:
    """Return the README's table of results, a row a model, by the heads of its columns."""
    lines = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8").splitlines()
    last = next(i for i, line in enumerate(lines) if line.startswith("| pooled (only an example can do this)"))
    first = max(i for i in range(last) if set(lines[i]) <= set("| -") and lines[i]) - 1
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[first : last + 1]]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.mark.parametrize("example", [*FETCHED, *GENERATED])
def test_a_readme_shows_each_alone_the_federation_and_all_rows_pooled(example):
    names = [row[""] for row in table(example)]
    members = read_pipeline(ROOT / "examples" / example / "pipeline.yaml").members
    assert names[-2:] == ["federated", "pooled (only an example can do this)"]
    alone = names[:-2]
    if example == "air-quality":  # twelve would be a long table
        assert [name.partition(" alone")[0] for name in alone] == ["the best", "the median", "the worst"]
    else:
        assert sorted(alone) == sorted(f"{name} alone" for name in members)


@pytest.mark.slow
@pytest.mark.parametrize("example", [*FETCHED, *GENERATED])
def test_an_example_runs_from_its_rows_to_a_registered_model(example, lepton, tmp_path, request):
    folder, var = tmp_path / example, tmp_path / "var"
    source = ROOT / "examples" / example
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    if example in FETCHED:
        mirror = request.getfixturevalue("shared_data")
        command = ("data", "fetch", FETCHED[example], "--to", folder / "data")
        fetched = lepton(*command, LEPTON_DATA_MIRROR=str(mirror))
        assert fetched.code == 0, fetched.err
    else:
        subprocess.run([sys.executable, folder / "make_rows.py"], check=True, stdout=subprocess.DEVNULL)
    spec = folder / "pipeline.yaml"
    if example not in WHOLE:
        spec.write_text(shortened(spec.read_text(encoding="utf-8"), example), encoding="utf-8")
    ended = lepton("run", spec, "--var", var)
    assert ended.code == 0, ended.out + ended.err
    assert re.search(r" v1 → (champion|challenger)", ended.out), ended.out
    (results,) = (var / "runs").glob("*/results.json")
    told = json.loads(results.read_text(encoding="utf-8"))
    found = {row["name"]: row["scores"] for row in told["comparison"]}
    members = read_pipeline(spec).members
    assert sorted(found) == sorted([*(f"{name} alone" for name in members), "federated", "pooled"])
    assert told["trees_equal"]["equal"]
    if example in WHOLE:
        shown = {row[""].partition(" (")[0]: row for row in table(example)}
        for name, scores in found.items():
            near = 0.0006 if name in ("federated", "pooled") else 0.01  # Dask deals rows to XGBoost in its own order
            for head, metric in SCORES.items():
                assert float(shown[name][head]) == pytest.approx(scores[metric], abs=near), (name, head)


def shortened(told: str, example: str) -> str:
    """Return a spec with eight rounds, of which no gate is to be expected; of twelve stations, three."""
    told, many = re.subn(r"rounds: \d{3}\n", "rounds: 8\n", told, count=1)
    assert many == 1
    if example == "air-quality":
        stations = re.findall(r"^  (\w+): \w+\.yaml\n", told, flags=re.MULTILINE)
        for name in set(stations) - {"dongsi", "huairou", "wanliu"}:
            told = told.replace(f"  {name}: {name}.yaml\n", "")
    return told
