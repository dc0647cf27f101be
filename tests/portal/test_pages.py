"""The pages in a headless Chromium: what a person does, on a desk and on a phone, by keyboard and by ear."""

import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

import lepton_pipelines as lp
from lepton_pipelines.market import catalogue
from lepton_pipelines.portal.pages import NAVIGATION

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PRODUCT = "harbour/patients"
CONTRACT = Path(__file__).parents[2] / "examples/healthcare/contract.odcs.yaml"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
def portal(built, tmp_path, serve):
    """A portal of the test's own."""
    shutil.copytree(built.var, tmp_path / "var")
    yield from serve(type(built)(tmp_path / "var", built.granted, built.open, built.held))


@pytest.fixture
def visit(page, portal):
    """Sign a browser in by the link that the command prints, and go somewhere."""
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: _note(problems, message))
    page.on("dialog", lambda dialog: (problems.append("a script ran"), dialog.dismiss()))

    def sign_in(name, *roles):
        with lp.Platform(portal.url, home=portal.world.home(name).folder, roles=roles) as platform:
            page.goto(platform.link())
        page.get_by_role("button", name=f"Sign in as {name}").click()
        page.wait_for_url(f"{portal.url}/")
        return lambda path: page.goto(portal.url + path)

    yield sign_in
    assert problems == []


def _note(problems, message):
    # A refusal is an answer of the portal's, not an error of the page's.
    if message.type == "error" and "Failed to load resource" not in message.text:
        problems.append(message.text)


