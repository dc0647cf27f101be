"""What one organisation writes into the hub's ledger in a run, and what it holds the others' entries against.

The publisher says what belongs to all (opened, trees, finished); everybody says its own part, and what went wrong.
A tree's entry is cosigned while the next tree is grown: a run is never more than one tree ahead of what all its members
have seen. The hub reads the ledger, so no row count, no score and no word of an error's text goes in: digests do.
"""

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lepton_pipelines.boosting.model_file import read_model
from lepton_pipelines.federation.grpc_member import HubSums, RunSuspended
from lepton_pipelines.federation.hub import ABORTED
from lepton_pipelines.federation.hub_connection import Closed, ConnectionLost, HubConnection
from lepton_pipelines.federation.stages import StagedSums
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.private_files import read_private, write_private
from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.commitment import Opening
from lepton_pipelines.ledger.errors import EntryRefused, WitnessSilent
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.member_ledger import MemberLedger
from lepton_pipelines.ledger.predicate import Predicate, digest_of
from lepton_pipelines.ledger.runs import Run
from lepton_pipelines.ledger.statement import Entry, read_entry
from lepton_pipelines.organisation.folder import SALT_FILE
from lepton_pipelines.organisation.outcome import code_version
from lepton_pipelines.organisation.recording import model_chain, tree_digest
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.registry.publishing import Published
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.sums import SumAborted

# Who decided and why stands with the version in the registry: a person's words do not belong in a log for ever.
DECIDED_BY_A_PERSON = "decided by a person; the reason stands with the version in the registry"
LEDGER = "ledger"  # in the organisation's home
SHARE_FILE = "ledger.share"  # beside the salt
_LAST_WORD_SECONDS = 10.0
_OTHERS_SECONDS = 30.0  # a portal or a command of this organisation may be reading the ledger
_LOOK_SECONDS = 0.5
_LAST_WORDS = 4  # every other member may say something in between
_log = logging.getLogger("lepton.ledger")
_lock = threading.Lock()
_records: dict[tuple[str, str], "HubRecord"] = {}


def record_of(run: str, organisation: str) -> "HubRecord | None":
    """Return the record that an organisation keeps of a run in this process; None if it keeps none."""
    with _lock:
        return _records.get((run, organisation))


@contextmanager
def recorded_run(
    sums: HubSums | StagedSums, home: OrganisationHome, pipeline: Pipeline, address: str
) -> Iterator["HubRecord"]:
    """Keep a record of a run at a hub for the length of a block, where `record_of` finds it.

    An error that ends the block is told to the ledger by its kind: who was away, who stopped.
    """
    connection = HubConnection(home.credentials(), address=address, patience=float(sums.manifest.grace_seconds))
    try:
        record = HubRecord(sums, connection, home, pipeline)
        key = (sums.manifest.root, home.organisation)
        with _lock:
            _records[key] = record
        try:
            yield record
        except SumAborted as error:
            record.stopped(error)
            if record.trouble is not None:
                raise record.trouble from error
            raise
        except Exception as error:
            record.stopped(error)
            raise
        finally:
            with _lock:
                del _records[key]
            record.close()
    finally:
        connection.close()


def record_published(home: OrganisationHome, address: str, run: str, published: Published, alias: str) -> Path:
    """Say that the model of a run that has ended was registered, and which alias it got; once is enough.

    Returns the folder of the organisation's replica, which proves it. Raises UserError if the ledger refuses it.
    """
    model, version = published.registered_model, int(published.version)
    with _ledger_of(home, address) as ledger:
        ledger.enter()
        known = ledger.history.runs.versions.get((model, version))
        if known is None or known.published.run != run:
            ledger.record(entries.ModelPublished, model=model, version=version, run=run, digest=published.digest)
        if ledger.history.runs.aliases.get((model, alias)) != version:
            ledger.record(entries.ModelPromoted, model=model, version=version, alias=alias, digest=published.digest)
        ledger.catch_up()
        return ledger.replica.folder


