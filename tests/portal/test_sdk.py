"""`lp.Platform` against a portal that is served, as its docstrings promise."""

import doctest
import operator
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import lepton_pipelines as lp
from lepton_pipelines.cli.app import app
from lepton_pipelines.portal import algorithm_client, client, model_client, pool_client
from lepton_pipelines.spec.errors import UserError

LEPTON = Path(sys.executable).with_name("lepton")
CONTRACT = Path(__file__).parents[2] / "examples/healthcare/contract.odcs.yaml"
FINDER = doctest.DocTestFinder()
EXAMPLES = [
    found
    for module in (client, pool_client, model_client, algorithm_client)
    for found in FINDER.find(module, module.__name__.rsplit(".")[-1], globs={})
    if found.examples
]


# The SDK's verb for each of the command line's, and why there is none where there is none.
VERBS = {
    "market publish": "market.publish",
    "market withdraw": "market.withdraw",
    "market search": "market.search",
    "market show": "market.show",
    "market compatible": "market.compatible",
    "market request": "market.request",
    "market grant": "market.grant",
    "market refuse": "market.refuse",
    "market revoke": "market.revoke",
    "market usage": "market.usage",
    "market pull": "market.pull",
    "market publish-model": "models.publish",
    "market withdraw-model": "models.withdraw",
    "market models": "models.search",
    "market show-model": "models.show",
    "market pull-model": "models.pull",
    "market publish-algorithm": "algorithms.publish",
    "market withdraw-algorithm": "algorithms.withdraw",
    "market algorithms": "algorithms.search",
    "market show-algorithm": "algorithms.show",
    "market pull-algorithm": "algorithms.pull",
    "market verify-algorithm": "algorithms.verify",
    "market use-algorithm": "algorithms.use",
    "pool offer": "pool.offer",
    "pool withdraw": "pool.withdraw",
    "pool offers": "pool.offers",
    "pool reserve": "pool.reserve",
    "pool release": "pool.release",
    "pool run": "pool.run",
    "pool result": "pool.result",
    "pool status": "pool.status",
    "ledger show": "ledger.show",
    "ledger prove": "ledger.prove",
    "ledger verify": "ledger.verify",
    "model verify": "models.verify",
}
AT_HOME_ONLY = {
    "market contribution": "it trains at every member for as long as several runs take",
    "pool deploy": "it registers a flow on the owner's own Prefect server",
    "pool serve": "it is the owner's own process, which runs for as long as computers are on offer",
}


def test_every_verb_of_the_command_line_is_one_of_the_sdk_or_stays_at_home_for_a_reason(built):
    command = typer.main.get_command(app)
    verbs = {
        f"{group} {verb}"
        for group in ("market", "pool", "ledger", "model")
        for verb in command.get_command(None, group).list_commands(None)
    }
    assert verbs == VERBS.keys() | AT_HOME_ONLY.keys()
    platform = lp.Platform("http://127.0.0.1:8800", home=built.home("north").folder)
    for verb in VERBS.values():
        assert callable(operator.attrgetter(verb)(platform)), verb


def test_most_verbs_have_an_example():
    assert len(EXAMPLES) >= 20


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


def test_products_that_fit_a_contract_are_found_and_others_are_not(served, tmp_path):
    other = tmp_path / "contract.odcs.yaml"
    other.write_text(CONTRACT.read_text().replace("mean_radius", "mean_diameter"))
    with lp.Platform(served.url, home=served.world.home("north").folder) as platform:
        assert [one.product for one in platform.market.search(fits=CONTRACT)] == ["harbour/patients"]
        assert platform.market.search("no such words", fits=CONTRACT) == []
        assert platform.market.search(fits=other) == []


def test_a_model_is_pulled_once_under_the_licence_that_was_asked_for_and_is_the_champion_if_that_is_wanted(served):
    from lepton_pipelines.registry.tracking import open_tracking

    home = served.world.home("harbour").folder
    with lp.Platform(served.url, home=home) as platform:
        with pytest.raises(client.Refused, match=r"has the licence CC-BY-4\.0, you asked for MIT"):
            platform.models.pull("north/breast-cancer", licence="MIT")
        first = platform.models.pull("north/breast-cancer", 1)
        again = platform.models.pull("north/breast-cancer", use=True)
        with pytest.raises(client.Refused, match="v7 is not on offer") as refused:
            platform.models.pull("north/breast-cancer", 7)
    assert refused.value.status == 404
    assert (first.registered_model, first.version) == (again.registered_model, again.version)
    assert "@champion" in again.serve and any("entry" in step for step in first.proved)
    registry = open_tracking(None, folder=served.world.var.absolute()).client()
    assert registry.get_model_version_by_alias(first.registered_model, "champion").version == first.version


def test_who_may_only_read_pulls_no_model(served):
    home = served.world.home("valley").folder
    with (
        lp.Platform(served.url, home=home, roles=["auditor"]) as platform,
        pytest.raises(client.Refused, match="does not give the right to pull"),
    ):
        platform.models.pull("north/breast-cancer")
    with (
        lp.Platform(served.url, home=home, roles=["operator"]) as platform,
        pytest.raises(client.Refused, match="does not give the right to pull"),
    ):
        platform.document("0" * 64)


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