def paths(world):
    return [
        *(to for to, _, _ in NAVIGATION),
        f"/products/{PRODUCT}",
        "/publish/product",
        "/publish/algorithm",
        f"/requests/{PRODUCT}/{world.open}",
        f"/requests/{PRODUCT}/{world.granted}",
        "/models/breast-cancer/1",
        "/algorithms/valley/averaging/1.0",
        "/pool/harbour/evenings",
        f"/reservations/{world.held}",
        "/runs/r-1",
        "/runs/r-2",
        "/ledger/4",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_no_page_is_wider_than_the_screen(size, scheme, page, visit, portal, pictures):
    page.set_viewport_size(SIZES[size])
    page.emulate_media(color_scheme=scheme)
    axe, found = Axe(), {}
    page.goto(f"{portal.url}/sign-in")
    found["/sign-in"] = _violations(axe, page)
    go = visit("north" if size == "desk" else "harbour")
    for path in paths(portal.world):
        go(path)
        found[path] = _violations(axe, page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
        page.screenshot(path=pictures / f"portal-{size}-{scheme}-{path.strip('/').replace('/', '-') or 'overview'}.png")
    assert {path: problems for path, problems in found.items() if problems} == {}


def _violations(axe, page):
    told = axe.run(page, options={"runOnly": {"type": "tag", "values": AXE_TAGS}}).response["violations"]
    return [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in told]


def test_a_request_is_granted_with_one_click_and_stands_in_the_ledger(page, visit, portal):
    visit("harbour")
    page.get_by_role("link", name=PRODUCT).first.click()
    assert "valley asks for patients" in page.text_content("h1")
    page.get_by_role("button", name="Grant").click()
    assert "granted" in page.text_content("h1")
    grant = portal.world.of("valley").history().grants.by_id[PRODUCT, portal.world.open]
    assert (grant.state, grant.given.runs) == ("given", 2)


def test_refusing_needs_a_reason_and_the_other_side_reads_it(page, visit, portal):
    visit("harbour")(f"/requests/{PRODUCT}/{portal.world.open}")
    page.get_by_role("button", name="Refuse").click()
    assert "Say why" in page.get_by_role("alert").text_content()
    page.get_by_label("Reason").fill("not this year")
    page.get_by_role("button", name="Refuse").click()
    assert "refused" in page.text_content("h1")
    assert portal.world.of("valley").history().grants.by_id[PRODUCT, portal.world.open].reason == "not this year"


def test_a_product_is_found_and_asked_for(page, visit, portal):
    visit("north")("/products")
    page.get_by_label("Words").fill("aspirates")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=PRODUCT).click()
    page.get_by_label("Purpose").fill("a third study")
    page.get_by_label("Message to harbour").fill("with thanks")
    page.get_by_role("button", name="Ask harbour").click()
    assert "north asks for patients" in page.text_content("h1")
    assert "with thanks" in page.text_content("blockquote")
    asked = [grant.asked.purpose for grant in portal.world.of("harbour").history().grants.by_id.values()]
    assert "a third study" in asked


def test_a_product_is_offered_by_a_form_and_withdrawn_with_a_reason(page, visit, portal):
    visit("north")("/products")
    page.get_by_role("link", name="Offer a data product").click()
    page.get_by_label("Name").fill("biopsies")
    page.get_by_label("Title").fill("Biopsies of north")
    page.get_by_label("Rows, roughly").fill("1,200")
    page.get_by_label("Terms, as YAML").fill("runs: many")
    page.get_by_label("Contract (ODCS), as YAML").fill(CONTRACT.read_text())
    page.get_by_role("button", name="Offer").click()
    assert "product.terms.runs" in page.get_by_role("alert").text_content()
    assert page.get_by_label("Title").input_value() == "Biopsies of north"
    page.get_by_label("Terms, as YAML").fill("runs: 20")
    page.get_by_role("button", name="Offer").click()
    assert "north/biopsies, version 1" in page.text_content(".lead")
    (found,) = catalogue.search(portal.world.of("harbour"), "biopsies")
    assert (found.terms.runs, found.entry.terms.rows) == (20, 1200)
    page.get_by_role("button", name="Withdraw").click()
    assert "Say why" in page.get_by_role("alert").text_content()
    page.get_by_label("Reason").fill("no longer kept")
    page.get_by_role("button", name="Withdraw").click()
    assert "north/biopsies" not in page.text_content("main")
    assert catalogue.search(portal.world.of("harbour"), "biopsies") == []


def test_a_model_on_offer_is_withdrawn_and_an_algorithm_without_a_file_says_where_it_goes(page, visit, portal):
    go = visit("north")
    go("/models/breast-cancer/1")
    page.get_by_label("Reason").fill("superseded")
    page.get_by_role("button", name="Withdraw").click()
    assert page.get_by_role("heading", name="Offer it to others").is_visible()
    page.get_by_label("Title").fill("Again")
    page.get_by_label("Licence").fill("CC-BY-4.0")
    page.get_by_role("button", name="Offer").click()
    assert "breast-cancer" in page.get_by_role("alert").text_content()  # no registry here holds its file
    go("/publish/algorithm")
    assert "into the folder offers" in page.text_content("main")


def test_who_may_not_publish_sees_no_form_for_it(page, visit):
    go = visit("north", "engineer")
    go("/products")
    assert page.get_by_role("link", name="Offer a data product").count() == 0
    go("/models/breast-cancer/1")
    assert page.get_by_role("button", name="Withdraw").count() == 0
    go("/publish/product")
    assert page.text_content("h1") == "Not allowed"


def test_script_in_what_others_write_is_shown_as_text(page, visit, portal):
    go = visit("harbour")
    for path in (f"/products/{PRODUCT}", f"/requests/{PRODUCT}/{portal.world.open}"):
        go(path)
        assert "<script>document.title" in page.text_content(".words")
        assert "taken over" not in page.title()
        assert page.locator(".words img, .words script").count() == 0


def test_an_entry_is_proved_in_the_readers_own_browser_and_a_changed_one_is_not(page, visit):
    go = visit("north", "auditor")
    for index in (0, 7, 20):
        go(f"/ledger/{index}")
        page.get_by_role("button", name="Recompute here").click()
        page.locator("#proof .good").wait_for()
    page.route("**/proof", lambda route: _with_another_leaf(route))
    page.get_by_role("button", name="Recompute here").click()
    page.locator("#proof .bad").wait_for()


def _with_another_leaf(route):
    answer = route.fetch()
    told = answer.json()
    route.fulfill(response=answer, json={**told, "leaf": told["leaf"][:-8] + "AAAAAAA="})


def test_the_whole_ledger_is_recomputed_before_the_reader(page, visit):
    visit("north", "auditor")("/ledger")
    page.get_by_role("button", name="Verify").click()
    assert "It holds" in page.text_content(".note.good")
    assert "26 entries hash to the root" in page.text_content(".note.good")


def test_the_page_of_a_run_keeps_up_with_its_rounds(page, visit, portal, write_progress):
    visit("north")("/runs/r-2")
    assert "12 of 60 rounds" in page.text_content("#live")
    assert page.locator("#live polyline").count() == 2
    write_progress(portal.world.var, "r-2", 30)
    page.get_by_text("30 of 60 rounds").wait_for()


def test_every_page_is_reached_and_a_request_decided_by_keyboard_alone(page, visit, portal):
    visit("harbour")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href')"))
    assert {to for to, _, _ in NAVIGATION} <= reached
    page.goto(f"{portal.url}/requests/{PRODUCT}/{portal.world.open}")
    page.get_by_label("Last day").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "grant":
            break
    page.keyboard.press("Enter")
    page.get_by_text("granted").first.wait_for()


def test_an_auditor_sees_no_form_that_it_may_not_send(page, visit, portal):
    go = visit("harbour", "auditor")
    go(f"/requests/{PRODUCT}/{portal.world.open}")
    assert page.get_by_role("button", name="Grant").count() == 0
    assert page.get_by_role("link", name="Runs", exact=True).count() == 0
    go("/runs")
    assert page.text_content("h1") == "Not allowed"


def test_signing_out_ends_the_session(page, visit, portal):
    visit("north")
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{portal.url}/ledger")
    assert page.url == f"{portal.url}/sign-in"
