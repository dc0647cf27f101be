"""Algorithms on offer: found with what their sums reveal, pulled by digest, never installed and never run."""

import dataclasses
import re
import sys
from pathlib import Path

import fsspec
import pytest

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.documents import LARGEST_MODEL
from lepton_pipelines.ledger.errors import DocumentRefused, EntryRefused
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market import algorithms
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.spec.algorithm_code import code_of_wheel
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import read_organisation

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
MORE = re.search(r"```yaml\n(organisation: north\n.*?)```", PAGE, flags=re.DOTALL)[1]


def nothing_is_fetched(url):
    raise AssertionError(url)


@pytest.fixture
def wheel(build_wheel, pip_install):
    """The page's algorithm, installed where it is published."""
    wheel = build_wheel(AVERAGING)
    pip_install(wheel)
    return wheel


@pytest.fixture
def write(tmp_path):
    """Write an algorithm's file for a wheel beside it, as the page shows one."""

    def run(wheel, **changes):
        spec = tmp_path / "averaging.yaml"
        text = re.sub(r"wheel: .*", f"wheel: {wheel.name}", MORE)
        spec.write_text(text + "".join(f"{name}: {value}\n" for name, value in changes.items()))
        return spec

    return run


@pytest.fixture
def offered(market, wheel, write):
    assert algorithms.offer_algorithm(market.of("north"), write(wheel)) == ("north/averaging", "1.0", True)
    return algorithms.algorithm_offer(market.of("valley"), "north/averaging")


def test_what_is_offered_is_found_by_everybody_with_its_parameters_and_what_it_reveals(market, offered, wheel, write):
    (found,) = algorithms.algorithm_offers(market.of("valley"), "labels mean")
    assert found == offered
    assert found.card.parameters["properties"]["digits"]["maximum"] == 9
    assert [one.name for one in found.card.sums] == ["averaging/labels"]
    assert "mean" in found.card.sums[0].reveals
    assert found.code == code_of_wheel(wheel).digest
    assert algorithms.algorithm_offers(market.of("valley"), "boosting") == []
    assert algorithms.offer_algorithm(market.of("north"), write(wheel)) == ("north/averaging", "1.0", False)
    assert any("1 algorithm" in line for line in verify_ledger(market.folder / "var" / "ledger" / "valley").proved)


def test_a_wheel_is_pulled_whole_and_nothing_of_it_runs(market, offered, wheel, tmp_path):
    for module in [name for name in sys.modules if name.startswith("lepton_averaging")]:
        del sys.modules[module]
    for _ in range(2):
        path = algorithms.pull_algorithm(market.of("valley").get, offered, tmp_path / "kept", nothing_is_fetched)
    assert path.read_bytes() == wheel.read_bytes() and path.name == wheel.name
    assert not [name for name in sys.modules if name.startswith("lepton_averaging")]


def test_a_copy_that_was_spoilt_here_is_fetched_again_and_one_spoilt_at_its_source_is_refused(
    market, offered, tmp_path
):
    place = market.of("valley")
    path = algorithms.pull_algorithm(place.get, offered, tmp_path / "kept", nothing_is_fetched)
    whole = path.read_bytes()
    path.write_bytes(b"spoilt")
    assert algorithms.pull_algorithm(place.get, offered, tmp_path / "kept", nothing_is_fetched).read_bytes() == whole
    path.unlink()
    (place.var / "ledger" / "_log" / "documents" / offered.wheel).write_bytes(whole + b" ")
    with pytest.raises(DocumentRefused, match="was changed"):
        algorithms.pull_algorithm(place.get, offered, tmp_path / "kept", nothing_is_fetched)


def test_a_wheel_that_holds_other_code_than_the_ledger_says_is_not_kept(market, offered, tmp_path):
    other = dataclasses.replace(offered, code="ab" * 32)
    with pytest.raises(MarketRefused, match="is not the code that it should be"):
        algorithms.pull_algorithm(market.of("valley").get, other, tmp_path / "kept", nothing_is_fetched)
    assert not list((tmp_path / "kept").rglob("*.whl"))


