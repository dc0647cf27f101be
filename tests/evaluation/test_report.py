import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from lepton_pipelines.evaluation import plots
from lepton_pipelines.evaluation.regression_scores import RegressionScores, count_magnitudes, read_magnitudes
from lepton_pipelines.evaluation.report import bytes_text, findings, render, seconds_text, verdict
from lepton_pipelines.evaluation.result import Champion, Evaluation, GateLine, OrganisationFigures
from lepton_pipelines.evaluation.score_histogram import score_histogram


def words(html):
    class Text(HTMLParser):
        found = ""

        def handle_data(self, data):
            self.found += f" {data}"

    parser = Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", parser.found)


@pytest.fixture(scope="module")
def drawn(evaluation):
    return plots.draw(evaluation)


@pytest.fixture(scope="module")
def html(evaluation, drawn):
    return render(evaluation, drawn)


def answers(evaluation):
    return {finding.question: finding.answer for finding in findings(evaluation)}


@pytest.fixture
def regression(evaluation):
    rng = np.random.default_rng(0)
    label = rng.gamma(2, 40, 2000)
    prediction = label + rng.normal(0, 15, 2000)
    histogram = RegressionScores(read_magnitudes(count_magnitudes(label, prediction)))
    figures = histogram.read(histogram.count(label, prediction))
    told = {"objective": "reg:squarederror", "primary_metric": "rmse", "unit": "µg/m³", "figures": figures}
    return evaluation.model_copy(update={**told, "comparison": [], "fairness": [], "trees_equal": None})


@pytest.fixture
def multiclass(evaluation):
    rng = np.random.default_rng(0)
    score = rng.dirichlet([1, 1, 1], 500)
    histogram = score_histogram("multi:softprob", classes=("calm", "busy", "jammed"))
    figures = histogram.read(histogram.count(score.argmax(axis=1), score))
    told = {"objective": "multi:softprob", "primary_metric": "mlogloss", "figures": figures}
    return evaluation.model_copy(update={**told, "comparison": [], "fairness": [], "trees_equal": None})


def test_an_evaluation_survives_being_written_as_json(evaluation):
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_the_page_loads_nothing_from_anywhere(html):
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert all(address.startswith("http://www.w3.org/") for address in addresses)  # names of SVG's vocabulary
    assert not re.search(r"<(script|link rel=\"stylesheet|iframe|img)", html)


def test_the_page_says_what_the_evaluation_says(evaluation, html):
    text = words(html)
    assert "May be used: all 2 gates were passed" in text
    for row in evaluation.comparison:
        assert f"{row.name} {row.scores['auc']:.3f} {row.scores['logloss']:.3f}" in text
    assert "Yes, 20 of 20" in text
    assert "histograms 120 2.9 MB 2.8 MB" in text
    assert "lepton run examples/healthcare/pipeline.yaml" in text


def test_the_same_evaluation_gives_the_same_bytes(evaluation, html):
    assert render(evaluation) == html


def test_ids_in_the_page_are_unique(html):
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_a_failed_gate_is_said_first(evaluation):
    failed = GateLine(name="AUC ≥ 0.999", figure=0.98, limit=0.999, passed=False, message="AUC is 0.98.")
    found = verdict(evaluation.model_copy(update={"gates": [*evaluation.gates, failed]}))
    assert (found.answer, found.mark) == ("Not to be used: 1 of 3 gates failed", "fail")


def test_a_run_without_gates_is_not_called_fit_for_use(evaluation):
    assert verdict(evaluation.model_copy(update={"gates": []})).mark == "note"


def test_a_better_champion_is_not_hidden(evaluation):
    champion = Champion(version="4", scores={"auc": 1.1})
    assert answers(evaluation.model_copy(update={"champion": champion}))["Better than the champion?"] == "No"
    champion = Champion(version="4", scores={"auc": 0.5})
    assert answers(evaluation.model_copy(update={"champion": champion}))["Better than the champion?"] == "Yes"