def record_decision(home: OrganisationHome, decision: Decision) -> int | None:
    """Say in the hub's ledger that a person made another version champion; once is enough.

    Returns the entry's index; None if nothing moved, or if the ledger does not know the version.
    Raises UserError if the hub cannot be reached, or if the ledger refuses it.
    """
    model, version = decision.model, int(decision.champion or 0)
    with _ledger_of(home, None) as ledger:
        ledger.enter()
        known = ledger.history.runs.versions.get((model, version))
        before = ledger.history.runs.aliases.get((model, "champion"))
        if known is None or before == version:
            return None
        told = {"model": model, "version": version, "alias": "champion", "digest": known.published.digest}
        if before is not None and before > version:
            index = ledger.record(entries.ModelRolledBack, **told, before=before, reason=DECIDED_BY_A_PERSON)
        else:
            index = ledger.record(entries.ModelPromoted, **told)
        ledger.catch_up()
        return index


@contextmanager
def _ledger_of(home: OrganisationHome, address: str | None) -> Iterator[MemberLedger]:
    """Open an organisation's replica of its hub's ledger, outside of a run."""
    credentials = home.credentials()
    connection = HubConnection(credentials, address=address, patience=_LAST_WORD_SECONDS)
    try:
        ledger = MemberLedger(
            home.folder / LEDGER,
            connection,
            home.organisation,
            home.signer(),
            hub_key=credentials.hub_key,
            trusted=home.trusted(),
            patience=_OTHERS_SECONDS,
        )
        try:
            yield ledger
        finally:
            ledger.close()
    finally:
        connection.close()


