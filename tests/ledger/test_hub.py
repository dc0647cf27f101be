"""The ledger at a real hub: three organisations over mutual TLS, each with a replica of its own."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.ledger import evidence
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.entries import (
    ModelPublished,
    ProductPublished,
    RunFinished,
    RunJoined,
    RunOpened,
    TreeFinished,
)
from lepton_pipelines.ledger.errors import EntryRefused, LedgerForked, LedgerInUse, WitnessSilent
from lepton_pipelines.ledger.hub_ledger import HubLedger
from lepton_pipelines.ledger.member_ledger import MemberLedger
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.market_place import HubMarket
from lepton_pipelines.spec.errors import UserError

NAMES = ("harbour", "north", "valley")
DIGEST = "ab" * 32


class Hub:
    """A hub and its organisations' ledgers, all on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = HubHome.create(folder / "hub", "localhost:7443")
        self.homes = {name: OrganisationHome.create(folder / name, name) for name in NAMES}
        for home in self.homes.values():
            request = home.request()
            admission = self.home.admit(request, fingerprint=request.fingerprint)
            home.accept(admission.model_dump_json().encode(), fingerprint=self.home.fingerprint)
        self.port = 0
        self.closing = contextlib.ExitStack()
        self.serve()

    def serve(self) -> None:
        self.server = HubServer(self.home, listen=f"localhost:{self.port}")
        self.port = self.server.port
        self.server.start()

    def connect(self, name: str) -> HubConnection:
        connection = HubConnection(self.homes[name].credentials(), address=f"localhost:{self.port}", patience=20)
        self.closing.callback(connection.close)
        return connection

    def ledger(self, name: str, **settings) -> MemberLedger:
        home = self.homes[name]
        settings = {"hub_key": self.home.signer().public, "trusted": {}} | settings
        ledger = MemberLedger(home.folder / "ledger", self.connect(name), name, home.signer(), **settings)
        self.closing.callback(ledger.close)
        return ledger

    def close(self) -> None:
        self.closing.close()
        self.server.stop()
        self.home.close()


@pytest.fixture
def hub(tmp_path):
    one = Hub(tmp_path)
    yield one
    one.close()


def together(ledgers, work):
    with ThreadPoolExecutor(len(ledgers)) as pool:
        return list(pool.map(work, ledgers))


def opened(ledger, members=NAMES):
    ledger.record(
        RunOpened, run="r", pipeline="p", members=sorted(members), manifest=DIGEST, spec=DIGEST, code_version="1"
    )


def joined(ledger):
    ledger.record(RunJoined, run="r", manifest=DIGEST, dataset=f"hmac-sha256:{DIGEST}")


def whole_run(ledger):
    """What each member of a run does, in a thread of its own."""
    ledger.enter()
    ledger.checkpoint(NAMES, lambda history: set(NAMES) <= history.members.by_name.keys(), timeout=20)
    if ledger.signer.name == "north":
        opened(ledger)
    ledger.checkpoint(NAMES, lambda history: "r" in history.runs.by_id, timeout=20)
    joined(ledger)
    ledger.checkpoint(NAMES, lambda history: set(history.runs.by_id["r"].joined) == set(NAMES), timeout=20)
    for tree in range(1, 4):
        if ledger.signer.name == "north":
            ledger.record(TreeFinished, run="r", tree=tree, model=DIGEST, check="passed")
        ledger.checkpoint(NAMES, lambda history, tree=tree: history.runs.by_id["r"].trees >= tree, timeout=20)
    if ledger.signer.name == "north":
        ledger.record(RunFinished, run="r", manifest=DIGEST, trees=3, model=DIGEST)
    return ledger.checkpoint(NAMES, lambda history: history.runs.by_id["r"].state == "finished", timeout=20)


def test_every_member_ends_a_run_with_the_same_ledger_cosigned_by_all(hub):
    ledgers = [hub.ledger(name) for name in NAMES]
    heads = together(ledgers, whole_run)
    assert {Checkpoint.parse(head.text).size for head in heads} == {11}
    for ledger in ledgers:
        ledger.close()
        verified = verify_ledger(ledger.replica.folder)
        assert set(verified.heads[11]) == set(NAMES)
        assert any("run r: 3 trees" in line for line in verified.proved)


def test_a_hub_that_was_restarted_goes_on_with_its_log(hub):
    ledgers = [hub.ledger(name) for name in NAMES]
    together(ledgers, MemberLedger.enter)
    hub.server.stop()
    hub.serve()
    opened(ledgers[0])
    together(ledgers, lambda ledger: ledger.checkpoint(NAMES, lambda h: "r" in h.runs.by_id, timeout=20))
    assert len({ledger.replica.store.root for ledger in ledgers}) == 1


def test_a_member_cannot_speak_for_another(hub):
    north, valley = hub.ledger("north"), hub.ledger("valley")
    together([north, valley], MemberLedger.enter)
    north.signer = valley.signer
    with pytest.raises(UserError, match="north cannot submit an entry of valley"):
        opened(north, ["north", "valley"])


