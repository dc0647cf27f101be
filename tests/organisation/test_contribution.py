"""What each organisation's rows add: measured with all and without each, where all have signed for it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.in_step import all_in_step
from lepton_pipelines.evaluation.contribution import contribution_plot, gain
from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.contribution import measure
from lepton_pipelines.organisation.contribution_record import record_contribution
from lepton_pipelines.organisation.market_place import LocalMarket
from lepton_pipelines.organisation.recording import ledger_folder
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import read_pipeline

ROOT = Path(__file__).parents[2]
LEPTON = (sys.executable, "-c", "from lepton_pipelines.cli import main; main()")
MEMBERS = ["harbour", "north", "twin", "valley"]
SPEC = """name: breast-cancer
organisations: {files}
federation: {federation}
contract: contract.odcs.yaml
training: {{label: malignant, objective: 'binary:logistic', rounds: 8, max_depth: 3{more}}}
split: {{key: patient_id, train: 0.7, valid: 0, test: 0.3}}
contribution: {contribution}
"""


class Four:
    """Four hospitals: north and twin have the same rows; harbour alone has more than a few malignant ones."""

    def __init__(self, folder: Path, rows: Path) -> None:
        self.folder, self.var = folder, folder / "var"
        folder.mkdir(exist_ok=True)
        contract = (ROOT / "examples/healthcare/contract.odcs.yaml").read_text()
        assert "minimum_rows: 100" in contract
        (folder / "contract.odcs.yaml").write_text(contract.replace("minimum_rows: 100", "minimum_rows: 50"))
        shared = {name: pd.read_parquet(rows / name / "patients.parquet") for name in ("north", "harbour", "valley")}
        told = {"harbour": shared["harbour"], **{name: _few_malignant(shared[name]) for name in ("north", "valley")}}
        told["twin"] = told["north"]
        for name, frame in told.items():
            (folder / "data" / name).mkdir(parents=True)
            frame.to_parquet(folder / "data" / name / "patients.parquet", index=False)
            self.policy(name, "{contribution: true}")

    def policy(self, name: str, policy: str) -> None:
        (self.folder / f"{name}.yaml").write_text(f"organisation: {name}\ndata: data/{name}/\npolicy: {policy}\n")

    def pipeline(self, *, contribution="{report: true}", members=MEMBERS, federation="in-process", more=""):
        files = ", ".join(f"{name}: {name}.yaml" for name in members)
        files = f"{{{files}}}" if federation == "in-process" else f"[{', '.join(members)}]"
        path = self.folder / "pipeline.yaml"
        text = SPEC.format(files=files, federation=federation, more=more, contribution=contribution)
        path.write_text(text)
        return read_pipeline(path)


def _few_malignant(frame: pd.DataFrame) -> pd.DataFrame:
    ill = frame["malignant"].astype(bool)
    return pd.concat([frame[~ill], frame[ill].head(6)])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    import runpy

    folder = tmp_path_factory.mktemp("rows")
    runpy.run_path(str(ROOT / "examples/healthcare/make_hospitals.py"))["write"](folder)
    return folder


@pytest.fixture
def four(tmp_path, rows) -> Four:
    return Four(tmp_path / "four", rows)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, rows):
    """A report over the four, recorded in their ledger."""
    here = Four(tmp_path_factory.mktemp("measured") / "four", rows)
    report, trainings = measure(
        here.pipeline(contribution="{report: true, metric: logloss}"), "c-1", here.var, all_in_step
    )
    record_contribution(report, trainings, here.var)
    return here, report, trainings


def test_organisations_with_the_same_rows_have_added_the_same(measured):
    _, report, trainings = measured
    models = {one.without: one.model for one in trainings}
    added = {one.organisation: one.added for one in report.added}
    assert models["north"] == models["twin"] != models[None]
    assert added["north"] == added["twin"]


def test_who_alone_has_one_class_of_rows_has_added_most(measured):
    _, report, _ = measured
    assert report.added[0].organisation == "harbour"
    assert report.added[0].added == pytest.approx(report.added[0].scores["logloss"] - report.scores["logloss"])
    assert report.added[0].added > 0 and report.added[0].scores["auc"] < report.scores["auc"]


def test_each_model_is_what_its_members_train_alone_with_each_other(measured):
    """Stock XGBoost reads each; who was left out is in none of the run's members."""
    import xgboost

    _, report, trainings = measured
    assert [one.without for one in trainings] == [None, *MEMBERS]
    for one in trainings:
        assert one.pipeline.members == [name for name in MEMBERS if name != one.without]
        assert {part.model for part in one.parts} == {one.model}
        assert xgboost.Booster(model_file=bytearray(one.model)).num_boosted_rounds() == 8
    assert report.trainings == 5


