"""`lp.Platform` against a portal that is served, as its docstrings promise."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import lepton_pipelines as lp
from lepton_pipelines.portal import client, pool_client
from lepton_pipelines.spec.errors import UserError

LEPTON = Path(sys.executable).with_name("lepton")
FINDER = doctest.DocTestFinder()
EXAMPLES = [
    found
    for module in (client, pool_client)
    for found in FINDER.find(module, module.__name__.rsplit(".")[-1], globs={})
    if found.examples
]


def test_most_verbs_have_an_example():
    assert len(EXAMPLES) >= 17


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda found: found.name)
def test_the_docstrings_example_is_true(example, served):
    home = served.world.home("north").folder
    told: list[str] = []
    with lp.Platform(served.url, home=home) as platform:
        example.globs = {
            "Platform": lp.Platform,
            "platform": platform,
            "url": served.url,
            "home": home,
            "harbour_home": served.world.home("harbour").folder,
        }
        assert doctest.DocTestRunner(verbose=False).run(example, out=told.append).failed == 0, "".join(told)


def test_a_refusal_is_told_in_the_portals_words_with_its_status(served):
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        with pytest.raises(client.Refused, match="only harbour can") as refused:
            platform.market.refuse("harbour/patients", served.world.open, reason="no")
        assert refused.value.status == 409
        with pytest.raises(client.Refused, match="has no request g-none"):
            platform.market.grant("harbour/patients", "g-none")


def test_a_portal_that_forgot_the_session_is_signed_in_at_again(served):
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        assert platform.whoami().name == "north"
        platform._http.cookies.clear()
        assert platform.whoami().name == "north"


def test_who_may_not_sign_in_is_told_so(served):
    home = served.world.home("north").folder
    with (
        lp.Platform(served.url, home=home, organisation="harbour") as platform,
        pytest.raises(client.Refused, match="north cannot sign in here"),
    ):
        platform.organisations()


@pytest.mark.parametrize(
    ("url", "told"), [("127.0.0.1:8800", "no portal's address"), ("http://127.0.0.1:1", "not answer")]
)
def test_a_wrong_address_is_named(url, told, built):
    with pytest.raises(UserError, match=told):
        lp.Platform(url, home=built.home("north").folder).organisations()


def test_the_command_signs_in_and_prints_a_link_that_opens_once(served):
    home = served.world.home("valley").folder
    command = [LEPTON, "portal", "sign-in", served.url, "--home", home, "--role", "auditor", "--no-browser"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    link = ended.stdout.split()[-1]
    assert link.startswith(f"{served.url}/sign-in/")
    import httpx

    with httpx.Client() as browser:
        assert "Sign in as valley?" in browser.get(link).text
        assert browser.post(link).status_code == 303
        assert "valley" in browser.get(served.url).text
        assert browser.post(link).status_code == 404
