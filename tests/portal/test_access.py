"""Who may do what at the portal: by session, by right, by token; taken from the route table itself."""

import re

import pytest
from fastapi.routing import APIRoute

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.portal.app import create_app
from lepton_pipelines.portal.guarding import CSRF_HEADER, LARGEST_BODY, Limits, right_of
from lepton_pipelines.portal.roles import RIGHTS, Right, Role, read_people
from lepton_pipelines.portal.signing_in import CHALLENGE_SECONDS, IDLE_SECONDS, Door, statement
from lepton_pipelines.spec.errors import UserError

# What may be called by who is not signed in: nothing of the ledger, the market or a run.
PUBLIC = {
    ("GET", "/api/v1/health"), ("POST", "/api/v1/challenges"), ("POST", "/api/v1/sessions"),
    ("GET", "/sign-in"), ("GET", "/sign-in/{ticket}"), ("POST", "/sign-in/{ticket}"),
}  # fmt: skip
VALUES = {
    "owner": "harbour",
    "name": "patients",
    "number": "g-1",
    "version": "1",
    "run": "r-1",
    "index": "0",
    "held": "c-1",
    "job": "j-1",
    "digest": "0" * 64,
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def routes() -> list[tuple[str, str, Right | None]]:
    """Return the application's own route table: method, path, right."""
    app = create_app({}, "http://127.0.0.1:8800")
    found = [route for route in _flat(app.routes) if isinstance(route, APIRoute)]
    return [(method, route.path, right_of(route.dependant)) for route in found for method in sorted(route.methods)]


def _flat(table):
    for route in table:
        inner = getattr(route, "original_router", None)
        yield from _flat(inner.routes) if inner is not None else [route]


def concrete(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: VALUES.get(found[1], "x"), path)


def test_the_route_table_is_what_was_looked_at():
    assert len(routes()) > 40


@pytest.mark.parametrize(("method", "path", "right"), routes(), ids=str)
def test_without_a_session_no_route_answers_but_the_public_ones(method, path, right, door):
    if (method, path) in PUBLIC:
        assert right is None
        return
    assert right is not None, "the route asks for no right"
    answer = door.request(method, concrete(path))
    if answer.status_code == 303:
        assert answer.headers["Location"] == "/sign-in" and method == "GET" and not path.startswith("/api/")
    else:
        assert answer.status_code == 401


@pytest.mark.parametrize("role", list(Role), ids=str)
def test_a_role_reaches_exactly_the_routes_of_its_rights(role, door, built):
    door.sign_in(built, "north", role.value)
    for method, path, right in routes():
        if right is None or path in ("/sign-out", "/api/v1/session"):
            continue
        headers = {} if method == "GET" else {CSRF_HEADER: "wrong"}  # so that nothing happens to the folder
        answer = door.request(method, concrete(path), headers=headers)
        if right not in RIGHTS[role]:
            assert answer.status_code == 403 and "does not give the right" in answer.text, path
        elif method == "GET":
            assert answer.status_code in (200, 404, 422), f"{path} {answer.text}"


@pytest.mark.parametrize(("method", "path", "right"), [r for r in routes() if r[0] != "GET" and r[2]], ids=str)
def test_nothing_is_changed_without_the_sessions_token(method, path, right, door, built):
    door.sign_in(built, "harbour")
    del door.headers[CSRF_HEADER]
    for headers in ({}, {CSRF_HEADER: "x" * 43}, {**FORM}):
        body = "csrf=another&decision=grant" if FORM.items() <= headers.items() else ""
        answer = door.request(method, concrete(path), headers=headers, content=body)
        assert answer.status_code == 403 and CSRF_HEADER in answer.text


def test_what_another_site_sends_is_refused_even_with_the_token(door, built):
    door.sign_in(built, "harbour")
    answer = door.post("/api/v1/ledger/verify", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403 and "another site" in answer.text
    assert door.post("/api/v1/ledger/verify", headers={"Origin": "http://127.0.0.1:8800"}).status_code == 200


def test_another_name_that_points_here_is_refused(door):
    assert door.get("/api/v1/health", headers={"Host": "rebound.example"}).status_code == 400


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_pages_may_run_nothing_of_others(door, built):
    challenge = door.post("/api/v1/challenges").json()
    signed = statement(challenge["address"], "north", "", [], challenge["nonce"])
    answer = door.post(
        "/api/v1/sessions",
        json={
            "name": "north",
            "nonce": challenge["nonce"],
            "signature": built.home("north").signer().sign(signed).hex(),
        },
    )
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    headers = door.get("/").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "same-origin")


def sign(door, built, **changed):
    """Sign in as north, with something changed in what is signed or sent; return the answer's number."""
    challenge = door.post("/api/v1/challenges").json()
    told = {"name": "north", "key": "north", "address": challenge["address"], "roles": [], "at": None, **changed}
    nonce = changed.get("nonce", challenge["nonce"])
    signed = statement(
        told["address"], told["name"], told["at"] or "", changed.get("signed_roles", told["roles"]), nonce
    )
    answer = {
        "name": told["name"], "nonce": nonce, "roles": told["roles"], "organisation": told["at"],
        "signature": built.home(told["key"]).signer().sign(signed).hex(),
    }  # fmt: skip
    return door.post("/api/v1/sessions", json=answer).status_code


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "harbour"},  # another's key
        {"address": "http://127.0.0.1:9999"},  # signed for another portal, which passes it on
        {"nonce": "00" * 32},  # a challenge that we never made
        {"name": "mallory"},
        {"at": "harbour"},  # at a stand where it has no role
        {"roles": ["owner"], "signed_roles": ["auditor"]},  # more than was signed for
    ],
    ids=str,
)
def test_a_wrong_answer_signs_nobody_in(changed, door, built):
    assert sign(door, built) == 201
    assert sign(door, built, **changed) == 403


