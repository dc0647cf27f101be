"""A run in the ledger: said once, by everybody, and checkable against the model file with XGBoost alone."""

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
import xgboost

from lepton_pipelines.ledger.commitment import Opening
from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged
from lepton_pipelines.ledger.lineage import find_commitment, trace
from lepton_pipelines.ledger.policy import read_policy
from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.decisions import record_stopped
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.recording import (
    MANIFEST_FILE,
    OPENING_FILE,
    Said,
    ledger_folder,
    model_chain,
    record_run,
)

MEMBERS = ["harbour", "north", "valley"]


@pytest.fixture(scope="module")
def booster():
    """Stock XGBoost: three classes, a categorical column and missing values."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(300, 3))
    rows[:, 2] = random.integers(0, 5, 300)
    rows[::7, 0] = np.nan
    label = (rows[:, 2] + (rows[:, 1] > 0)) % 3
    data = xgboost.DMatrix(rows, label, feature_types=["q", "q", "c"], enable_categorical=True)
    parameters = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "nthread": 1, "max_cat_to_onehot": 1}
    return xgboost.train(parameters, data, 4)


def chain_by_the_documentation(booster) -> list[str]:
    """docs/ledger.md, word for word, from XGBoost's own JSON."""
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    so_far, chain, starts = bytes(32), [], model["iteration_indptr"]
    for start, end in itertools.pairwise(starts):
        digests = b""
        for tree in model["trees"][start:end]:
            arrays = [np.asarray(tree[name], "<i4") for name in ("left_children", "right_children", "split_indices")]
            arrays += [np.asarray(tree["split_conditions"], "<f4"), np.asarray(tree["default_left"], np.uint8)]
            for node, first, size in zip(
                tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
            ):
                arrays.append(np.asarray([node, *tree["categories"][first : first + size]], "<i4"))
            data = [array.tobytes() for array in arrays]
            digests += hashlib.sha256(b"".join(len(each).to_bytes(8, "little") + each for each in data)).digest()
        so_far = hashlib.sha256(so_far + digests).digest()
        chain.append(so_far.hex())
    return chain


def test_the_digests_of_the_model_so_far_follow_from_xgboosts_own_file(booster):
    assert model_chain(bytes(booster.save_raw("ubj"))) == chain_by_the_documentation(booster)


class Pipeline:
    """What recording asks of a pipeline."""

    name, publisher = "breast-cancer", "north"
    members = ("north", "harbour", "valley")
    training = SimpleNamespace(algorithm="xgboost")

    def digest(self):
        return bytes(32)

    def read_organisations(self):
        return {}

    def read_contract(self):
        return SimpleNamespace(id="patients", agreement=lambda: bytes(range(32)))


def said(booster, run="r-1", version="1", outcome="champion") -> Said:
    model = bytes(booster.save_raw("ubj"))
    shown = [
        SimpleNamespace(name=name, rows=rows)
        for name, rows in {"north": {"train": 90}, "harbour": {"train": 80}, "valley": None}.items()
    ]
    figures = SimpleNamespace(scores={"auc": 0.994, "log loss": 0.09}, rows=60)
    parts = [
        SimpleNamespace(
            organisation=name,
            run_id=run,
            ingest=SimpleNamespace(rows={"train": 90, "test": 20} if name == "north" else {"train": 12}),
            validated=SimpleNamespace(digest=hashlib.sha256(name.encode()).hexdigest()),
            evaluated=SimpleNamespace(figures=figures, organisations=shown),
        )
        for name in Pipeline.members
    ]
    published = SimpleNamespace(registered_model="m", version=version, digest=hashlib.sha256(model).hexdigest())
    gates = [SimpleNamespace(name="worst organisation's AUC ≥ 0.90", passed=True)]
    return Said(Pipeline(), parts, model, gates, published, SimpleNamespace(outcome=outcome))


@pytest.fixture
def recorded(booster, tmp_path):
    folder = RunFolder(tmp_path, "r-1")
    folder.create()
    record_run(said(booster), folder)
    return folder


def test_every_members_ledger_proves_the_run_and_its_model(recorded, booster):
    digest = hashlib.sha256(booster.save_raw("ubj")).hexdigest()
    for name in MEMBERS:
        verified = verify_ledger(ledger_folder(recorded.var, name))
        run = verified.history.runs.by_id["r-1"]
        assert (run.state, run.trees, run.model) == ("finished", 4, digest)
        assert sorted(verified.heads[verified.head.size]) == MEMBERS
        lineage = trace(verified, "m", 1, digest, alias="champion")
        assert any("the run ended with exactly this file" in line for line in lineage.proved)


