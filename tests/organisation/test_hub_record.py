"""A run at a real hub, in the ledger while it goes on: checked by everybody, stopped where members disagree."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xgboost

from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.grpc_member import HubSums, RunSuspended
from lepton_pipelines.federation.hub_connection import Closed, HubConnection
from lepton_pipelines.federation.manifest import Manifest, Member
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.private_files import write_private
from lepton_pipelines.ledger.commitment import Opening
from lepton_pipelines.ledger.entries import PolicyRefused
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.lineage import find_commitment, trace
from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.hub_record import HubRecord, record_of, record_published, recorded_run
from lepton_pipelines.organisation.recording import model_chain
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import SumAborted

NAMES = ("harbour", "north", "valley")
PIPELINE = SimpleNamespace(name="breast-cancer", publisher="north", digest=lambda: bytes(32))
ROUNDS = 4


@pytest.fixture(scope="module")
def models():
    """A stock model after each round."""
    random = np.random.default_rng(3)
    rows = random.normal(size=(200, 3))
    data = xgboost.DMatrix(rows, (rows[:, 0] > 0).astype(float))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, ROUNDS)
    return [bytes(booster[: number + 1].save_raw("ubj")) for number in range(ROUNDS)]


class Federation:
    """A hub on loopback, three organisations that trust each other, and a proposed run."""

    def __init__(self, folder: Path, grace_seconds: int = 60) -> None:
        self.hub = HubHome.create(folder / "hub", "localhost:7443")
        self.homes = {name: OrganisationHome.create(folder / name, name) for name in NAMES}
        for home in self.homes.values():
            request = home.request()
            admission = self.hub.admit(request, fingerprint=request.fingerprint)
            home.accept(admission.model_dump_json().encode(), fingerprint=self.hub.fingerprint)
            for other in self.homes.values():
                if other is not home:
                    theirs = other.request()
                    home.trust(theirs.model_dump_json().encode(), fingerprint=theirs.fingerprint)
        keys = {name: home.signer().public.hex() for name, home in self.homes.items()}
        self.manifest = Manifest(
            run="r-1", hub=self.hub.signer().public.hex(), spec="00" * 32, contract="11" * 32, code="test",
            members=tuple(Member(name=name, key=keys[name]) for name in NAMES), grace_seconds=grace_seconds,
        )  # fmt: skip
        self.server = HubServer(self.hub, listen="localhost:0")
        self.address = f"localhost:{self.server.port}"
        self.server.start()
        connection = HubConnection(self.homes["north"].credentials(), address=self.address)
        connection.propose(self.manifest)
        connection.close()

    def part(self, name, models, *, stop_after=None):
        """What `OrganisationRun` does with sums and record, without rows."""
        home = self.homes[name]
        connection = HubConnection(home.credentials(), address=self.address)
        sums = HubSums(connection, self.manifest, name, home.signer(), home.run_folder("r-1"))
        with sums, recorded_run(sums, home, PIPELINE, self.address) as record:
            assert record_of("r-1", name) is record
            sums.wait_until_ready(30)
            opening = Opening({"rows": name})
            opening.save(home.folder / "opening.json")
            record.begin(opening)
            for number, model in enumerate(models, 1):
                sums.sum(f"tree-{number}", np.full(5, number), bound=100)
                record.tree(number, model)
                if number == stop_after:
                    raise KeyError("a bug of ours")
            record.finish(models[-1])
            sums.finish(hashlib.sha256(models[-1]).digest())

    def everywhere(self, parts):
        """Run each member's part in a thread; what it raises stands for its result."""

        def run(name):
            try:
                return self.part(name, **parts[name])
            except Exception as error:  # noqa: BLE001 - it is what the test looks at
                return error

        with ThreadPoolExecutor(len(parts)) as pool:
            return dict(zip(parts, pool.map(run, parts), strict=True))

    def ledger(self, name):
        return verify_ledger(self.homes[name].folder / "ledger")

    def close(self):
        self.server.stop()
        self.hub.close()


@pytest.fixture
def federation(tmp_path):
    one = Federation(tmp_path)
    yield one
    one.close()


def test_every_members_ledger_proves_the_run_and_its_model(federation, models):
    assert set(federation.everywhere({name: {"models": models} for name in NAMES}).values()) == {None}
    digest = hashlib.sha256(models[-1]).hexdigest()
    published = SimpleNamespace(registered_model="m", version="1", digest=digest)
    for _ in range(2):  # a publication that is repeated stands there once
        record_published(federation.homes["north"], federation.address, "r-1", published, "champion")
    verified = federation.ledger("north")
    lineage = trace(verified, "m", 1, digest, alias="champion")
    assert any("harbour, north, valley cosigned the ledger after the run had ended" in line for line in lineage.proved)
    for name in NAMES:
        run = federation.ledger(name).history.runs.by_id["r-1"]
        assert (run.state, run.trees, run.model) == ("finished", ROUNDS, digest)
        opening = Opening.load(federation.homes[name].folder / "opening.json")
        assert find_commitment(verified, opening)[0].startswith(f"{name} committed to these data")


def test_a_tree_has_the_digest_of_the_model_so_far_and_of_what_each_member_sent(federation, models):
    federation.everywhere({name: {"models": models} for name in NAMES})
    told = [read_entry(leaf).predicate for leaf in federation.ledger("valley").view.entries()]
    trees = [each for each in told if each.KIND == "tree-finished"]
    salts = {(home.run_folder("r-1") / "ledger.salt").read_bytes() for home in federation.homes.values()}
    (salt,) = salts
    assert [tree.model for tree in trees] == model_chain(models[-1], salt)
    assert not {tree.model for tree in trees} & set(model_chain(models[-1]))
    assert all(set(tree.sent) == set(NAMES) and tree.check == "passed" for tree in trees)
    assert len({digest for tree in trees for digest in tree.sent.values()}) == 3 * ROUNDS


