"""What goes of runs that are over, and what never does: the rules that look back, the ledger's salt, the model."""

import datetime as dt
import os
from contextlib import closing

import numpy as np
import pytest

from lepton_pipelines.federation.effects import TotalHeld
from lepton_pipelines.federation.home_rules import RowDigests, RowGuard, RunHistory, check_invitation
from lepton_pipelines.federation.journal import RunJournal
from lepton_pipelines.federation.manifest import Manifest, Member
from lepton_pipelines.federation.row_sketch import RowSketch
from lepton_pipelines.federation.runs import only_process
from lepton_pipelines.federation.succession import following
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.retention import clear_over
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy

KEYS = {name: SigningKey.generate().public for name in ("harbour", "north", "south", "valley")}
HUB = SigningKey.generate().public
NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


def digests(rows):
    sketch = RowSketch.of(np.arange(rows, dtype=np.uint64), b"secret")
    return RowDigests(sketch, sketch)


ROWS = digests(1000)


def manifest(run, members=("harbour", "north", "south", "valley"), **fields):
    parties = tuple(Member(name=n, key=KEYS[n].hex(), product=f"{n}/patients") for n in members)
    return Manifest(
        run=run, hub=HUB.hex(), members=parties, spec="00" * 32, contract="11" * 32, code="test", when_lost="go_on",
        **fields,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path):
    return OrganisationHome.create(tmp_path / "organisation", "north")


@pytest.fixture
def var(tmp_path):
    return tmp_path / "var"


def took_part(home, var, told, *, days_ago, rows=ROWS):
    """Leave what a run leaves, its last change so many days ago."""
    with closing(RunHistory(home.folder)) as history:
        history.signed(told, "north", now=NOW.timestamp() - days_ago * 86400)
    RowGuard.of(home.folder, told, "north").check(rows)
    kept = home.run_folder(told.run)
    journal = RunJournal(kept)
    journal.write_total(TotalHeld(0, np.arange(20_000)))
    journal.close()
    (kept / "ledger.salt").write_bytes(b"salt")
    folder = RunFolder(var, told.root)
    folder.write("log.txt", "a patient's name")
    folder.write("report.html", "a report")
    own = folder.of("north")
    own.write_checkpoint(3, b"edges and trees")
    folder.write("organisations/north/said-shown", "{}")
    folder.write("organisations/north/model.ubj", b"model")
    folder.write("organisations/north/quarantine/rows.csv", "a patient's row")
    moment = NOW.timestamp() - days_ago * 86400
    for path in [*kept.rglob("*"), *folder.path.rglob("*")]:
        os.utime(path, (moment, moment))


def left(home, var, run):
    """Files that are left of a run, without the lock."""
    found = [path for folder in (home.folder / "runs" / run, var / "runs" / run) for path in folder.rglob("*")]
    return sorted(path.name for path in found if path.is_file() and path.name != "lock")


def cleared(home, var, *, days=30, under_way=()):
    return [one.run for one in clear_over(home, var, days=days, under_way=under_way, now=NOW)]


def check(home, told):
    with closing(RunHistory(home.folder)) as history:
        check_invitation(told, organisation="north", keys=KEYS, hub_key=HUB, policy=Policy(), history=history)


def test_of_a_run_that_was_over_for_long_the_model_the_report_and_the_ledgers_salt_are_left(home, var):
    took_part(home, var, manifest("old"), days_ago=31)
    took_part(home, var, manifest("young"), days_ago=29)
    before = left(home, var, "young")
    assert {"journal.sqlite", "0000000000.total", "log.txt", "round-000003.npz", "rows.csv"} < set(before)
    assert cleared(home, var) == ["old"]
    assert left(home, var, "old") == ["ledger.salt", "model.ubj", "report.html"]
    assert left(home, var, "young") == before
    assert cleared(home, var) == []


def test_a_run_that_is_suspended_or_that_a_process_is_in_is_left_alone_however_old(home, var):
    for run in ("suspended", "held"):
        took_part(home, var, manifest(run), days_ago=300)
    before = left(home, var, "suspended")
    with only_process("held", home):
        assert cleared(home, var, under_way={"suspended"}) == []
    assert left(home, var, "suspended") == left(home, var, "held") == before
    assert cleared(home, var) == ["held", "suspended"]


def test_the_stages_of_a_run_whose_members_changed_go_and_stay_together(home, var):
    began = manifest("r", minimum_members=3)
    went_on = following(began, began, ["valley"], [])
    took_part(home, var, began, days_ago=300)
    took_part(home, var, went_on, days_ago=20)
    assert cleared(home, var) == [] == cleared(home, var, days=10, under_way={"r"})
    assert cleared(home, var, days=10) == ["r"]
    assert left(home, var, "r.1") == ["ledger.salt"]


def test_the_rules_that_look_back_hold_after_everything_else_went(home, var):
    took_part(home, var, manifest("old"), days_ago=300)
    assert cleared(home, var) == ["old"]
    with pytest.raises(UserError, match=r"differ from those of run old .* by valley alone"):
        check(home, manifest("new", ("harbour", "north", "south")))
    check(home, manifest("new"))
    with pytest.raises(UserError, match="differs by 3 rows from the one of run old"):
        RowGuard.of(home.folder, manifest("new"), "north").check(digests(997))


def test_a_run_whose_journal_went_is_never_signed_for_again(home, var):
    took_part(home, var, manifest("old"), days_ago=300)
    check(home, manifest("old"))
    assert cleared(home, var) == ["old"]
    with pytest.raises(UserError, match=r"its journal was deleted here on .* as policy.kept_days says. Start a new"):
        check(home, manifest("old"))
