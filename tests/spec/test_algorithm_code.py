"""The code of an algorithm has one digest, in its wheel and as it is installed; a policy allows just that code."""

import importlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lepton_pipelines.spec.algorithm_code import code_of_wheel, code_refusals, installed_code, refusals
from lepton_pipelines.spec.allowing import allow_algorithm
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy, read_organisation

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
EXPLODES = "raise SystemExit('this code must not run')\n"


@pytest.fixture
def wheel(build_wheel):
    return build_wheel(EXPLODES, **{"lepton_averaging/more/tables.json": "{}"})


def allowing(digest):
    return Policy(algorithms=["xgboost", {"name": "averaging", "digest": digest}])


def test_the_digest_is_that_of_what_sha256sum_prints(wheel, tmp_path):
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    kept = [path for path in unpacked.rglob("*") if path.is_file() and path.name not in ("RECORD", "WHEEL")]
    names = sorted(path.relative_to(unpacked).as_posix() for path in kept)
    listing = subprocess.run(["sha256sum", *names], cwd=unpacked, capture_output=True, check=True).stdout
    told = subprocess.run(["sha256sum"], input=listing, capture_output=True, check=True).stdout.split()[0].decode()
    code = code_of_wheel(wheel)
    assert code.digest == told
    assert (code.algorithm, code.distribution, code.version) == ("averaging", "lepton-averaging", "1.0")
    assert code.requires == ("numpy",)


def test_what_pip_installed_has_its_wheels_digest_and_is_not_run_to_find_out(wheel, pip_install):
    pip_install(wheel)
    assert installed_code("averaging") == code_of_wheel(wheel)
    assert "lepton_averaging" not in sys.modules
    assert code_refusals(allowing(code_of_wheel(wheel).digest), "averaging") == []


def change(folder):
    with (folder / "lepton_averaging" / "__init__.py").open("a") as file:
        file.write("# changed\n")


def add(folder):
    (folder / "lepton_averaging" / "backdoor.py").write_text("")


@pytest.mark.parametrize("spoil", [change, add])
def test_code_that_was_changed_or_added_to_since_is_refused_by_name(wheel, pip_install, spoil):
    spoil(pip_install(wheel))
    (problem,) = code_refusals(allowing(code_of_wheel(wheel).digest), "averaging")
    assert re.search(r"lepton-averaging 1\.0, which brings averaging, has the digest [0-9a-f]{64}; policy", problem)


def test_code_of_others_is_refused_without_a_digest_and_ours_needs_none(wheel, pip_install):
    pip_install(wheel)
    for policy in (Policy(), Policy(algorithms=["averaging"])):
        (problem,) = refusals(policy, "averaging")
        assert f"digest: {code_of_wheel(wheel).digest}" in problem
    assert refusals(Policy(), "xgboost") == refusals(Policy(algorithms=["linear"]), "linear") == []
    assert refusals(Policy(algorithms=["linear"]), "xgboost") == [
        "policy.algorithms allows linear, training.algorithm is xgboost"
    ]


def test_code_that_lacks_a_file_is_refused(wheel, pip_install):
    (pip_install(wheel) / "lepton_averaging" / "more" / "tables.json").unlink()
    assert code_refusals(allowing(code_of_wheel(wheel).digest), "averaging")


def test_a_package_that_python_would_import_from_elsewhere_is_refused(wheel, pip_install, tmp_path, monkeypatch):
    pip_install(wheel)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "lepton_averaging.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "first")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"Python would import lepton_averaging from .*first"):
        installed_code("averaging")


def test_an_installation_whose_code_can_be_edited_is_refused(wheel, pip_install):
    folder = pip_install(wheel)
    origin = folder / "lepton_averaging-1.0.dist-info" / "direct_url.json"
    origin.write_text('{"url": "file:///work", "dir_info": {"editable": true}}')
    with pytest.raises(UserError, match="its code can be edited"):
        installed_code("averaging")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"points": "a = lepton_averaging:A\nb = lepton_averaging:B"}, "brings 2 algorithms"),
        ({"points": "a = somewhere_else:A"}, "in no package or module that it brings"),
        ({"at_every_start.pth": "import os"}, r"at_every_start\.pth, which an installer puts elsewhere or runs"),
        ({"lepton_averaging-1.0.data/scripts/tool": "#!python"}, "puts elsewhere"),
        ({"../../etc/cron.d/x": "* * * * *"}, "is no wheel"),
    ],
)
def test_a_wheel_that_would_do_more_than_bring_one_algorithm_is_refused(build_wheel, settings, reason):
    with pytest.raises(UserError, match=reason):
        code_of_wheel(build_wheel("", **settings))


def test_what_is_no_wheel_is_named_as_such(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match="no wheel that can be read"):
        code_of_wheel(tmp_path / "x.whl")


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "policy: {}\n",
        "policy: {members: [valley]}  # whom we know\n",
        "policy:\n  algorithms:\n  - xgboost  # ours\n",
    ],
)
def test_allowing_an_algorithm_leaves_the_rest_of_the_file_as_it_was(tmp_path, policy):
    file = tmp_path / "harbour.yaml"
    file.write_text(f"# ours alone\norganisation: harbour\ndata: 's3://harbour/patients/'\n{policy}")
    before = YAML(typ="safe").load(file)
    assert allow_algorithm(file, "averaging", "ab" * 32)
    assert not allow_algorithm(file, "averaging", "ab" * 32)
    assert allow_algorithm(file, "averaging", "cd" * 32)
    allowed = read_organisation(file).policy.algorithms
    ours = ["xgboost"] if "algorithms" in policy else ["xgboost", "linear"]
    assert [(each.name, each.digest) for each in allowed] == [(name, None) for name in ours] + [
        ("averaging", "cd" * 32)
    ]
    after = YAML(typ="safe").load(file)
    assert {**after, "policy": None} == {**before, "policy": None}
    assert (after["policy"] | {"algorithms": None}) == ((before.get("policy") or {}) | {"algorithms": None})
    assert "# ours alone" in file.read_text() and ("# whom we know" in file.read_text()) == ("whom" in policy)