def test_two_members_that_publish_the_same_name_at_the_same_moment_do_not_both_get_it(hub):
    ledgers = [hub.ledger(name) for name in NAMES]
    together(ledgers, whole_run)

    def publish(ledger):
        # A product's name has its owner's before it; a model's has not.
        name = f"{ledger.signer.name}/patients"
        ledger.record(ProductPublished, product=name, version=1, contract=DIGEST, terms=DIGEST)
        try:
            ledger.record(ModelPublished, model="m", version=1, run="r", digest=DIGEST)
        except UserError as error:
            return str(error)
        return "published"

    said = together(ledgers, publish)
    for ledger in ledgers:
        ledger.catch_up()
    assert {f"{name}/patients" for name in NAMES} == set(ledgers[0].history.grants.products)
    assert said.count("published") == 1
    assert sum("m v1 of run r is published already" in each for each in said) == len(NAMES) - 1
    assert len({ledger.replica.store.root for ledger in ledgers}) == 1


def test_an_entry_that_is_sent_twice_because_its_answer_was_lost_stands_there_once(hub):
    north = hub.ledger("north")
    north.enter()
    sent = []
    submit = north._wire.ledger_submit
    north._wire.ledger_submit = lambda entry: sent.append(entry) or submit(entry)
    opened(north, ["north"])
    assert submit(sent[0]) == submit(sent[0]) == north.history.size
    hub.server.stop()
    hub.serve()
    assert submit(sent[0]) == north.history.size


def test_an_owner_speaks_in_the_market_while_a_run_of_its_own_holds_the_replica(hub):
    running, done = hub.ledger("harbour"), threading.Event()
    running.enter()

    def go_on():
        while not done.is_set():
            running.catch_up(wait=1.0)

    place = HubMarket(hub.homes["harbour"], address=f"localhost:{hub.port}")
    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(go_on)
        index = place.record(ProductPublished, product="harbour/p", version=1, contract=DIGEST, terms=DIGEST)
        assert place.history().grants.products["harbour/p"].index == index
        done.set()
        going_on.result(30)
    running.close()
    assert place.history().grants.products["harbour/p"].index == index


def test_a_run_waits_for_a_portal_that_is_reading(hub):
    reading = hub.ledger("harbour")
    reading.enter()
    with pytest.raises(LedgerInUse):
        hub.ledger("harbour")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hub.ledger, "harbour", patience=20.0)
        reading.close()
        assert waiting.result(30).replica.size == 1


def test_a_member_that_does_not_cosign_is_named(hub):
    north, valley = hub.ledger("north"), hub.ledger("valley")
    together([north, valley], MemberLedger.enter)
    opened(north, ["north", "valley"])
    with pytest.raises(WitnessSilent, match="the cosignature of valley"):
        north.checkpoint(["north", "valley"], timeout=0.5)


def test_waiting_ends_when_the_run_has_ended(hub):
    north = hub.ledger("north")
    north.enter()
    ended = threading.Event()
    ended.set()
    with pytest.raises(WitnessSilent):
        north.checkpoint(["north", "valley"], timeout=60, stopped=ended.is_set)


def test_a_member_refuses_an_entry_that_misstates_its_own_part_and_does_not_cosign(hub):
    def no_trees(index, entry):
        if isinstance(entry.predicate, TreeFinished):
            raise EntryRefused("this is not the model that stands here")

    north, valley = hub.ledger("north"), hub.ledger("valley", own_check=no_trees)
    together([north, valley], MemberLedger.enter)
    opened(north, ["north", "valley"])
    for ledger in (north, valley):
        joined(ledger)
    valley.catch_up()
    north.record(TreeFinished, run="r", tree=1, model=DIGEST, check="passed")
    with pytest.raises(EntryRefused, match="not the model that stands here"):
        valley.catch_up()
    with pytest.raises(WitnessSilent, match="valley"):
        north.checkpoint(["north", "valley"], timeout=0.5)


def test_a_member_with_another_key_than_the_one_that_was_compared_is_refused(hub):
    harbour = hub.ledger("harbour")
    harbour.enter()
    north = hub.ledger("north", trusted={"harbour": SigningKey.generate().public})
    with pytest.raises(EntryRefused, match=r"lepton org trust harbour\.request"):
        north.enter()


def test_a_hub_that_shows_two_members_different_ledgers_is_convicted_by_its_signatures(hub, tmp_path):
    """The hub keeps two logs under one key; the member who is shown both stops, with evidence that others can check."""
    north = hub.ledger("north")
    north.enter()
    opened(north, ["north"])
    north.catch_up()
    other = HubLedger(tmp_path / "second", hub.home.signer())
    signer = Signer("valley", hub.homes["valley"].signer())
    valley = MemberLedger(
        tmp_path / "valley-ledger", InProcess(other, "valley", signer.verifier.raw), "valley",
        hub.homes["valley"].signer(), hub_key=hub.home.signer().public, trusted={},
    )  # fmt: skip
    valley.enter()
    joined_there = InProcess(other, "north", north.signer.verifier.raw)
    other.submit("north", north._countersigned(joined_there.ledger_admission()))
    north._wire = joined_there
    with pytest.raises(LedgerForked, match="The run stops") as stopped:
        north.catch_up()
    assert "signed two heads" in evidence.check(evidence.load(stopped.value.evidence)).proved
    valley.close()
    other.close()


class InProcess:
    """A wire without a network, to a hub that lies."""

    def __init__(self, hub: HubLedger, name: str, key: bytes) -> None:
        self._hub, self._name, self._key = hub, name, key

    def ledger_admission(self):
        return self._hub.admission(self._name, self._key)

    def ledger_submit(self, entry):
        return self._hub.submit(self._name, entry)

    def ledger_read(self, first, signatures, wait):
        return self._hub.read(first, signatures, wait)

    def ledger_cosign(self, signature):
        return self._hub.cosign(self._name, signature)