def test_another_licence_than_the_one_asked_for_is_refused_before_anything_is_fetched(market, offered, tmp_path):
    with pytest.raises(MarketRefused, match=r"Apache-2\.0, you asked for MIT"):
        algorithms.pull_algorithm(
            market.of("valley").get, offered, tmp_path / "kept", nothing_is_fetched, licence="MIT"
        )
    assert not (tmp_path / "kept").exists()


def test_a_wheel_that_is_too_long_for_the_hub_is_fetched_from_its_address(
    market, build_wheel, pip_install, write, tmp_path
):
    wheel = build_wheel(AVERAGING, **{"lepton_averaging/table.txt": "x" * (LARGEST_MODEL + 1)})
    pip_install(wheel)
    with pytest.raises(MarketRefused, match="as url"):
        algorithms.offer_algorithm(market.of("north"), write(wheel))
    files = fsspec.filesystem("memory")
    files.pipe("/wheels/averaging.whl", wheel.read_bytes())
    algorithms.offer_algorithm(market.of("north"), write(wheel, url="memory://wheels/averaging.whl"))
    found = algorithms.algorithm_offer(market.of("valley"), "north/averaging")

    def open_url(url):
        return fsspec.open(url, "rb").open()

    pulled = algorithms.pull_algorithm(market.of("valley").get, found, tmp_path / "kept", open_url)
    assert pulled.read_bytes() == wheel.read_bytes()
    files.pipe("/wheels/averaging.whl", wheel.read_bytes() + b" ")
    with pytest.raises(MarketRefused, match="is not kept"):
        algorithms.pull_algorithm(market.of("valley").get, found, tmp_path / "again", open_url)
    files.rm("/wheels", recursive=True)


def test_a_version_is_one_wheel_for_ever(market, offered, build_wheel, pip_install, write):
    north = market.of("north")
    algorithms.withdraw_algorithm(north, "north/averaging", None, "superseded")
    with pytest.raises(MarketRefused, match="north/averaging is not on offer"):
        algorithms.algorithm_offer(north, "north/averaging")
    with pytest.raises(EntryRefused, match="another wheel is another version"):
        north.record(
            entries.AlgorithmOffered, offer="north/averaging", version="1.0", wheel="ab" * 32, code="cd" * 32,
            card="ef" * 32,
        )  # fmt: skip


def test_nobody_offers_or_withdraws_under_anothers_name(market, offered, wheel, write):
    with pytest.raises(MarketRefused, match="is north's, but you speak for valley"):
        algorithms.offer_algorithm(market.of("valley"), write(wheel))
    with pytest.raises(EntryRefused, match="valley cannot speak for north/averaging"):
        algorithms.withdraw_algorithm(market.of("valley"), "north/averaging", None, "mine now")


def test_only_the_wheel_that_is_installed_here_is_offered(market, wheel, write, build_wheel):
    build_wheel(AVERAGING + "# newer\n")
    with pytest.raises(MarketRefused, match="is not the code that it should be"):
        algorithms.offer_algorithm(market.of("north"), write(wheel))


def test_an_algorithm_is_used_once_its_own_code_is_installed(market, offered, tmp_path):
    own = tmp_path / "valley.yaml"
    own.write_text("organisation: valley\ndata: rows/\n")
    assert algorithms.verify_installed(offered).digest == offered.code
    assert algorithms.use_algorithm(offered, own)
    assert read_organisation(own).policy.algorithms[-1].digest == offered.code
    with (tmp_path / "installed" / "lepton_averaging" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(MarketRefused, match="what is installed here as averaging is not the code"):
        algorithms.use_algorithm(offered, own)


def test_an_algorithm_that_is_not_installed_is_named(market, offered, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path / "installed")])
    with pytest.raises(UserError, match="algorithm averaging is not installed here"):
        algorithms.verify_installed(offered)