@pytest.mark.parametrize(
    ("alone", "answer"),
    [
        ([0.5, 0.6, 0.7], "Yes, than all 3"),
        ([0.5, 2.0, 0.7], "Than 2 of 3"),
        ([0.5, None, 0.7], "Than 2, equal to the best"),
    ],
)
def test_the_comparison_with_each_alone_is_counted(evaluation, alone, answer):
    rows = [row for row in evaluation.comparison if row.kind == "alone"]
    score = evaluation.figures.scores["auc"]
    changed = [
        row.model_copy(update={"scores": {"auc": score if value is None else value}})
        for row, value in zip(rows, alone, strict=True)
    ]
    assert answers(evaluation.model_copy(update={"comparison": changed}))["Better than each alone?"] == answer


def test_what_an_organisation_does_not_show_is_not_on_the_page(evaluation, drawn):
    closed = evaluation.model_copy(update={"organisations": [OrganisationFigures(name="quiet")]})
    assert "quiet not shown – – not shown not shown" in words(render(closed, drawn))


def test_names_cannot_smuggle_markup_into_the_page(evaluation, drawn):
    page = render(evaluation.model_copy(update={"pipeline": "<script>alert(1)</script>"}), drawn)
    assert "<script" not in page


def test_a_regression_has_its_own_plots_and_units(regression):
    drawn = plots.draw(regression)
    assert {"predicted_actual", "errors"} <= set(drawn)
    assert "roc" not in drawn
    assert "µg/m³" in words(render(regression, drawn))


def test_several_classes_have_a_curve_each(multiclass):
    drawn = plots.draw(multiclass)
    assert {"roc", "confusion", "calibration"} <= set(drawn)
    assert all(name in drawn["roc"] for name in ("calm", "busy", "jammed"))
    render(multiclass, drawn)


def test_plots_are_standalone_drawings_with_their_text_as_text(drawn):
    assert drawn["roc"].startswith("<?xml")
    assert "false positive rate" in drawn["roc"]


def test_figures_are_written_as_people_write_them():
    assert [bytes_text(value) for value in (12, 1_500, 250_000, 3_200_000, None)] == [
        "12 B",
        "1.5 kB",
        "250 kB",
        "3.2 MB",
        "not shown",
    ]
    assert [seconds_text(value) for value in (0.0123, 2.44, 80)] == ["12 ms", "2.4 s", "1 min 20 s"]


@pytest.fixture(scope="module")
def page(html, tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: install it to look at the report in a real browser")
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 390, "height": 844})
        opened.complaints, opened.fetched = [], []
        opened.on("console", lambda message: opened.complaints.append(message.text))
        opened.on("pageerror", lambda problem: opened.complaints.append(str(problem)))
        opened.on("request", lambda request: opened.fetched.append(request.url))
        opened.goto(file.as_uri())
        yield opened
        browser.close()


@pytest.mark.browser
def test_a_browser_shows_the_figures_without_complaints_or_requests(page, evaluation, drawn):
    assert page.complaints == []
    assert [url for url in page.fetched if not url.startswith(("file:", "data:"))] == []
    ours = page.locator("#comparison tr.ours td").all_inner_texts()
    scores = evaluation.figures.scores
    assert ours[:3] == ["federated", f"{scores['auc']:.3f}", f"{scores['logloss']:.3f}"]
    assert page.locator("#gates li").count() == len(evaluation.gates)
    assert page.locator("figure svg").count() == len(drawn)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_overflows(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("main *:not(svg *)")]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.scrollWidth > one.clientWidth + 1)
            .filter(one => getComputedStyle(one).display !== "inline")
            .map(one => one.tagName + " " + one.className + ": " + one.textContent.trim().slice(0, 40))"""
    )
    assert beyond == []


@pytest.mark.browser
def test_text_can_be_read_on_light_dark_and_paper(page):
    contrast = """() => {
      const linear = value => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4
      const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
        return .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b)
      }
      const ground = one => {
        for (; one; one = one.parentElement) {
          const colour = getComputedStyle(one).backgroundColor
          if (!/, 0\\)$/.test(colour)) return colour
        }
        return "rgb(255, 255, 255)"
      }
      return [...document.querySelectorAll("p, td, th, small, strong, dt, dd, li")].map(one => {
        const [a, b] = [light(getComputedStyle(one).color), light(ground(one))]
        return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), one.textContent.trim().slice(0, 40)]
      }).filter(([ratio]) => ratio < 4.5)
    }"""
    for medium, scheme in (("screen", "light"), ("screen", "dark"), ("print", "light")):
        page.emulate_media(media=medium, color_scheme=scheme)
        assert page.evaluate(contrast) == []