def test_nothing_that_the_hub_must_not_see_stands_in_its_ledger(federation, models):
    federation.everywhere({name: {"models": models} for name in NAMES})
    for leaf in federation.ledger("north").view.entries():
        predicate = read_entry(leaf).predicate
        assert getattr(predicate, "rows", None) is None and predicate.KIND != "evaluation"


def test_a_member_whose_model_is_another_stops_the_run_for_all(federation, models):
    other = [models[0], models[0], *models[2:]]
    ended = federation.everywhere({name: {"models": other if name == "valley" else models} for name in NAMES})
    assert isinstance(ended["valley"], EntryRefused)
    assert "tree 2 of run r-1" in str(ended["valley"])
    assert all(isinstance(ended[name], SumAborted | EntryRefused) for name in ("harbour", "north")), ended
    run = federation.ledger("north").history.runs.by_id["r-1"]
    assert run.state != "finished"


def test_a_member_that_waits_for_a_cosignature_which_another_refuses_is_told_at_once(federation, models, monkeypatch):
    tree, compare, checkpoint = HubRecord._tree, HubRecord._compare, HubRecord._checkpoint
    refused, stands_at_valley = threading.Event(), threading.Event()

    def late(record, number, model, sent):
        if (record.name, number) == ("harbour", 1):  # it still waits for the first tree when the second is refused
            assert refused.wait(30)
        if (record.name, number) == ("north", 2):
            assert stands_at_valley.wait(30)
        tree(record, number, model, sent)

    def seen_checkpoint(record, until):
        if record.name == "valley" and 2 in record._mine:
            stands_at_valley.set()
        checkpoint(record, until)

    def seen_compare(record, number, claimed):
        try:
            compare(record, number, claimed)
        except EntryRefused:
            refused.set()
            raise

    monkeypatch.setattr(HubRecord, "_tree", late)
    monkeypatch.setattr(HubRecord, "_checkpoint", seen_checkpoint)
    monkeypatch.setattr(HubRecord, "_compare", seen_compare)
    other = [models[0], models[0], *models[2:]]
    began = time.monotonic()
    ended = federation.everywhere({name: {"models": other if name == "valley" else models} for name in NAMES})
    assert isinstance(ended["valley"], EntryRefused)
    assert all(isinstance(ended[name], SumAborted | EntryRefused) for name in ("harbour", "north")), ended
    assert time.monotonic() - began < federation.manifest.grace_seconds


def test_an_error_at_a_member_ends_the_run_in_the_ledger_without_its_text(federation, models):
    parts = {name: {"models": models, "stop_after": 2 if name == "valley" else None} for name in NAMES}
    ended = federation.everywhere(parts)
    assert isinstance(ended["valley"], KeyError)
    assert all(isinstance(ended[name], SumAborted) for name in ("harbour", "north"))
    ledger = federation.ledger("valley")
    assert ledger.history.runs.by_id["r-1"].state == "aborted"
    assert not any(b"a bug of ours" in read_entry(leaf).envelope.payload for leaf in ledger.view.entries())


def test_a_member_that_does_not_cosign_suspends_the_run_and_it_goes_on_when_it_does(tmp_path, models):
    federation = Federation(tmp_path, grace_seconds=10)
    home = federation.homes["valley"]
    connection = HubConnection(home.credentials(), address=federation.address)
    folder = home.run_folder("r-1")
    write_private(folder / "ledger.share", bytes(32))
    try:
        with HubSums(connection, federation.manifest, "valley", home.signer(), folder) as quiet:
            adding = threading.Thread(target=add_up_salt, args=(quiet,))
            adding.start()
            ended = federation.everywhere({name: {"models": models} for name in ("harbour", "north")})
            adding.join()
        assert {type(error) for error in ended.values()} == {RunSuspended}
        assert "another member's entry" in str(ended["north"])
        assert set(federation.everywhere({name: {"models": models} for name in NAMES}).values()) == {None}
        assert federation.ledger("harbour").history.runs.by_id["r-1"].state == "finished"
    finally:
        federation.close()


def add_up_salt(sums):
    """Take part in the sum that precedes the ledger, and in nothing else."""
    sums.wait_until_ready(30)
    sums.sum("ledger/salt", np.zeros(8, np.int64), bound=1 << 42)


def test_entries_of_others_in_mid_run_hold_nobody_up(federation, models):
    """A head is never complete if it is overtaken: members cosign what comes, whatever they wait for themselves."""
    stopped = threading.Event()

    def talk():
        home = federation.homes["harbour"]
        while not stopped.wait(0.02):
            record = record_of("r-1", "harbour")
            if record is not None and record.ledger.history.runs.by_id:
                try:
                    record.ledger.record(
                        PolicyRefused,
                        run="another",
                        manifest="ab" * 32,
                        clause="runs_per_week",
                        reason=home.organisation,
                    )
                except (UserError, Closed):
                    return

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        assert set(federation.everywhere({name: {"models": models} for name in NAMES}).values()) == {None}
    finally:
        stopped.set()
        talking.join()
    history = federation.ledger("valley").history
    assert history.runs.by_id["r-1"].state == "finished" and history.size > 15