def test_the_ledger_holds_every_run_with_its_score_and_verifies(measured):
    here, report, trainings = measured
    verify_ledger(ledger_folder(here.var, "harbour"))
    runs = LocalMarket(here.var, "harbour").history().runs.by_id
    assert set(runs) == {"c-1", *(f"c-1-without-{name}" for name in MEMBERS)}
    for one in trainings:
        known = runs[one.run]
        ((_, evaluation),) = known.evaluations
        scores = next((each.scores for each in report.added if each.organisation == one.without), report.scores)
        assert evaluation.metrics["logloss"] == pytest.approx(scores["logloss"])
        assert evaluation.rows is None or evaluation.rows >= 20
        assert set(known.joined) == set(one.pipeline.members)
        assert all(joined.rows is None for _, joined in known.joined.values())
        assert known.opened.spec == one.pipeline.digest().hex()


def test_no_model_is_kept_nor_registered(measured):
    here, _, _ = measured
    left = {path.name for path in here.var.rglob("*") if path.is_file() and "runs/" in str(path)}
    assert left == {"dataset-opening.json"}
    assert not LocalMarket(here.var, "harbour").history().runs.versions


def test_the_plot_names_everybody(measured):
    _, report, _ = measured
    drawn = contribution_plot(report)
    assert all(name in drawn for name in MEMBERS)
    assert drawn == contribution_plot(report)


def test_a_gain_is_above_zero_where_the_score_is_better_with_them():
    assert gain("auc", 0.9, 0.8) == pytest.approx(0.1)
    assert gain("logloss", 0.2, 0.3) == pytest.approx(0.1)


