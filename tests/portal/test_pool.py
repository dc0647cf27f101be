"""The compute pool at the portal: offered, reserved, worked on and released by REST and SDK, within one's rights."""

import inspect

import pytest
from typer.main import get_command

import lepton_pipelines as lp
from lepton_pipelines.cli.pool import app as commands
from lepton_pipelines.portal.client import Refused
from lepton_pipelines.portal.pool_client import Pool
from lepton_pipelines.spec.errors import UserError

OFFER = "/api/v1/pool/offers/harbour/evenings"
WANTED = {"work": "benchmark", "cores": 2, "memory": "1 GB", "hours": 1}


def test_the_sdk_has_the_command_lines_verbs():
    verbs = {name for name, _ in inspect.getmembers(Pool, inspect.isfunction) if not name.startswith("_")}
    assert verbs - {"show"} == set(get_command(commands).commands) - {"serve", "deploy"}


def test_an_offer_shows_its_terms_what_is_free_and_who_reserved_what(door, built):
    told = door.sign_in(built, "valley", "auditor").get(OFFER).json()
    assert (told["owner"], told["quota"], told["free"]["cores"]) == ("harbour", 100, 12)
    assert told["reserved_core_hours_this_month"] == {"north": 8.0}
    (held,) = told["reservations"]
    assert (held["holder"], held["state"], held["jobs"][0]["outcome"]) == ("north", "held", "done")


def test_what_has_no_room_is_refused_with_what_is_in_the_way(world, open_portal):
    door = open_portal(world).sign_in(world, "valley")
    answer = door.post("/api/v1/pool/reservations", json={**WANTED, "cores": 13})
    assert answer.status_code == 409
    assert f"reserved are {world.held} of north" in answer.json()["problems"][0]


def test_private_work_is_no_work_of_the_pool(world, open_portal):
    door = open_portal(world).sign_in(world, "harbour")
    assert door.post("/api/v1/pool/reservations", json={**WANTED, "work": "training"}).status_code == 422
    held = door.post("/api/v1/pool/reservations", json={**WANTED, "work": "scoring"}).json()["reservation"]
    job = {"work": "scoring", "model": "m", "version": 1, "source": "/etc", "target": "/etc"}
    assert door.post(f"/api/v1/pool/reservations/{held}/jobs", json={"job": job}).status_code == 422


def test_a_reservation_is_released_by_its_holder_or_by_who_decides_at_its_owner(world, open_portal):
    path, why = f"/api/v1/pool/reservations/{world.held}/release", {"reason": "needed"}
    another = open_portal(world).sign_in(world, "valley").post(path, json=why)
    assert another.status_code == 409 and "valley cannot release" in another.text
    engineer = open_portal(world).sign_in(world, "harbour", "engineer").post(path, json=why)
    assert engineer.status_code == 403 and "who may decide" in engineer.text
    owner = open_portal(world).sign_in(world, "harbour", "owner").post(path, json=why)
    assert owner.json()["state"] == "released"


def test_computers_are_offered_and_withdrawn_by_owners_alone(world, open_portal):
    told = {"offer": "nights", "organisation": "north", "title": "Nights", "cores": 4, "memory": "8 GB"}
    engineer = open_portal(world).sign_in(world, "north", "engineer")
    assert engineer.post("/api/v1/pool/offers", json=told).status_code == 403
    owner = open_portal(world).sign_in(world, "north")
    assert owner.post("/api/v1/pool/offers", json={**told, "compute": {"workers": 1}}).status_code == 422
    assert owner.post("/api/v1/pool/offers", json={**told, "organisation": "valley"}).status_code == 409
    assert owner.post("/api/v1/pool/offers", json=told).json()["memory"] == 8_000_000_000
    path = "/api/v1/pool/offers/north/nights"
    assert owner.post(f"{path}/withdraw", json={"reason": "moved"}).status_code == 204
    assert owner.get(path).status_code == 404


def test_a_form_reserves_and_another_gives_back(world, open_portal):
    door = open_portal(world).sign_in(world, "valley")
    form = {"csrf": door.headers["X-CSRF-Token"], "cores": "2", "memory": "1 GB", "hours": "0.5"}
    wrong = door.post("/pool/harbour/evenings/reserve", data={**form, "work": "benchmark", "cores": "many"})
    assert wrong.status_code == 409 and "cores: Input should be a valid integer" in wrong.text
    page = door.post("/pool/harbour/evenings/reserve", data={**form, "work": "benchmark"}).headers["Location"]
    assert "valley holds 2 cores" in door.get(page).text
    assert "Say why" in door.post(page, data={"csrf": form["csrf"]}).text
    assert door.post(page, data={**form, "reason": "done"}).status_code == 303
    assert "released" in door.get(page).text
    assert "Release</button>" not in door.get(page).text


def test_the_sdk_offers_from_a_file_asks_for_work_and_keeps_scoring_at_home(served, tmp_path):
    spec, job, scoring = tmp_path / "offer.yaml", tmp_path / "job.yaml", tmp_path / "scoring.yaml"
    spec.write_text(
        "offer: nights\norganisation: north\ntitle: Nights\ncores: 4\nmemory: 8 GB\ncompute: {workers: 1}\n"
    )
    job.write_text("work: benchmark\nrows: 1000\n")
    scoring.write_text("work: scoring\nmodel: m\nversion: 1\nsource: a\ntarget: b\n")
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        assert platform.pool.offer(spec).offer == "north/nights"
        held = platform.pool.reserve("benchmark", cores=1, memory="1 GB", hours=1, offer="north/nights")
        asked = platform.pool.run(held.reservation, job)
        assert platform.pool.result(asked.job).outcome == "asked"
        with pytest.raises(UserError, match="asked for there"):
            platform.pool.run(held.reservation, scoring)
        platform.pool.withdraw("north/nights", reason="moved")
        with pytest.raises(Refused, match="not on offer"):
            platform.pool.show("north/nights")
