"""Algorithms are found by entry point: ours, and one that another distribution brings."""

import importlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.linear.rows import LocalRows, Table
from lepton_pipelines.spec.algorithm import Algorithm, _load, algorithm_names, find_algorithm
from lepton_pipelines.spec.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
# The whole algorithm that the page shows.
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]


class Columns:
    names = ("a", "b")
    types = ()
    categories = ()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution of one module into a folder of its own on the path."""
    modules = []

    def run(distribution, entry_points, module, code):
        folder = tmp_path / distribution
        information = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[lepton.algorithms]\n{entry_points}\n")
        (folder / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        modules.append(module)

    yield run
    for module in modules:
        sys.modules.pop(module, None)
    _load.cache_clear()


@pytest.mark.parametrize("name", ["xgboost", "linear"])
def test_ours_are_found_like_any_other(name):
    algorithm = find_algorithm(name)
    assert isinstance(algorithm, Algorithm)
    assert algorithm.name == name
    assert name in algorithm_names()


def test_an_algorithm_that_another_distribution_brings_is_found_and_trains_under_encryption(install):
    install("lepton-averaging", "averaging = lepton_averaging:Averaging", "lepton_averaging", AVERAGING)
    algorithm = find_algorithm("averaging")
    random = np.random.default_rng(0)
    parts = {name: random.normal(size=(rows, 2)) for name, rows in (("east", 30), ("north", 50), ("west", 20))}
    federation = InProcessFederation(sorted(parts))

    def train(name):
        with federation.sums(name) as sums:
            rows = LocalRows(algorithm.hold({"train": Table(parts[name], parts[name][:, 0])}))
            return algorithm.train(algorithm.parameters(digits=8), rows, sums=sums, rounds=1, features=Columns())

    with ThreadPoolExecutor(3) as pool:
        trained = list(pool.map(train, sorted(parts)))
    federation.close()

    assert len({one.model for one in trained}) == 1
    predicted = algorithm.predict(trained[0].model, np.zeros((2, 2)))
    np.testing.assert_allclose(predicted, np.concatenate(list(parts.values()))[:, 0].mean(), atol=1e-7)


def test_an_unknown_name_is_refused_with_the_nearest_and_all():
    with pytest.raises(UserError, match=r"algorithm liner is not installed here. Did you mean linear\?") as error:
        find_algorithm("liner")
    assert "linear, xgboost" in str(error.value)


def test_an_algorithm_that_cannot_be_imported_is_refused_with_the_reason(install):
    install("lepton-broken", "broken = lepton_broken:Broken", "lepton_broken", "import a_module_that_nobody_has\n")
    with pytest.raises(UserError, match=r"broken of lepton-broken 1.0 cannot be imported .*a_module_that_nobody_has"):
        find_algorithm("broken")


def test_what_is_no_algorithm_is_refused_with_what_it_lacks(install):
    code = "class Half:\n    name = 'half'\n    kind = 'half'\n    def train(self): ...\n"
    install("lepton-half", "half = lepton_half:Half", "lepton_half", code)
    with pytest.raises(UserError, match="lepton_half:Half has no parameters, hold, columns, predict, log_model"):
        find_algorithm("half")


def test_an_algorithm_that_goes_by_another_name_is_refused(install):
    install("lepton-other", "mean = lepton_other:Averaging", "lepton_other", AVERAGING)
    with pytest.raises(UserError, match=r"calls itself averaging\. Give both the same name"):
        find_algorithm("mean")


def test_a_name_that_two_distributions_bring_is_refused(install):
    install("lepton-one", "averaging = lepton_one:Averaging", "lepton_one", AVERAGING)
    install("lepton-two", "averaging = lepton_two:Averaging", "lepton_two", AVERAGING)
    with pytest.raises(UserError, match=r"brought by 2 distributions: lepton-one 1.0 .*, lepton-two 1.0 .*"):
        find_algorithm("averaging")