def test_signing_for_it_is_part_of_what_is_agreed_on_and_of_no_other_spec(four):
    plain = four.pipeline(contribution="{report: false}")
    assert four.pipeline().digest() != plain.digest()
    assert "contribution" in plain.model_dump()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"members": MEMBERS[:3]}, "at least four organisations, here are 3"),
        ({"federation": "{hub: 'hub.example.org:7443', when_lost: go_on}"}, "federation.when_lost: suspend"),
        ({"more": ", start: champion"}, "start: anew"),
        ({"contribution": "{metric: auc}"}, "no report: true"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused_when_the_spec_is_read(changed, told, four):
    with pytest.raises(UserError, match=told):
        four.pipeline(**changed)


def test_categories_must_be_listed_because_without_somebody_others_are_found(four):
    path = four.folder / "contract.odcs.yaml"
    site = "- {name: site, logicalType: string, customProperties: [{property: lepton, value: {categories: found}}]}\n"
    path.write_text(path.read_text().replace("- name: mean_radius\n", f"{site}      - name: mean_radius\n"))
    with pytest.raises(UserError, match="leaves the categories of site to be found, and without an organisation"):
        four.pipeline().read_contract()


def test_who_did_not_sign_is_named_and_nothing_is_trained(four):
    four.policy("twin", "{}")
    with pytest.raises(UserError, match=r"twin: contribution\.report shows .* policy\.contribution") as refused:
        measure(four.pipeline(), "c-1", four.var, all_in_step)
    assert len(refused.value.problems) == 1
    assert not four.var.exists()


def test_a_spec_that_nobody_signed_such_a_section_in_is_refused(four):
    with pytest.raises(UserError, match=r"nobody signed .* contribution: {report: true}"):
        measure(four.pipeline(contribution="{report: false}"), "c-1", four.var, all_in_step)


def test_the_limit_of_runs_a_week_counts_every_training(four):
    four.policy("north", "{contribution: true, runs_per_week: 3}")
    with pytest.raises(UserError, match="runs_per_week is 3, and 4 runs are to begin together"):
        measure(four.pipeline(), "c-1", four.var, all_in_step)
    assert not four.var.exists()


def test_without_two_at_a_time_the_totals_tell_each_ones_own_as_well():
    """Why leave-one-out, with consent: sets that differ by two or more solve for everybody's sums all the same."""
    own = np.random.default_rng(0).integers(-1000, 1000, (6, 64))
    me, others = 0, range(1, 6)
    pairs = list(combinations(others, 2))  # the runs that I take part in
    totals = np.array([own.sum(axis=0) - own[list(pair)].sum(axis=0) for pair in pairs])
    takes_part = np.array([[float(one not in pair) for one in others] for pair in pairs])
    found = np.linalg.lstsq(takes_part, totals - own[me], rcond=None)[0]
    np.testing.assert_allclose(found, own[1:], atol=1e-9)


@pytest.mark.slow
def test_the_command_writes_table_plot_and_json(four, capsys, monkeypatch):
    from lepton_pipelines.cli.app import run_command_line

    four.pipeline()
    spec = str(four.folder / "pipeline.yaml")
    monkeypatch.setattr(sys, "argv", ["lepton", "market", "contribution", spec, "--var", str(four.var)])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    out = capsys.readouterr().out
    assert ended.value.code in (None, 0), out
    assert "with all" in out and "without twin" in out and "5 trainings" in out
    (written,) = four.var.glob("runs/*-contribution/contribution.json")
    assert json.loads(written.read_text())["metric"] == "auc"
    assert written.with_suffix(".svg").read_text().startswith("<?xml")


class AtHub:
    """The four at a hub: harbour, twin and valley serve, north asks; each with its own keys, folder and process."""

    def __init__(self, four: Four) -> None:
        self.four, self.served = four, {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"localhost:{free.getsockname()[1]}"
        hub = HubHome.create(four.folder / "hub", self.address)
        homes = {name: OrganisationHome.create(four.folder / f"home-{name}", name) for name in MEMBERS}
        requests = {name: home.request() for name, home in homes.items()}
        for name, home in homes.items():
            admission = hub.admit(requests[name], fingerprint=requests[name].fingerprint)
            home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
            for other in sorted({*MEMBERS} - {name}):
                told = requests[other]
                home.trust(told.model_dump_json().encode(), fingerprint=told.fingerprint)
        self.hub, self.server = hub, HubServer(hub, listen=self.address)
        self.server.start()
        federation = f"{{hub: '{self.address}', grace_seconds: 200}}"
        four.pipeline(contribution="{report: true, metric: logloss}", federation=federation)

    def command(self, name: str, *words: str) -> list[str]:
        own = ["--organisation", f"{name}.yaml", "--home", f"home-{name}", "--var", f"var-{name}"]
        return [*LEPTON, *words, *own]

    def serve(self, name: str) -> None:
        with (self.four.folder / f"{name}.log").open("ab") as log:
            command = self.command(name, "org", "serve", "--pipeline", "pipeline.yaml")
            self.served[name] = subprocess.Popen(command, cwd=self.four.folder, stdout=log, stderr=log)

    def ask(self) -> subprocess.Popen[str]:
        command = self.command("north", "market", "contribution", "pipeline.yaml", "--json")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        asking = self.served["north"] = subprocess.Popen(command, cwd=self.four.folder, text=True, **pipes)
        return asking

    def sums_done(self, ending: str) -> int:
        """How many sums of the first run whose id ends so are done, as a member is told."""
        credentials = OrganisationHome(self.four.folder / "home-valley").credentials()
        with closing(HubConnection(credentials, address=self.address, patience=20)) as connection:
            return max((one.number for one in connection.runs() if one.run.endswith(ending)), default=0)

    def said(self, name: str) -> str:
        return (self.four.folder / f"{name}.log").read_text()

    def var(self, name: str) -> Path:
        return self.four.folder / f"var-{name}"

    def stop(self) -> None:
        for process in self.served.values():
            process.terminate()
        for process in self.served.values():
            process.communicate(timeout=60)
        self.server.stop()
        self.hub.close()


def until(true, seconds: float = 240):
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def at_hub(tmp_path_factory, rows):
    one = AtHub(Four(tmp_path_factory.mktemp("at-hub") / "four", rows))
    try:
        for name in ("harbour", "twin", "valley"):
            one.serve(name)
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def reported(at_hub):
    """What north was told; the part of valley is killed in the midst of it, and started again by its serve."""
    asking = at_hub.ask()
    until(lambda: at_hub.sums_done("without-north") > 15)
    serve = at_hub.served["valley"].pid
    (part,) = Path(f"/proc/{serve}/task/{serve}/children").read_text().split()
    os.kill(int(part), signal.SIGKILL)
    said, problems = asking.communicate(timeout=380)
    assert asking.returncode == 0, problems
    assert "this organisation's part is started again" in at_hub.said("valley")
    return json.loads(said)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_report_at_a_hub_is_that_of_one_process_at_every_organisation(at_hub, reported, measured):
    _, report, _ = measured
    alike = ("metric", "rows", "scores", "trees", "added", "members", "trainings")
    assert {key: reported[key] for key in alike} == report.model_dump(include=set(alike))
    for name in ("harbour", "twin", "valley"):
        until(lambda name=name: f"run {reported['run']} is finished" in at_hub.said(name))
        mine = json.loads((at_hub.var(name) / "runs" / reported["run"] / "contribution.json").read_text())
        assert {**mine, "seconds": 0} == {**reported, "seconds": 0}
    left = {path.name for name in MEMBERS for path in at_hub.var(name).glob("runs/*/organisations/*/*")}
    assert left == {"dataset-opening.json"}  # no model is kept


@pytest.mark.slow
def test_every_training_of_a_report_at_a_hub_stands_in_the_ledger_with_its_members(at_hub, reported):
    from lepton_pipelines.organisation.market_place import HubMarket

    home = OrganisationHome(at_hub.four.folder / "home-north")
    runs = HubMarket(home, address=at_hub.address).history().runs.by_id
    expected = {reported["run"]: set(MEMBERS)}
    for name in MEMBERS:
        expected[f"{reported['run']}-without-{name}"] = set(MEMBERS) - {name}
    assert {run: set(one.joined) for run, one in runs.items() if one.state == "finished"} == expected
    assert all(one.trees == 8 for one in runs.values())
    verify_ledger(home.folder / "ledger")


@pytest.mark.slow
def test_a_report_at_a_hub_that_a_member_did_not_sign_for_is_refused_by_its_name(at_hub, reported):
    at_hub.four.policy("valley", "{}")
    try:
        asking = at_hub.ask()
        said, problems = asking.communicate(timeout=120)
    finally:
        at_hub.four.policy("valley", "{contribution: true}")
    assert asking.returncode == 2 and not said
    assert "valley" in problems and "policy.contribution does not sign for that" in problems
    assert len(list(at_hub.var("north").glob("runs/*-without-*"))) == 3  # those of the report before
