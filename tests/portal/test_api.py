"""The API over real ledgers: what it tells is what the ledger holds, and what it does stands in the ledger."""

import base64
import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lepton_pipelines.ledger import entries
from lepton_pipelines.spec.errors import UserError

PRODUCT = "harbour/patients"
API = "/api/v1"


@pytest.fixture
def north(door, built):
    return door.sign_in(built, "north")


def test_organisations_are_the_ledgers_members_and_who_has_seen_its_head(north):
    found = {one["name"]: one for one in north.get(f"{API}/organisations").json()}
    assert list(found) == ["harbour", "north", "valley"]
    assert found["north"]["own"] and not found["valley"]["own"]
    assert found["harbour"]["products"] == [PRODUCT] and found["north"]["models"] == 1
    assert all(one["cosigned"] and one["runs"] == 2 for one in found.values())


def test_products_are_found_by_words_column_and_label(north):
    for query in ("text=aspirates", "domain=healthcare", "column=mean_radius", "label=malignant"):
        assert [one["product"] for one in north.get(f"{API}/products?{query}").json()] == [PRODUCT], query
    assert north.get(f"{API}/products?text=retail").json() == []
    shown = north.get(f"{API}/products/{PRODUCT}").json()
    assert (shown["rows"], shown["terms"]["runs"], shown["label"]) == (187, 20, "malignant")
    assert north.get(f"{API}/products/harbour/nothing").status_code == 404


def test_a_request_is_asked_granted_and_revoked_and_stands_in_the_ledger(world, open_portal):
    north, harbour = open_portal(world).sign_in(world, "north"), open_portal(world).sign_in(world, "harbour")
    asked = north.post(
        f"{API}/requests", json={"product": PRODUCT, "purpose": "a study", "runs": 3, "message": "please"}
    )
    assert asked.status_code == 201
    where = f"{API}/requests/{PRODUCT}/{asked.json()['grant']}"
    seen = harbour.get(where).json()
    assert (seen["state"], seen["message"], seen["runs_asked"], seen["to_decide"]) == ("asked", "please", 3, True)
    given = harbour.post(f"{where}/grant", json={"runs": 2, "until": "2030-01-31"}).json()
    assert (given["state"], given["runs_allowed"], given["until"]) == ("given", 2, "2030-01-31T23:59:59Z")
    assert harbour.post(f"{where}/revoke", json={"reason": "the study has ended"}).json()["state"] == "revoked"
    again = harbour.post(f"{where}/revoke", json={"reason": "once more"})
    assert again.status_code == 409 and "is revoked, not given" in again.text
    kinds = [one["kind"] for one in north.get(f"{API}/ledger?limit=3").json()["entries"]]
    assert kinds == ["grant-asked", "grant-given", "grant-revoked"]


def test_only_the_owner_decides_and_no_reason_tells_a_person(world, open_portal):
    north, harbour = open_portal(world).sign_in(world, "north"), open_portal(world).sign_in(world, "harbour")
    where = f"{API}/requests/{PRODUCT}/{world.open}"
    refused = north.post(f"{where}/grant", json={})
    assert refused.status_code == 409 and "only harbour can" in refused.text
    refused = harbour.post(f"{where}/refuse", json={"reason": "ask mira@example.org"})
    assert refused.status_code == 409 and "looks like an address or a number of a person" in refused.text
    assert harbour.get(where).json()["state"] == "asked"


def test_a_model_is_shown_with_its_whole_lineage(north, built):
    found = north.get(f"{API}/models/breast-cancer/1").json()
    assert (found["offer"], found["licence"], found["aliases"]) == ("north/breast-cancer", "CC-BY-4.0", ["champion"])
    titles = {node["title"] for node in found["lineage"]["nodes"]}
    assert {"harbour", "north", "valley", "run r-1", PRODUCT, "champion"} <= titles
    assert ["member harbour", "run"] in found["lineage"]["edges"] and ["run", "model"] in found["lineage"]["edges"]
    assert [f"grant {PRODUCT} {built.granted}", "member harbour"] in found["lineage"]["edges"]
    assert north.get(f"{API}/models/breast-cancer/2").status_code == 404


@pytest.mark.parametrize("document", [b"[]", b"no json", b'{"keywords": 5, "dateModified": {}}', b"[" * 60_000])
@pytest.mark.parametrize("which", ["description", "contract", "terms"])
def test_another_members_broken_documents_hide_nothing_and_break_nothing(which, document, world, open_portal):
    valley = world.of("valley")
    digest = valley.put(document)
    told = {"description": digest, "contract": digest, "terms": digest, "product": "valley/broken", "version": 1}
    if which != "description":
        known = valley.history().grants.products[PRODUCT].terms
        told |= {name: getattr(known, name) for name in ("description", "contract", "terms") if name != which}
    valley.record(entries.ProductPublished, **told)
    valley.record(
        entries.GrantAsked, grant="g-x", product=PRODUCT, request=digest, purpose="any",
        contract=valley.history().grants.products[PRODUCT].terms.contract,
    )  # fmt: skip
    harbour = open_portal(world).sign_in(world, "harbour")
    found = [one["product"] for one in harbour.get(f"{API}/products").json()]
    assert PRODUCT in found
    for page in ("/", "/products", "/products/valley/broken", f"/requests/{PRODUCT}/g-x", "/organisations"):
        assert harbour.get(page).status_code in (200, 409), page