def test_an_answer_is_good_once(door, built):
    challenge = door.post("/api/v1/challenges").json()
    signed = statement(challenge["address"], "north", "", [], challenge["nonce"])
    signature = built.home("north").signer().sign(signed).hex()
    answer = {"name": "north", "nonce": challenge["nonce"], "signature": signature}
    assert [door.post("/api/v1/sessions", json=answer).status_code for _ in range(2)] == [201, 403]


def test_challenges_links_and_sessions_end_by_the_clock():
    now = [0.0]
    door = Door(clock=lambda: now[0])
    session = door.open("north", "north", b"key", frozenset({Role.AUDITOR}))
    token, ticket, nonce = door.hand_out(session), door.link(session), door.challenge()
    now[0] += CHALLENGE_SECONDS + 1
    assert door.behind(ticket, use=True) is None
    assert not door.answers(nonce, bytes(32), bytes(64), b"")
    assert door.session(token) is session
    now[0] += IDLE_SECONDS + 1
    assert door.session(token) is None


def test_a_link_opens_one_browser_after_it_was_confirmed(door, built):
    challenge = door.post("/api/v1/challenges").json()
    signed = statement(challenge["address"], "north", "", ["auditor"], challenge["nonce"])
    signature = built.home("north").signer().sign(signed).hex()
    told = door.post(
        "/api/v1/sessions",
        json={
            "name": "north",
            "roles": ["auditor"],
            "nonce": challenge["nonce"],
            "signature": signature,
            "browser": True,
        },
    ).json()
    assert told["csrf"] == "" and "lepton_session" not in door.cookies
    assert "Sign in as north?" in door.get(told["link"]).text
    assert "lepton_session" not in door.cookies
    assert door.post(told["link"]).status_code == 303
    assert door.get("/api/v1/session").json()["roles"] == ["auditor"]
    assert door.post(told["link"]).status_code == 404


def test_too_many_questions_are_refused_for_a_while(built, open_portal):
    few = open_portal(built, Limits(requests=5, sign_ins=2, verifications=1))
    assert [few.post("/api/v1/challenges").status_code for _ in range(3)] == [201, 201, 429]
    assert [few.get("/api/v1/health").status_code for _ in range(3)] == [200, 200, 429]


def test_a_body_that_is_too_large_is_refused(door, built):
    door.sign_in(built, "north")
    answer = door.post(
        "/api/v1/requests", content=b" " * (LARGEST_BODY + 1), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_the_file_at_home_gives_roles_to_organisations_and_persons(world, open_portal, tmp_path):
    mira = OrganisationHome.create(tmp_path / "mira", "mira")
    home = world.home("north")
    (home.folder / "portal.yaml").write_text(
        "people:\n  north: {roles: [owner]}\n"
        f"  mira: {{roles: [auditor, engineer], key: {mira.signer().public.hex()}}}\n"
    )
    people = read_people(home)
    assert {name: roles for name, (_, roles) in people.items()} == {
        "north": {Role.OWNER},
        "mira": {Role.AUDITOR, Role.ENGINEER},
    }
    (world.var / "identity" / "mira").symlink_to(tmp_path / "mira")
    door = open_portal(world)
    told = door.sign_in(world, "mira", at="north").get("/api/v1/session").json()
    assert (told["name"], told["organisation"], told["roles"]) == ("mira", "north", ["auditor", "engineer"])


def test_a_name_without_a_key_in_that_file_is_named(world):
    home = world.home("north")
    (home.folder / "portal.yaml").write_text("people:\n  harbour: {roles: [auditor]}\n")
    with pytest.raises(UserError, match=r"harbour has no key here.*lepton org trust harbour\.request"):
        read_people(home)


def test_who_loses_a_role_in_that_file_is_signed_out_at_once(world, open_portal):
    door = open_portal(world).sign_in(world, "north")
    assert door.get("/api/v1/runs").status_code == 200
    (world.home("north").folder / "portal.yaml").write_text("people:\n  north: {roles: [auditor]}\n")
    assert door.get("/api/v1/runs").status_code == 401
    assert door.sign_in(world, "north").get("/api/v1/session").json()["roles"] == ["auditor"]
