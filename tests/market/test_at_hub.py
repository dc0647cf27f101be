"""Pool and algorithms at a real hub: three organisations over mutual TLS, each with its own home and replica."""

import re
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.federation.proposal import proposed_manifest
from lepton_pipelines.federation.runs import accept, propose
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market import algorithms
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.organisation.market_place import HubMarket
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.jobs import Benchmark, ask
from lepton_pipelines.pool.offers import OfferFile, compute_offers, offer_told
from lepton_pipelines.pool.reserving import Wanted, release, reserve
from lepton_pipelines.pool.serving import result_of, serve_once
from lepton_pipelines.pool.status import status
from lepton_pipelines.pool.work import Bench
from lepton_pipelines.spec.algorithm_code import code_of_wheel
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy
from lepton_pipelines.spec.pipeline import parse_pipeline

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = ("harbour", "north", "valley")
PAGE = (ROOT / "docs/algorithms.md").read_text(encoding="utf-8")
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
CARD = re.search(r"```yaml\n(organisation: north\n.*?)```", PAGE, flags=re.DOTALL)[1]


class Hub:
    """A hub, and organisations that have compared each other's keys."""

    def __init__(self, folder: Path) -> None:
        hub = HubHome.create(folder / "hub", "localhost:7443")
        self.homes = {name: OrganisationHome.create(folder / name, name) for name in NAMES}
        requests = {name: home.request() for name, home in self.homes.items()}
        for name, home in self.homes.items():
            admission = hub.admit(requests[name], fingerprint=requests[name].fingerprint)
            home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
            for other, request in requests.items():
                if other != name:
                    home.trust(request.model_dump_json().encode(), fingerprint=request.fingerprint)
        self.hub = hub
        self.server = HubServer(hub, listen="localhost:0")
        self.server.start()
        self.address = f"localhost:{self.server.port}"

    def of(self, name: str) -> HubMarket:
        return HubMarket(self.homes[name], address=self.address)

    @contextmanager
    def connected(self, name: str):
        with closing(HubConnection(self.homes[name].credentials(), address=self.address, patience=20)) as connection:
            yield connection

    def verified(self, name: str) -> list[str]:
        self.of(name).history()
        return verify_ledger(self.homes[name].folder / "ledger").proved


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    one = Hub(tmp_path_factory.mktemp("hub"))
    yield one
    one.server.stop()
    one.hub.close()


@pytest.fixture
def wheel(build_wheel, pip_install):
    """The page's algorithm, installed."""
    wheel = build_wheel(AVERAGING)
    pip_install(wheel)
    return wheel


def test_the_hub_tells_when_it_heard_of_whom(hub):
    hub.of("north").history()
    with hub.connected("harbour") as connection:
        heard = connection.seconds_since_heard()
    assert {"north", "harbour"} <= heard.keys() <= set(NAMES)
    assert all(0 <= seconds < 600 for seconds in heard.values())


def test_computers_are_offered_reserved_and_worked_on_between_homes(hub, tmp_path):
    harbour, north, valley = map(hub.of, NAMES)
    told = OfferFile(offer="evenings", organisation="harbour", title="Evenings", cores=2, memory="4 GB")
    assert offer_told(harbour, told) == ("harbour/evenings", 1, True)
    with pytest.raises(PoolRefused, match="the offer is harbour's"):
        offer_told(north, told)
    (seen,) = compute_offers(valley)
    assert (seen.id, seen.described.title) == ("harbour/evenings", "Evenings")
    held = reserve(north, Wanted("benchmark", 2, 1_000_000_000, 1.0)).reserved.reservation
    with pytest.raises(PoolRefused, match=f"reserved are {held} of north"):
        reserve(valley, Wanted("benchmark", 1, 1_000_000_000, 1.0))
    job = ask(north, held, Benchmark(work="benchmark", rows=1000, columns=3, rounds=2), tmp_path / "north-jobs")
    assert result_of(north, job) is None

    def nothing(*_):
        raise AssertionError("a benchmark reads nothing")

    bench = Bench(harbour, tmp_path / "cache", nothing, nothing)
    (ended,) = serve_once(bench, told, tmp_path / "harbour-jobs")
    found = result_of(north, job)
    assert found == ended and found.result["rows_a_second"] > 0
    release(harbour, held, "needed at home")
    now = status(valley)
    assert now["reservations"][0]["state"] == "released"
    assert now["core_hours"]["by_run"][job]["organisation"] == "north"
    assert all(hub.verified(name) for name in NAMES)


def test_an_algorithm_is_offered_pulled_and_verified_through_the_hub(hub, wheel, tmp_path):
    spec = tmp_path / "averaging.yaml"
    spec.write_text(re.sub(r"wheel: .*", f"wheel: {wheel.name}", CARD))
    assert algorithms.offer_algorithm(hub.of("north"), spec) == ("north/averaging", "1.0", True)
    valley = hub.of("valley")
    (found,) = algorithms.algorithm_offers(valley, "mean")

    def nothing(url):
        raise AssertionError(url)

    pulled = algorithms.pull_algorithm(valley.get, found, tmp_path / "pulled", nothing)
    assert pulled.read_bytes() == wheel.read_bytes()
    assert algorithms.verify_installed(found).digest == code_of_wheel(wheel).digest
    with pytest.raises(UserError, match="only north can"):
        algorithms.withdraw_algorithm(valley, "north/averaging", None, "not mine")
    algorithms.withdraw_algorithm(hub.of("north"), "north/averaging", None, "a better one follows")
    with pytest.raises(MarketRefused, match="is not on offer"):
        algorithms.algorithm_offer(valley, "north/averaging")
    assert any("1 algorithm" in line for line in hub.verified("valley"))


def test_an_invitation_to_train_with_code_that_the_policy_does_not_allow_is_refused_and_told_to_the_others(hub, wheel):
    digest = code_of_wheel(wheel).digest
    pipeline = parse_pipeline(
        {
            "name": "mean",
            "organisations": list(NAMES),
            "federation": {"hub": "localhost:7443"},
            "contract": str(ROOT / "examples/healthcare/contract.odcs.yaml"),
            "training": {"algorithm": "averaging", "label": "malignant"},
            "split": {"key": "patient_id", "train": 0.7, "valid": 0.15, "test": 0.15},
        },
        name="pipeline",
    )
    manifest = proposed_manifest(pipeline, hub.homes["north"], "r-code")
    propose(manifest, hub.homes["north"], address=hub.address)
    home = hub.homes["valley"]
    another = {"name": "averaging", "digest": "0" * 64}
    allowed = {"name": "averaging", "digest": digest}
    with closing(RunHistory(home.folder)) as history, hub.connected("valley") as connection:
        for policy, told in (
            ({}, "allows averaging by no digest"),
            ({"algorithms": ["averaging"]}, "allows averaging by no digest"),
            ({"algorithms": [another]}, f"has the digest {digest}; policy.algorithms allows {another['digest']}"),
            ({"algorithms": ["xgboost"]}, "it trains averaging, policy.algorithms allows xgboost"),
        ):
            with pytest.raises(UserError, match=told):
                accept(manifest, home, policy=Policy(**policy), history=history, pipeline=pipeline)
        accept(manifest, home, policy=Policy(algorithms=[allowed]), history=history, pipeline=pipeline)
        assert len({reason for _, _, reason in history.refusals()}) == 3  # the first two policies say the same
        assert not history.runs()
        with pytest.raises(UserError, match="r-code"):
            accept(
                manifest, home, policy=Policy(), history=history, pipeline=pipeline, connection=connection
            )  # declines
        assert "averaging by no digest" in str(connection.look("r-code"))
