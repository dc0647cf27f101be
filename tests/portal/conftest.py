"""A folder in which three organisations have traded and trained, and a portal over it: in this process, or served."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvicorn
import xgboost
from fastapi.testclient import TestClient

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.compute_entries import WorkEnded
from lepton_pipelines.ledger.documents import encode
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.market import dealing
from lepton_pipelines.market.algorithms import AlgorithmCard, SummedVector
from lepton_pipelines.market.models import Card, CardColumn, offer_model
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.market_place import LocalMarket
from lepton_pipelines.pool.jobs import Benchmark, ask
from lepton_pipelines.pool.offers import offer_compute
from lepton_pipelines.pool.reserving import Wanted, reserve
from lepton_pipelines.portal.app import create_app
from lepton_pipelines.portal.guarding import CSRF_HEADER, Limits
from lepton_pipelines.portal.signing_in import statement
from lepton_pipelines.portal.stand import Links, stand_in_folder

ROOT = Path(__file__).parents[2]
MEMBERS = ["harbour", "north", "valley"]
PRODUCT = "harbour/patients"
PURPOSE = "breast cancer screening"
DIGEST = digest_of(b"what the members agreed on")
SCRIPT = "<script>document.title='taken over'</script><img src=x onerror=alert(1)>"
_ROWS = xgboost.DMatrix(np.arange(8.0).reshape(8, 1), np.arange(8) > 3, feature_names=["mean_radius"])
MODEL = bytes(xgboost.train({"objective": "binary:logistic", "max_depth": 2}, _ROWS, 3).save_raw("ubj"))
ADDRESS = "http://127.0.0.1:8800"
PLENTY = Limits(requests=1_000_000, sign_ins=1_000_000, verifications=1_000_000)


@dataclass
class World:
    """What lies in the folder. granted, open: numbers of requests; held: a reservation of north's at harbour."""

    var: Path
    granted: str
    open: str
    held: str

    def of(self, organisation: str) -> LocalMarket:
        return LocalMarket(self.var, organisation)

    def home(self, organisation: str) -> OrganisationHome:
        return OrganisationHome(self.var / "identity" / organisation)

    def stands(self) -> dict:
        return {name: stand_in_folder(self.var, name, Links()) for name in MEMBERS}


def build(folder: Path) -> World:
    """Trade, train, publish: each entry as the command line would have it written."""
    var = folder / "var"
    places = {name: LocalMarket(var, name) for name in MEMBERS}
    for place in places.values():
        place.history()
    shutil.copy(ROOT / "examples/healthcare/contract.odcs.yaml", folder)
    spec = folder / "product.yaml"
    spec.write_text(
        "product: patients\norganisation: harbour\ntitle: Needle aspirates of harbour\ndomain: healthcare\n"
        f"contract: contract.odcs.yaml\nrows: 187\nterms: {{runs: 20}}\ndescription: {json.dumps(SCRIPT)}\n"
    )
    dealing.publish(places["harbour"], spec)
    granted = dealing.request(places["north"], dealing.Request(PRODUCT, PURPOSE, runs=5))
    dealing.give(places["harbour"], PRODUCT, granted)
    _train(places, "r-1", granted)
    card = Card(
        title="Malignant or benign, from needle aspirates", licence="CC-BY-4.0", objective="binary:logistic",
        label="malignant", columns=[CardColumn(name="mean_radius", kind="number", missing=False)],
        scores={"auc": 0.997}, run="r-1", members=MEMBERS,
    )  # fmt: skip
    offer_model(places["north"], "breast-cancer", 1, MODEL, card)
    _offer_algorithm(places["valley"])
    number = dealing.request(places["valley"], dealing.Request(PRODUCT, "a study of needles", runs=2, message=SCRIPT))
    _begin(places, "r-2")
    write_progress(var, "r-2", 12)
    return World(var, granted, number, _offer_computers(places, folder))


def _offer_computers(places: dict[str, LocalMarket], folder: Path) -> str:
    """Offer computers, reserve some, and have work done there; return the reservation."""
    spec = folder / "evenings.yaml"
    spec.write_text(
        "offer: evenings\norganisation: harbour\ntitle: Spare evenings\ncores: 16\nmemory: 64 GB\nquota: 100\n"
        f"price: {{amount: 0.05, currency: EUR}}\ndescription: {json.dumps(SCRIPT)}\n"
    )
    offer_compute(places["harbour"], spec)
    held = reserve(places["north"], Wanted("benchmark", 4, 8_000_000_000, 2.0)).reserved.reservation
    job = ask(places["north"], held, Benchmark(work="benchmark"), folder / "jobs")
    result = places["harbour"].put(encode({"rows_a_second": 1_000_000}))
    places["harbour"].record(WorkEnded, job=job, outcome="done", core_seconds=7.5, tasks=1, result=result)
    return held


