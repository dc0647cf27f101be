"""An organisation's stand in the market: in the folder of runs in one process, or at its hub."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_pipelines.federation.hub_connection import ConnectionLost, HubConnection
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.ledger.documents import LARGEST, LARGEST_MODEL, Documents
from lepton_pipelines.ledger.errors import DocumentRefused, LedgerDamaged, LedgerInUse
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.hub_ledger import origin_of
from lepton_pipelines.ledger.member_ledger import MemberLedger
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.policy import FILE_NAME, read_policy
from lepton_pipelines.ledger.predicate import Predicate, digest_of, fresh
from lepton_pipelines.ledger.replica import fold
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.statement import sign_entry
from lepton_pipelines.ledger.store import LedgerView
from lepton_pipelines.organisation.recording import DOCUMENTS, LOG, admit, ledger_folder, open_ledger
from lepton_pipelines.spec.errors import UserError

PATIENCE = 10.0
LEDGER = "ledger"


class LocalMarket:
    """The market below a working folder, where runs in one process keep their ledger: all members' keys are here.

    var: the working folder. organisation: who speaks; its key is drawn if it has none yet.
    """

    def __init__(self, var: Path, organisation: str) -> None:
        self.var = var
        self.organisation = organisation
        self._documents = Documents(var / "ledger" / LOG / DOCUMENTS)

    def history(self) -> History:
        """Read the organisation's replica; an empty ledger if there is none yet."""
        found = history_below(self.var, self.organisation)
        if found is not None:
            return found
        with self._ledger():
            pass
        return history_below(self.var, self.organisation) or History(read_policy(self._folder / FILE_NAME).log)

    def record(self, kind: type[Predicate], **fields: Any) -> int:
        """Write an entry, under a head that everybody in this folder cosigns."""
        with self._ledger() as ledger:
            index = ledger.record(kind, by=self.organisation, **fields)
            ledger.checkpoint()
            return index

    def put(self, document: bytes, *, most: int = LARGEST) -> str:
        """Keep a document beside the ledger."""
        return self._documents.put(document, most=most)

    def get(self, digest: str) -> bytes:
        """Return a document."""
        return self._documents.get(digest)

    @property
    def _folder(self) -> Path:
        return ledger_folder(self.var, self.organisation)

    @contextmanager
    def _ledger(self) -> Iterator[RunLedger]:
        identities = self.var / "identity"
        known = {path.name for path in identities.glob("[!_.]*") if path.is_dir()} if identities.is_dir() else set()
        with open_ledger(self.var, sorted(known | {self.organisation})) as (sequencer, replicas, signers):
            admit(sequencer, signers)
            ledger = RunLedger(sequencer, replicas, signers)
            ledger.checkpoint()
            yield ledger


class HubMarket:
    """The market at an organisation's hub. home: with its keys, its replica, and the documents that it has read."""

    def __init__(self, home: OrganisationHome, *, address: str | None = None) -> None:
        self.home = home
        self.organisation = home.organisation
        self._address = address
        self._documents = Documents(home.folder / DOCUMENTS)

    def history(self) -> History:
        """Catch up with the hub's ledger, and read it. A run of this organisation that holds it keeps it up to date."""
        try:
            with self._ledger() as (ledger, _):
                return ledger.history
        except LedgerInUse:
            return self._read(read_while_written(self.home.folder / LEDGER))

    def seconds_since_heard(self) -> dict[str, float]:
        """Return how long ago the hub heard of each organisation, of those that called since it was started."""
        with self._connection() as connection:
            return connection.seconds_since_heard()

    def record(self, kind: type[Predicate], **fields: Any) -> int:
        """Submit an entry, and read it back from the hub; also while a run of this organisation holds its replica."""
        try:
            with self._ledger() as (ledger, _):
                index = ledger.record(kind, **fields)
                ledger.catch_up()
                return index
        except LedgerInUse:
            return self._submit(kind, fields)

    def put(self, document: bytes, *, most: int = LARGEST) -> str:
        """Keep a document here and at the hub."""
        digest = self._documents.put(document, most=most)
        with self._connection() as connection:
            if connection.document_put(document) != digest:
                raise DocumentRefused("the hub keeps another document than it was sent")
        return digest

    def get(self, digest: str) -> bytes:
        """Return a document from here, or fetch it from the hub. Raises DocumentRefused if that shows another."""
        if not self._documents.has(digest):
            with self._connection() as connection:
                document = connection.document_get(digest)
            if digest_of(document) != digest:
                raise DocumentRefused(f"the hub shows another document for {digest[:16]}… than the ledger names")
            self._documents.put(document, most=LARGEST_MODEL)
        return self._documents.get(digest)

    def _submit(self, kind: type[Predicate], fields: dict[str, Any]) -> int:
        """Submit an entry, and wait until the run that holds the replica has taken it on."""
        signer = Signer(self.organisation, self.home.signer())
        origin = origin_of(self.home.credentials().hub_key)
        common = fresh(signer.name, signer.verifier.key_id, origin)
        with self._connection() as connection:
            index = connection.ledger_submit(sign_entry(kind(**common, **fields), [signer]))
        until = time.monotonic() + PATIENCE
        while read_while_written(self.home.folder / LEDGER).size <= index and time.monotonic() < until:
            time.sleep(0.05)
        return index

    def _read(self, view: LedgerView) -> History:
        return fold(view, read_policy(view.folder / FILE_NAME).log, self.organisation)

    @contextmanager
    def _connection(self) -> Iterator[HubConnection]:
        connection = HubConnection(self.home.credentials(), address=self._address, patience=PATIENCE)
        try:
            yield connection
        except ConnectionLost as error:
            raise UserError(f"{error}. The market at a hub needs the hub.") from error
        finally:
            connection.close()

    @contextmanager
    def _ledger(self) -> Iterator[tuple[MemberLedger, HubConnection]]:
        credentials = self.home.credentials()
        with self._connection() as connection:
            ledger = MemberLedger(
                self.home.folder / LEDGER,
                connection,
                self.organisation,
                self.home.signer(),
                hub_key=credentials.hub_key,
                trusted=self.home.trusted(),
            )
            try:
                ledger.enter()
                yield ledger, connection
            finally:
                ledger.close()


def read_while_written(folder: Path, tries: int = 20) -> LedgerView:
    """Open a ledger's files while another process may be moving its journal into tiles. Raises what opening raises."""
    for _ in range(tries - 1):
        try:
            return LedgerView(folder)
        except LedgerDamaged:
            time.sleep(0.05)
    return LedgerView(folder)


def history_below(var: Path, organisation: str) -> History | None:
    """Read an organisation's replica below a working folder; None if it has none or it is empty."""
    folder = ledger_folder(var, organisation)
    if not (folder / FILE_NAME).exists():
        return None
    view = LedgerView(folder)
    return None if view.note is None else fold(view, read_policy(folder / FILE_NAME).log, organisation)