class HubRecord:
    """One organisation's voice in, and check of, the ledger entries of one run.

    Attributes: trouble is what made this organisation stop cosigning, and end the run for all; None while nothing did.
    """

    def __init__(
        self, sums: HubSums | StagedSums, connection: HubConnection, home: OrganisationHome, pipeline: Pipeline
    ) -> None:
        self.run, self.name, self.pipeline = sums.manifest.run, home.organisation, pipeline
        self.home = home
        self._sums = sums
        self._members = sorted(sums.manifest.names)
        self.manifest = sums.manifest.digest().hex()
        self._mine: dict[int, str] = {}
        self._claimed: dict[int, str] = {}
        self._salt = b""
        self._so_far: bytes | None = None
        self._last_sum = 0
        self._under_way: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ledger of {self.name}")
        self._closing = threading.Event()
        self._given_up = threading.Event()  # nobody here waits for another member's word any more
        self.trouble: UserError | None = None
        self._cosigning = threading.Thread(target=self._cosign, name=f"cosigning of {self.name}", daemon=True)
        self.ledger = MemberLedger(
            home.folder / LEDGER,
            connection,
            self.name,
            home.signer(),
            hub_key=home.credentials().hub_key,
            trusted=home.trusted(),
            own_check=self._check,
            patience=_OTHERS_SECONDS,
        )
        for leaf in self.ledger.replica.store.entries():
            self._note(read_entry(leaf).predicate)

    @property
    def speaks(self) -> bool:
        """Whether this organisation says what belongs to all members."""
        publisher = self.pipeline.publisher
        return self.name == (publisher if publisher in self._members else self._members[0])

    def begin(self, opening: Opening) -> None:
        """Open the run, or go on with it, and join it; return when every member has, under a cosigned head.

        opening: of the commitment to this organisation's rows; of the first attempt, if this is not the first.
        The members first add up a salt for the digests of trees, which the hub does not see.
        Raises RunSuspended if a member does not cosign in time, LedgerForked if the hub shows two ledgers.
        """
        self._salt = self._agree_on_salt()
        self._patiently(self._begin, opening)

    def tree(self, number: int, model: bytes) -> None:
        """Say that a tree is finished, or hold what the publisher says of it against the model that stands here.

        number: of this run's rounds, from 1. model: the model file after it. Returns before the others have cosigned,
        but not before they have cosigned the tree before. Raises as `begin` does, and EntryRefused if the ledger has
        another model.
        """
        self._wait()
        sums = self._sums.position
        sent = self._sums.sent(self._last_sum, sums)
        self._last_sum = sums
        self._under_way = self._thread.submit(self._patiently, self._tree, number, model, sent)

    def finish(self, model: bytes) -> None:
        """Say that the run ended with this model; return when every member has cosigned that.

        model: that was trained; of a watch, the champion that the rows were compared for.
        """
        self._wait()
        self._patiently(self._finish, model)

    def stopped(self, error: Exception) -> None:
        """Tell the ledger that the run does not go on, and nothing of the error but its kind. Never raises a second."""
        kind: type[Predicate]
        if isinstance(error, RunSuspended):
            kind, reason = entries.RunSuspended, "a member or the hub was away for longer than the grace time"
        elif isinstance(error, SumAborted):
            kind, reason = entries.RunAborted, "a member stopped, or a sum could not be trusted"
        else:
            kind, reason = entries.RunAborted, f"{self.name} stopped ({type(error).__name__})"
        self._end(kind, reason)

    def dropped(self) -> None:
        """Tell the ledger that a watch ended before anything was compared."""
        self._end(entries.RunAborted, "the rows of a member have changed too little to be compared")

    def _end(self, kind: type[Predicate], reason: str) -> None:
        self._given_up.set()
        self._thread.shutdown(wait=True)
        try:
            for _ in range(_LAST_WORDS):
                if self._said_end(kind, reason):
                    return
        except (UserError, ConnectionLost, Closed) as second:
            _log.warning("run %s: its end could not be told to the ledger: %s", self.run, second)

    def _said_end(self, kind: type[Predicate], reason: str) -> bool:
        """Say how the run ended, unless another member has; False if the others said something in between."""
        self.ledger.catch_up()
        run = self._run(self.ledger.history)
        if run is None or run.state != "open":
            return True
        try:
            self.ledger.record(kind, run=self.run, manifest=self.manifest, trees=run.trees, reason=reason)
        except UserError as error:
            _log.info("run %s: %s", self.run, error)
            return False
        self.ledger.catch_up()
        return True

    def close(self) -> None:
        """Wait for what is under way, and give the replica back."""
        self._closing.set()
        self._given_up.set()
        self._thread.shutdown(wait=True)
        if self._cosigning.ident is not None:
            self._cosigning.join()
        self.ledger.close()

    def _agree_on_salt(self) -> bytes:
        """Add up everybody's random numbers: the members know the total, the hub does not. Kept with the run.

        With it, digests of trees tell the hub nothing, not even whether it has guessed a tree.
        """
        folder = self.home.run_folder(self._sums.manifest.root)  # also when members changed: the total is one of then
        share = folder / SHARE_FILE
        if not share.exists():
            write_private(share, secrets.token_bytes(32))
        mine = np.frombuffer(read_private(share, what="this run's part of the ledger's salt"), "<u4").astype(np.int64)
        total = self._sums.sum("ledger/salt", mine, bound=1 << 42)
        salt = hashlib.sha256(total.astype("<i8").tobytes()).digest()
        write_private(folder / SALT_FILE, salt, replace=True)
        return salt

    # ---- what is said ----

    def _begin(self, opening: Opening) -> None:
        self.ledger.enter()
        self._cosigning.start()
        self._checkpoint(lambda history: set(self._members) <= history.members.by_name.keys())
        if self.speaks and self._run(self.ledger.history) is None:
            self._say(
                entries.RunOpened,
                pipeline=self.pipeline.name,
                members=self._members,
                manifest=self.manifest,
                spec=self.pipeline.digest().hex(),
                code_version=code_version(),
            )
        self._checkpoint(lambda history: self._run(history) is not None)
        run = self._run(self.ledger.history)
        if run is not None and run.state == "suspended" and self.speaks:
            self._say(entries.RunResumed, manifest=self.manifest, trees=run.trees)
        if run is not None and self.name not in run.joined:
            self._say(entries.RunJoined, manifest=self.manifest, dataset=opening.commitment)
        self._checkpoint(self._all_joined)

    def _tree(self, number: int, model: bytes, sent: dict[str, str]) -> None:
        digest = self._mine[number] = self._model_so_far(model)
        claimed = self._claimed.get(number)
        if claimed is not None:
            self._compare(number, claimed)
        elif self.speaks:
            self._say(entries.TreeFinished, tree=number, model=digest, sent=sent, check="passed")
        self._checkpoint(lambda history: self._trees(history) >= number)

    def _finish(self, model: bytes) -> None:
        run = self._run(self.ledger.history)
        if self.speaks and run is not None and run.state == "open":
            digest = digest_of(model)
            trains = self._sums.manifest.kind != "watch"
            if trains and not run.trees:  # an algorithm without rounds of trees: its model is one piece
                self._say(entries.TreeFinished, tree=1, model=digest, check="passed")
            trees = max(run.trees, int(trains))
            self._say(entries.RunFinished, manifest=self.manifest, trees=trees, model=digest)
        self._checkpoint(lambda history: self._state(history) == "finished")
        run = self._run(self.ledger.history)
        if run is not None and run.model != digest_of(model):
            raise EntryRefused(f"run {self.run} ended in the ledger with another model than the one that stands here")

    def _say(self, kind: type[Predicate], **fields: object) -> None:
        """Say something of this run, and read it back: what follows rests on it."""
        self.ledger.record(kind, run=self.run, **fields)
        self.ledger.catch_up()

    def _checkpoint(self, until: Callable[[History], bool]) -> None:
        self.ledger.checkpoint(
            self._members,
            until,
            timeout=float(self._sums.manifest.grace_seconds),
            stopped=lambda: self._given_up.is_set() or self._sums.ended or self._aborted() is not None,
        )

    def _patiently(self, work: Callable[..., None], *arguments: object) -> None:
        """Do something that waits for others; if they are away, the run stands still and can be resumed."""
        try:
            work(*arguments)
        except (WitnessSilent, ConnectionLost) as error:
            reason = self._aborted()
            if reason is not None:
                raise SumAborted(reason) from error
            raise RunSuspended(f"{self.name}: {error}") from error

    def _aborted(self) -> str | None:
        """Return why the run was aborted; None if it was not, or if the hub cannot be asked."""
        try:
            status = self._sums.status()
        except (UserError, ConnectionLost, Closed):
            return None
        return status.reason or f"run {self.run} was aborted" if status.status == ABORTED else None

    def _cosign(self) -> None:
        """Cosign what comes while this member computes: others may have to say something, and wait for it."""
        while not self._closing.is_set():
            try:
                self.ledger.catch_up(wait=_LOOK_SECONDS)
            except (ConnectionLost, Closed):
                return  # what waits for the hub says so
            except UserError as error:
                self.trouble = error
                # the others may wait for this member's cosignature, and this member for their next sum
                if not self._sums.ended:
                    self._sums.abort(f"it refuses what the ledger says ({type(error).__name__})")
                return

    def _wait(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    # ---- what is checked ----

    def _check(self, index: int, entry: Entry) -> None:
        """Refuse what misstates this run: another manifest or spec, another model than the one that stands here."""
        predicate = entry.predicate
        if isinstance(predicate, entries.RunOpened) and predicate.run == self.run:
            if predicate.manifest != self.manifest or predicate.spec != self.pipeline.digest().hex():
                raise EntryRefused(f"run {self.run} is opened with another manifest or spec than {self.name} signed")
            if predicate.members != self._members:
                raise EntryRefused(f"run {self.run} is opened with other members than its manifest has")
        self._note(predicate)
        if isinstance(predicate, entries.TreeFinished) and predicate.run == self.run:
            self._compare(predicate.tree, predicate.model)

    def _note(self, predicate: Predicate) -> None:
        if isinstance(predicate, entries.TreeFinished) and predicate.run == self.run:
            self._claimed[predicate.tree] = predicate.model

    def _compare(self, tree: int, claimed: str) -> None:
        mine = self._mine.get(tree)
        if mine is not None and mine != claimed:
            raise EntryRefused(
                f"tree {tree} of run {self.run}: the ledger has the model {claimed[:16]}…, {self.name} has "
                f"{mine[:16]}…. The run stops: members do not train the same model"
            )

    def _model_so_far(self, model: bytes) -> str:
        """Return the digest of the model after its last round; see docs/ledger.md."""
        if self._so_far is None:
            self._so_far = bytes.fromhex(model_chain(model, self._salt)[-1])
        else:
            read = read_model(model)
            trees = read.trees[read.rounds[-2] : read.rounds[-1]]
            self._so_far = hashlib.sha256(self._so_far + b"".join(map(tree_digest, trees))).digest()
        return self._so_far.hex()

    def _run(self, history: History) -> Run | None:
        return history.runs.by_id.get(self.run)

    def _trees(self, history: History) -> int:
        run = self._run(history)
        return 0 if run is None else run.trees

    def _state(self, history: History) -> str:
        run = self._run(history)
        return "" if run is None else run.state

    def _all_joined(self, history: History) -> bool:
        run = self._run(history)
        return run is not None and run.state == "open" and set(run.joined) == set(self._members)