def _offer_algorithm(place: LocalMarket) -> None:
    """Offer an algorithm, as `lepton market publish-algorithm` writes it; its wheel plays no part on pages."""
    card = AlgorithmCard(
        name="averaging", version="1.0", title="The average of the labels", licence="Apache-2.0", parameters={},
        distribution="averaging", entry_point="averaging:Averaging", file="averaging-1.0-py3-none-any.whl", size=1,
        sums=[SummedVector(name="averaging/labels", what="labels, and how many", reveals="their mean")],
    )  # fmt: skip
    told = {"version": "1.0", "wheel": DIGEST, "code": DIGEST}
    place.record(entries.AlgorithmOffered, offer="valley/averaging", card=place.put(encode(card.model_dump())), **told)


def _begin(places: dict[str, LocalMarket], run: str) -> None:
    told = {"pipeline": "breast-cancer", "members": MEMBERS, "code_version": "1"}
    places["north"].record(entries.RunOpened, run=run, manifest=DIGEST, spec=DIGEST, **told)
    for rows, place in zip((187, 214, None), places.values(), strict=True):
        told = {} if rows is None else {"rows": rows}
        place.record(entries.RunJoined, run=run, manifest=DIGEST, dataset=f"hmac-sha256:{DIGEST}", **told)


def _train(places: dict[str, LocalMarket], run: str, grant: str) -> None:
    north, digest = places["north"], digest_of(MODEL)
    _begin(places, run)
    request = north.history().grants.by_id[PRODUCT, grant].asked.request
    places["harbour"].record(entries.GrantUsed, grant=grant, product=PRODUCT, request=request, run=run)
    north.record(entries.RunFinished, run=run, manifest=DIGEST, trees=3, model=digest)
    scores = {"auc": 0.997, "logloss": 0.09}
    north.record(entries.Evaluation, run=run, model=digest, rows=98, metrics=scores, gates={"auc": True, "ece": True})
    version = {"model": "breast-cancer", "version": 1, "digest": digest}
    north.record(entries.ModelPublished, run=run, **version)
    north.record(entries.ModelPromoted, alias="champion", **version)


def write_progress(var: Path, run: str, rounds: int) -> None:
    """Leave what a training leaves after so many rounds: its spec, and north's checkpoint."""
    folder = RunFolder(var, run)
    folder.create()
    spec = {"name": "breast-cancer", "organisations": MEMBERS, "training": {"rounds": 60}}
    folder.write("pipeline.json", json.dumps(spec))
    falling = [0.69 * 0.93**i for i in range(rounds)]
    history = {"train": {"logloss": falling}, "valid": {"logloss": [each + 0.02 for each in falling]}}
    path = folder.of("north").path / "scores.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, history=np.frombuffer(json.dumps([history, {}]).encode(), np.uint8))
    folder.of("north").write_checkpoint(rounds, path.read_bytes())
    path.unlink()


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> World:
    """The folder, made once; nobody writes in it."""
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(built, tmp_path) -> World:
    """A copy of the folder that a test may write in."""
    shutil.copytree(built.var, tmp_path / "var")
    return World(tmp_path / "var", built.granted, built.open, built.held)


class Visitor(TestClient):
    """A client of the portal, signed in or not."""

    def sign_in(self, world: World, name: str, *roles: str, at: str | None = None) -> "Visitor":
        challenge = self.post("/api/v1/challenges").json()
        signed = statement(challenge["address"], name, at or "", list(roles), challenge["nonce"])
        answer = {
            "name": name, "organisation": at, "roles": list(roles), "nonce": challenge["nonce"],
            "signature": world.home(name).signer().sign(signed).hex(),
        }  # fmt: skip
        told = self.post("/api/v1/sessions", json=answer)
        assert told.status_code == 201, told.text
        self.headers[CSRF_HEADER] = told.json()["csrf"]
        return self


def visitor(world: World, limits: Limits = PLENTY) -> Visitor:
    """Open a portal over the folder, and return somebody before its door."""
    app = create_app(world.stands(), ADDRESS, limits)
    return Visitor(app, base_url=ADDRESS, follow_redirects=False, raise_server_exceptions=True)


@dataclass
class Served:
    """A portal that answers on a port of this machine."""

    url: str
    world: World


def serving(world: World) -> Iterator[Served]:
    """Serve a portal in a thread of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    config = uvicorn.Config(create_app(world.stands(), url, PLENTY), port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        thread.join(0.02)
    try:
        yield Served(url, world)
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def served(built, tmp_path_factory) -> Iterator[Served]:
    """A served portal over a copy of the folder, for a module's tests."""
    var = tmp_path_factory.mktemp("served") / "var"
    shutil.copytree(built.var, var)
    yield from serving(World(var, built.granted, built.open, built.held))


@pytest.fixture
def door(built) -> Visitor:
    """Somebody before the door of a portal over the folder that nobody writes in."""
    return visitor(built)


@pytest.fixture
def open_portal():
    """Open a portal over another folder, or under other limits."""
    return visitor


@pytest.fixture(scope="session")
def visitors():
    """The same for fixtures that live longer."""
    return visitor


@pytest.fixture(scope="session")
def serve():
    """Serve a portal over another folder."""
    return serving


@pytest.fixture(name="write_progress")
def _write_progress():
    """Go on with a run, as its folder shows it."""
    return write_progress
