"""Offering and withdrawing through REST and SDK: in one's own name, by owners alone, within sizes."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

import lepton_pipelines as lp
from lepton_pipelines.ledger.documents import LARGEST
from lepton_pipelines.portal.client import Refused
from lepton_pipelines.portal.guarding import LARGEST_DOCUMENT
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.yaml_file import read_yaml

CONTRACT = Path(__file__).parents[2] / "examples/healthcare/contract.odcs.yaml"
PAGE = (Path(__file__).parents[2] / "docs/algorithms.md").read_text()
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
WHY = {"reason": "no longer kept"}


def told(**product):
    contract = json.loads(json.dumps(read_yaml(CONTRACT).data, default=str))
    return {
        "product": {"product": "biopsies", "organisation": "north", "title": "Biopsies", **product},
        "contract": contract,
    }


def test_a_product_is_published_changed_and_withdrawn_in_ones_own_name_alone(world, open_portal):
    owner = open_portal(world).sign_in(world, "north")
    first = owner.post("/api/v1/products", json=told())
    assert (first.status_code, first.json()["version"], first.json()["columns"]) == (201, 1, 32)
    assert owner.post("/api/v1/products", json=told()).json()["version"] == 1
    assert owner.post("/api/v1/products", json=told(terms={"runs": 3})).json()["version"] == 2
    another = owner.post("/api/v1/products", json=told(organisation="harbour"))
    assert another.status_code == 409 and "you speak for north" in another.text
    theirs = owner.post("/api/v1/products/harbour/patients/withdraw", json=WHY)
    assert theirs.status_code == 409 and "only harbour can" in theirs.text
    assert owner.post("/api/v1/products/north/biopsies/withdraw", json=WHY).status_code == 204
    assert "north/biopsies" not in owner.get("/api/v1/products").text


@pytest.mark.parametrize("role", ["engineer", "operator", "auditor"])
def test_only_owners_publish(role, door, built):
    door.sign_in(built, "north", role)
    assert door.post("/api/v1/products", json=told()).status_code == 403


def test_a_wrong_contract_and_oversized_ones_are_refused(world, open_portal):
    owner = open_portal(world).sign_in(world, "north")
    assert owner.post("/api/v1/products", json={**told(), "contract": {"kind": "nothing"}}).status_code == 409
    large = told()
    large["contract"]["description"] = {"purpose": "x" * LARGEST}
    answer = owner.post("/api/v1/products", json=large)
    assert answer.status_code == 409 and "too long for the ledger" in answer.text
    large["contract"]["description"] = {"purpose": "x" * LARGEST_DOCUMENT}
    assert owner.post("/api/v1/products", json=large).status_code == 413


def test_a_model_is_offered_by_who_published_it_and_withdrawn(world, open_portal):
    offer = {"model": "breast-cancer", "version": 1, "licence": "CC-BY-4.0", "title": "Another card"}
    harbour = open_portal(world).sign_in(world, "harbour").post("/api/v1/models", json=offer)
    assert harbour.status_code == 404 and "harbour has published no" in harbour.text
    owner = open_portal(world).sign_in(world, "north")
    assert owner.get("/api/v1/models/breast-cancer/1").json()["offer"] == "north/breast-cancer"
    assert owner.post("/api/v1/models/breast-cancer/1/withdraw", json=WHY).status_code == 204
    assert owner.get("/api/v1/models/breast-cancer/1").json()["offer"] is None
    assert owner.post("/api/v1/models/breast-cancer/1/withdraw", json=WHY).status_code == 404


def test_an_algorithms_file_is_one_of_the_folder_for_it_and_no_other(world, open_portal):
    owner = open_portal(world).sign_in(world, "north")
    for file in ("../signing.key", "signing.key", "/etc/passwd", "a/b.yaml", ".hidden.yaml"):
        assert owner.post("/api/v1/algorithms", json={"file": file}).status_code == 422
    answer = owner.post("/api/v1/algorithms", json={"file": "missing.yaml"})
    assert answer.status_code == 404 and "in the folder offers" in answer.text
    assert owner.post("/api/v1/algorithms/valley/averaging/1.0/withdraw", json=WHY).status_code == 409
    valley = open_portal(world).sign_in(world, "valley")
    assert valley.post("/api/v1/algorithms/valley/averaging/1.0/withdraw", json=WHY).status_code == 204
    assert valley.get("/api/v1/algorithms/valley/averaging/1.0").status_code == 404


def test_the_sdk_publishes_an_algorithm_that_is_installed_and_others_hold_theirs_against_it(
    served, build_wheel, pip_install, tmp_path
):
    offers = served.world.home("north").folder / "offers"
    offers.mkdir()
    wheel = build_wheel(AVERAGING)
    pip_install(wheel)
    shutil.copy(wheel, offers)
    (offers / "averaging.yaml").write_text(
        f"organisation: north\ntitle: Mean\nlicence: Apache-2.0\nwheel: {wheel.name}\n"
        "sums: [{name: averaging/labels, what: labels, reveals: their mean}]\n"
    )
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        offered = platform.algorithms.publish("averaging.yaml")
        assert offered.id == "north/averaging"
        with lp.Platform(served.url, home=served.world.home("valley").folder) as valley:
            pulled = valley.algorithms.pull("north/averaging", cache=tmp_path)
            assert pulled.read_bytes() == wheel.read_bytes()
            with pytest.raises(UserError, match="you asked for MIT"):
                valley.algorithms.pull("north/averaging", licence="MIT", cache=tmp_path)
            assert valley.algorithms.verify("north/averaging") == offered.code
            own = tmp_path / "valley.yaml"
            own.write_text("organisation: valley\ndata: rows.parquet\n")
            assert valley.algorithms.use("north/averaging", organisation=own)
            assert not valley.algorithms.use("north/averaging", "1.0", organisation=own)
            assert offered.code in own.read_text()
            with pytest.raises(UserError, match=r"north/averaging 9\.0 is not on offer"):
                valley.algorithms.verify("north/averaging", "9.0")
        platform.algorithms.withdraw("north/averaging", "1.0", reason="old")


def test_the_sdk_publishes_a_file_and_pulls_rows_by_their_digest(served, tmp_path):
    shutil.copy(CONTRACT, tmp_path)
    rows = tmp_path / "rows.parquet"
    rows.write_bytes(b"rows that may be shown")
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    spec = tmp_path / "waves.yaml"
    shareable = f"{{url: {rows}, digest: {digest}, licence: CC0-1.0}}"
    spec.write_text(
        f"product: waves\norganisation: north\ntitle: Waves\ncontract: {CONTRACT.name}\nshareable: {shareable}\n"
    )
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        assert platform.market.publish(spec).product == "north/waves"
        pulled = platform.market.pull("north/waves", cache=tmp_path / "cache", to=tmp_path / "copy.parquet")
        assert pulled.read_bytes() == rows.read_bytes()
        with pytest.raises(UserError, match=r"has the licence CC0-1\.0"):
            platform.market.pull("north/waves", cache=tmp_path / "cache", licence="MIT")
        with pytest.raises(UserError, match="is not shareable"):
            platform.market.pull("harbour/patients", cache=tmp_path / "cache")
        platform.market.withdraw("north/waves", reason="done")
        with pytest.raises(Refused, match="withdrawn"):
            platform.market.show("north/waves")