def test_what_is_small_or_not_shown_stands_nowhere(recorded):
    joined = verify_ledger(ledger_folder(recorded.var, "north")).history.runs.by_id["r-1"].joined
    told = {name: entry.rows for name, (_, entry) in joined.items()}
    assert told == {"north": 110, "harbour": None, "valley": None}


def test_the_manifest_in_the_ledger_is_the_one_in_the_runs_folder(recorded):
    run = verify_ledger(ledger_folder(recorded.var, "valley")).history.runs.by_id["r-1"]
    assert hashlib.sha256((recorded.path / MANIFEST_FILE).read_bytes()).hexdigest() == run.opened.manifest


def test_every_member_can_open_its_commitment(recorded):
    verified = verify_ledger(ledger_folder(recorded.var, "harbour"))
    for name in MEMBERS:
        opening = Opening.load(recorded.of(name).path / OPENING_FILE)
        assert find_commitment(verified, opening)[0].startswith(
            f"{name} committed to these data when it joined run r-1"
        )


def test_a_run_that_is_recorded_again_stands_there_once(recorded, booster):
    before = verify_ledger(ledger_folder(recorded.var, "north")).head
    record_run(said(booster), recorded)
    assert verify_ledger(ledger_folder(recorded.var, "north")).head == before


def test_the_next_run_extends_the_same_ledger(recorded, booster):
    folder = RunFolder(recorded.var, "r-2")
    folder.create()
    proof = record_run(said(booster, run="r-2", version="2", outcome="challenger"), folder).proof
    verified = verify_ledger(ledger_folder(recorded.var, "valley"))
    assert list(verified.history.runs.by_id) == ["r-1", "r-2"]
    assert verified.history.runs.aliases == {("m", "champion"): 1, ("m", "challenger"): 2}
    assert len(verified.heads) == 2
    head, cosigned = proof.check(read_policy(ledger_folder(recorded.var, "harbour") / "policy"))
    assert (head, sorted(cosigned)) == (verified.head, MEMBERS)


def test_two_runs_that_end_at_once_are_both_recorded(tmp_path, booster):
    def end(number):
        folder = RunFolder(tmp_path, f"r-{number}")
        folder.create()
        record_run(said(booster, run=f"r-{number}", version=str(number)), folder)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(end, (1, 2)))
    verified = verify_ledger(ledger_folder(tmp_path, "north"))
    assert set(verified.history.runs.by_id) == {"r-1", "r-2"}


def test_a_ledger_that_was_changed_stops_the_record(recorded, booster):
    bundle = next((ledger_folder(recorded.var, "valley") / "tile" / "entries").rglob("[0-9]*"))
    bundle = bundle if bundle.is_file() else next(bundle.iterdir())
    data = bytearray(bundle.read_bytes())
    data[50] ^= 1
    bundle.write_bytes(data)
    folder = RunFolder(recorded.var, "r-2")
    folder.create()
    with pytest.raises(LedgerDamaged, match="entry 0 in its bundle"):
        record_run(said(booster, run="r-2", version="2"), folder)


def test_a_member_with_another_key_is_not_taken_for_the_one_that_was_admitted(recorded, booster):
    for path in (recorded.var / "identity" / "valley").iterdir():
        path.unlink()
    folder = RunFolder(recorded.var, "r-2")
    folder.create()
    with pytest.raises(EntryRefused, match="whose valid key is"):
        record_run(said(booster, run="r-2", version="2"), folder)


def test_an_entry_carries_the_time_at_which_it_was_said(recorded):
    opened = verify_ledger(ledger_folder(recorded.var, "north")).history.runs.by_id["r-1"].opened
    said_at = datetime.strptime(opened.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - said_at).total_seconds()) < 600


def test_a_run_that_was_stopped_and_resumed_is_said_once(booster, tmp_path):
    folder = RunFolder(tmp_path, "r-1")
    folder.create()
    record_stopped(Pipeline(), folder, KeyError(), {"north": 2})
    record_run(said(booster), folder)
    verified = verify_ledger(ledger_folder(tmp_path, "harbour"))
    kinds = [read_entry(leaf).kind for leaf in verified.view.entries()]
    assert [kind for kind in kinds if kind.startswith("run-")] == [
        "run-opened", "run-suspended", "run-resumed", "run-joined", "run-joined", "run-joined", "run-finished",
    ]  # fmt: skip
    assert verified.history.runs.by_id["r-1"].state == "finished"
