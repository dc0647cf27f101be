"""From the run form to the champion: a person changes parameters, approves, refuses, goes back; in a browser."""

import json
import re
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(1200)]

MODEL = "breast-cancer"


@pytest.fixture(scope="module")
def deployed(module_example, module_lepton, module_worker, prefect_server):
    """The example, deployed with a person who decides."""
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "promote: automatically}     # or: ask", "promote: ask}")
    module_example.replace("pipeline.yaml", "gates: {auc: {min: 0.95}", "gates: {auc: {min: 0.5}")
    module_example.replace("pipeline.yaml", "worst_organisation: {auc: {min: 0.90}}", "size_mb: {max: 50}")
    module_example.replace("pipeline.yaml", "calibration_error: {max: 0.05}", "latency_ms: {max: 10000}")
    ended = module_lepton("deploy", module_example.spec, "--var", module_example.var, PREFECT_API_URL=prefect_server)
    assert ended.code == 0, ended.err
    return module_example


@pytest.fixture(scope="module")
def tracking(deployed):
    from lepton_pipelines.registry.tracking import open_tracking

    return open_tracking(folder=deployed.var)


def version(tracking, number):
    from lepton_pipelines.registry.promotion import read_version

    return read_version(tracking, MODEL, str(number))


def champion(tracking):
    from lepton_pipelines.registry.promotion import holder

    found = holder(tracking, MODEL, "champion")
    return None if found is None else found.number


def field(page, title):
    """The input of a form's field. title: as the form shows it."""
    label = page.locator(".schema-form-property__label", has_text=re.compile(f"^{re.escape(title)}$"))
    innermost = page.locator(".schema-form-property").filter(has=label).last
    return innermost.locator("input, textarea, button.p-select-button__control").first


def submit(page, prefect_api, before):
    """Submit the run form, and return the id of the run that came of it.

    On a busy machine the page can still be checking its fields with the server, and then takes no notice of a click.
    """
    form = page.url
    for _ in range(6):
        page.get_by_role("button", name="Submit", exact=True).click()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            new = [run.id for run in prefect_api.runs("federated-retrain") if run.id not in before]
            if new:
                return new[0]
            page.wait_for_timeout(300)
        if page.url != form:
            break
    raise AssertionError(f"no run came of the form, the page is {page.url}: {page.locator('body').inner_text()}")


def fill(page, values):
    """Fill a form's fields, until they hold it: defaults that arrive late are written over what was filled in."""
    page.wait_for_load_state("networkidle")
    until = time.monotonic() + 60
    while any(field(page, title).input_value() != value for title, value in values.items()):
        assert time.monotonic() < until, page.locator("form").first.inner_text()
        for title, value in values.items():
            field(page, title).fill(value)
        page.wait_for_timeout(500)


def test_a_run_from_the_form_trains_with_what_was_changed_and_asks(deployed, tracking, page, pictures, prefect_api):
    before = {run.id for run in prefect_api.runs("federated-retrain")}  # of other tests at the same server
    page.goto(
        f"{prefect_api.site}/deployments/deployment/{prefect_api.deployment(f'federated-retrain/{MODEL}').id}/run"
    )
    fill(page, {"Rounds (Optional)": "3", "Depth (Optional)": "1"})
    field(page, "Rounds (Optional)").scroll_into_view_if_needed()
    page.screenshot(path=pictures / "run-form.png")
    begun = submit(page, prefect_api, before)
    ended = prefect_api.wait_for_run("federated-retrain", lambda run: run.id == begun and run.state.is_final())
    assert ended.state.is_completed(), ended.state.message
    (folder,) = (deployed.var / "runs").iterdir()
    told = json.loads((folder / "results.json").read_text())
    assert told["rounds"] == 3
    assert told["reproduction"]["parameters"]["max_depth"] == 1
    assert champion(tracking) is None
    assert version(tracking, 1).tags["lepton.outcome"] == "waiting"


def test_an_approval_through_the_api_makes_it_champion_with_reason_and_name(deployed, tracking, prefect_api):
    assert version(tracking, 1).tags["lepton.outcome"] == "waiting"  # or nobody will ever be asked
    asked = prefect_api.wait_for_run("promote", lambda run: run.state.name == "Suspended")
    assert asked.name == "breast-cancer v1"
    answer = {"decision": "promote", "reason": "the first one, better than none", "by": "Ada"}
    prefect_api.ask(lambda client: client.resume_flow_run(asked.id, run_input=answer))
    ended = prefect_api.wait_for_run("promote", lambda run: run.state.is_final())
    assert ended.state.is_completed(), ended.state.message
    assert champion(tracking) == "1"
    tags = version(tracking, 1).tags
    assert (tags["lepton.reason"], tags["lepton.decided_by"]) == ("the first one, better than none", "Ada")


def test_a_refusal_in_the_form_is_recorded_and_the_champion_stays(deployed, tracking, page, pictures, prefect_api):
    assert champion(tracking) == "1"
    retrain = prefect_api.deployment(f"federated-retrain/{MODEL}")
    prefect_api.ask(lambda client: client.create_flow_run_from_deployment(retrain.id))
    asked = prefect_api.wait_for_run("promote", lambda run: run.state.name == "Suspended")
    page.goto(f"{prefect_api.site}/runs/flow-run/{asked.id}")
    page.get_by_role("button", name="Resume", exact=True).click()
    form = page.locator(".p-modal")
    form.get_by_text("version 2").wait_for()
    shown = form.inner_text()
    assert "against champion v1" in shown
    assert "AUC at harbour" in shown
    page.wait_for_load_state("networkidle")
    field(page, "Decision").press("ArrowDown")
    page.get_by_text("refuse", exact=True).click()
    fill(page, {"Reason": "harbour's scanner was replaced last week", "Your name": "Grace"})
    page.screenshot(path=pictures / "approval-form.png")
    form.get_by_role("button", name="Submit", exact=True).click()
    form.wait_for(state="hidden")
    ended = prefect_api.wait_for_run("promote", lambda run: run.state.is_final() and run.name == "breast-cancer v2")
    assert ended.state.is_completed(), ended.state.message
    assert champion(tracking) == "1"
    tags = version(tracking, 2).tags
    assert tags["lepton.outcome"] == "refused"
    assert (tags["lepton.reason"], tags["lepton.decided_by"]) == ("harbour's scanner was replaced last week", "Grace")


def test_the_button_rolls_back_what_the_command_promoted(deployed, tracking, lepton, page, prefect_api):
    told = ("--var", deployed.var, "--reason", "the scanner is calibrated now")
    ended = lepton("promote", MODEL, "--version", 2, *told)
    assert ended.code == 0, ended.err
    assert champion(tracking) == "2"
    page.goto(f"{prefect_api.site}/deployments/deployment/{prefect_api.deployment(f'rollback/{MODEL}').id}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Quick run").click()
    page.locator(".p-modal").get_by_role("button", name="Run", exact=True).click()
    done = prefect_api.wait_for_run("rollback", lambda run: run.state.is_final())
    assert done.state.is_completed(), done.state.message
    assert champion(tracking) == "1"
    assert version(tracking, 2).tags["lepton.outcome"] == "rolled back"


def test_a_rollback_with_nothing_before_says_so(deployed, tracking, lepton):
    ended = lepton("rollback", MODEL, "--reason", "still bad", "--var", deployed.var)
    assert ended.code == 2
    assert "replaced no version that still exists" in ended.err
