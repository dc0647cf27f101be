"""One organisation's view, as its portal shows it: its copy of the ledger, its place in the market, its runs.

Pages read the files that are here. Where the ledger is a hub's, catching up happens beside, so that a page does not
wait for a hub that is away.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.ledger.documents import LARGEST
from lepton_pipelines.ledger.errors import LedgerInUse
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.policy import FILE_NAME, read_policy
from lepton_pipelines.ledger.predicate import Predicate
from lepton_pipelines.ledger.replica import fold
from lepton_pipelines.ledger.store import LedgerView
from lepton_pipelines.market.place import Place
from lepton_pipelines.organisation.market_place import HubMarket, LocalMarket, read_while_written
from lepton_pipelines.organisation.recording import ledger_folder
from lepton_pipelines.portal.roles import Role, read_people
from lepton_pipelines.spec.errors import UserError

REFRESH_SECONDS = 5.0
BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Snapshot:
    """The ledger as it was read: its files, and what its entries add up to."""

    view: LedgerView
    history: History


@dataclass(frozen=True)
class Links:
    """Where the organisation's own servers are reached, if they are known: Prefect's and MLflow's pages."""

    prefect: str | None = None
    mlflow: str | None = None


@dataclass(frozen=True)
class Heard:
    """When the hub last heard of whom: seconds before `read` (monotonic), of those that called since it was started."""

    seconds: dict[str, float]
    read: float

    def ago(self, name: str) -> float | None:
        """Return how many seconds ago that is by now; None if it was not since the hub was started."""
        known = self.seconds.get(name)
        return None if known is None else known + time.monotonic() - self.read


@dataclass
class Stand:
    """One organisation at its portal.

    home: its keys. place: its voice in the market. ledger: its replica. var: its runs. catch_up: brings the replica up
    to date; None where nobody else writes it. behind: why it could not, last time. ask_heard: asks the hub when it
    heard of whom; None without a hub. heard: what it said last.
    """

    home: OrganisationHome
    place: Place
    ledger: Path
    var: Path
    links: Links = field(default_factory=Links)
    catch_up: Callable[[], object] | None = None
    behind: str = ""
    ask_heard: Callable[[], dict[str, float]] | None = None
    heard: Heard | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _read: tuple[object, Snapshot] | None = None
    _asked: float = float("-inf")
    _people: tuple[object, dict[str, tuple[bytes, frozenset[Role]]]] | None = None

    @property
    def organisation(self) -> str:
        """Whose it is."""
        return self.home.organisation

    def people(self) -> dict[str, tuple[bytes, frozenset[Role]]]:
        """Return who may sign in here; the files are read again when they have changed."""
        stamp = tuple(_stamp(self.home.folder / name) for name in ("portal.yaml", "trusted.json", "signing.key"))
        with self._lock:
            if self._people is None or self._people[0] != stamp:
                self._people = (stamp, read_people(self.home))
            return self._people[1]

    def snapshot(self) -> Snapshot:
        """Return the ledger as its files are now, read again only if they have changed."""
        self._refresh()
        with self._lock:
            stamp = tuple(_stamp(self.ledger / name) for name in ("journal", "checkpoint"))
            if self._read is None or self._read[0] != stamp:
                if not (self.ledger / FILE_NAME).exists():
                    self.place.history()  # the first time: an empty copy is made, or fetched
                view = read_while_written(self.ledger)
                history = fold(view, read_policy(self.ledger / FILE_NAME).log, self.organisation)
                self._read = (stamp, Snapshot(view, history))
            return self._read[1]

    def market(self) -> "Reading":
        """Return the market over what was read, for everything that only looks."""
        return Reading(self)

    def speak(self, action: Callable[[Place], Any]) -> Any:
        """Do something in the organisation's name, one at a time. Raises UserError if it is refused.

        A run that holds the ledger's files is waited for.
        """
        until = time.monotonic() + BUSY_SECONDS
        with self._writing:
            while True:
                try:
                    return action(self.place)
                except LedgerInUse:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.2)
                except ValidationError as error:
                    raise UserError(f"{_field(error)}: {error.errors()[0]['msg']}.") from error

    def _refresh(self) -> None:
        """Catch up beside, if that was some seconds ago."""
        if self.catch_up is None:
            return
        with self._lock:
            if time.monotonic() - self._asked < REFRESH_SECONDS or not (self.ledger / "checkpoint").exists():
                return
            self._asked = float("inf")
        threading.Thread(target=self._catch_up, name=f"catching up for {self.organisation}", daemon=True).start()

    def _catch_up(self) -> None:
        try:
            if self.catch_up is not None:
                self.catch_up()
            self.behind = ""
            self._hear()
        except LedgerInUse:
            self.behind = ""  # a run of this organisation is writing it: it is as new as can be
        except UserError as error:
            self.behind = str(error)
        finally:
            self._asked = time.monotonic()

    def _hear(self) -> None:
        if self.ask_heard is not None:
            self.heard = Heard(self.ask_heard(), time.monotonic())


class Reading:
    """The market as it was read: no network, no waiting. Nothing can be said through it."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._snapshot = stand.snapshot()

    @property
    def organisation(self) -> str:
        """Whose view it is."""
        return self._stand.organisation

    def history(self) -> History:
        """Return what the ledger's entries add up to."""
        return self._snapshot.history

    def get(self, digest: str) -> bytes:
        """Return a document."""
        return self._stand.place.get(digest)

    def put(self, document: bytes, *, most: int = LARGEST) -> str:
        """Refuse: reading changes nothing."""
        raise UserError("nothing can be published while reading")

    def record(self, kind: type[Predicate], **fields: Any) -> int:
        """Refuse: reading changes nothing."""
        raise UserError("nothing can be said while reading")


def stand_in_folder(var: Path, organisation: str, links: Links) -> Stand:
    """Open an organisation's stand where runs in one process keep their ledger."""
    home = OrganisationHome(var / "identity" / organisation)
    if not (home.folder / "signing.key").exists():
        raise UserError(f"{organisation} has no keys below {var}: run a pipeline there first, or name another --var.")
    return Stand(home, LocalMarket(var, organisation), ledger_folder(var, organisation), var, links)


def stand_at_hub(home: OrganisationHome, var: Path, links: Links) -> Stand:
    """Open an organisation's stand at its hub."""
    place = HubMarket(home)
    home.credentials()
    return Stand(
        home, place, home.folder / "ledger", var, links, catch_up=place.history, ask_heard=place.seconds_since_heard
    )


def _field(error: ValidationError) -> str:
    return ".".join(str(each) for each in error.errors()[0]["loc"]) or "the entry"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