def test_an_algorithm_is_shown_with_what_its_sums_reveal(north):
    (found,) = north.get(f"{API}/algorithms?text=labels").json()
    assert (found["id"], found["licence"]) == ("valley/averaging", "Apache-2.0")
    shown = north.get(f"{API}/algorithms/valley/averaging/1.0").json()
    assert [(one["name"], one["reveals"]) for one in shown["sums"]] == [("averaging/labels", "their mean")]
    assert north.get(f"{API}/algorithms/valley/averaging/2.0").status_code == 404


def test_a_run_that_goes_on_tells_its_rounds_and_scores(north):
    found = north.get(f"{API}/runs/r-2").json()
    assert (found["state"], found["rounds"], found["of"]) == ("open", 12, 60)
    assert len(found["history"]["valid"]["logloss"]) == 12
    done = north.get(f"{API}/runs/r-1").json()
    assert (done["state"], done["trees"], done["models"]) == ("finished", 3, ["breast-cancer/1"])
    assert done["joined"] == {"harbour": 187, "north": 214, "valley": None}


def rfc6962_root(index: int, size: int, leaf: bytes, hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1.1, turned round: the root that an audit path leads to, by recursion on the tree."""
    if size == 1:
        assert not hashes
        return hashlib.sha256(b"\0" + leaf).digest()
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        left, right = rfc6962_root(index, half, leaf, hashes[:-1]), hashes[-1]
    else:
        left, right = hashes[-1], rfc6962_root(index - half, size - half, leaf, hashes[:-1])
    return hashlib.sha256(b"\1" + left + right).digest()


def test_every_proof_leads_to_the_root_by_the_rfcs_own_definition(north):
    ledger = north.get(f"{API}/ledger?first=0&limit=500").json()
    for entry in ledger["entries"]:
        proof = north.get(f"{API}/ledger/{entry['index']}/proof").json()
        hashes = [base64.b64decode(each) for each in proof["hashes"]]
        root = rfc6962_root(proof["index"], proof["size"], base64.b64decode(proof["leaf"]), hashes)
        assert root.hex() == ledger["root"]


def test_a_changed_byte_is_found_by_verify(world, open_portal):
    north = open_portal(world).sign_in(world, "north")
    assert north.post(f"{API}/ledger/verify").json()["holds"]
    bundle = next(path for path in sorted((world.var / "ledger/north/tile/entries").rglob("*")) if path.is_file())
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    told = north.post(f"{API}/ledger/verify").json()
    assert not told["holds"] and told["problems"]


def test_importing_the_library_or_its_command_line_brings_no_web_framework():
    code = (
        "import sys, lepton_pipelines, lepton_pipelines.cli.app; "
        "print(*{'fastapi', 'starlette', 'uvicorn', 'httpx', 'jinja2', 'limits'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_hub_that_is_away_is_said_and_holds_no_page_up(world, open_portal):
    asked = threading.Event()

    def away():
        asked.set()
        raise UserError("the hub at hub.example.org:7443 does not answer")

    door = open_portal(world).sign_in(world, "north")
    door.app.state.portal.stands["north"].catch_up = away
    assert door.get("/").status_code == 200
    assert asked.wait(30)
    for _ in range(1000):
        told = door.get(f"{API}/ledger").json()["behind"]
        if told:
            break
    assert told == "the hub at hub.example.org:7443 does not answer"
    assert "may be behind: the hub at hub.example.org:7443" in door.get("/").text


def test_the_organisations_page_says_when_the_hub_heard_of_whom(world, open_portal):
    door = open_portal(world).sign_in(world, "north")
    assert "there is no hub that hears of anyone" in door.get("/organisations").text
    answer = threading.Event()

    def heard():
        assert answer.wait(30)
        return {"north": 1.0, "valley": 7200.0}

    stand = door.app.state.portal.stands["north"]
    stand.catch_up, stand.ask_heard = (lambda: None), heard
    assert "not asked yet" in door.get("/organisations").text  # a page does not wait for the hub
    answer.set()
    for _ in range(1000):
        page = door.get("/organisations").text
        if "not asked yet" not in page:
            break
    assert "2 hours ago" in page and " s ago" in page and "not since the hub was started" in page
    told = {one["name"]: one["seconds_since_heard"] for one in door.get(f"{API}/organisations").json()}
    assert told["harbour"] is None and told["north"] < 60 and told["valley"] >= 7200
