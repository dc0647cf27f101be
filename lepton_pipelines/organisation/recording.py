"""What a run leaves in the ledger: opened, joined, every tree, finished, scored, published, promoted.

In one process the log, all members' replicas and all keys are at hand, so the whole run is said in one go when it has
ended, and each member's replica checks and cosigns it. `var/ledger/ORGANISATION` then proves the run by itself
(`lepton ledger verify`). Said twice, after a retry, it stands there once.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_pipelines.boosting.model_file import read_model
from lepton_pipelines.boosting.tree import Tree
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.private_files import make_private_folder, read_private, write_private
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.ledger import canonical, entries
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.commitment import Opening, dataset_document
from lepton_pipelines.ledger.documents import Documents
from lepton_pipelines.ledger.errors import LedgerInUse
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.predicate import digest_of, disclosed
from lepton_pipelines.ledger.proof import Proof
from lepton_pipelines.ledger.replica import Replica
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.sequencer import Sequencer
from lepton_pipelines.market.guard import allowed
from lepton_pipelines.market.terms import Use
from lepton_pipelines.organisation.algorithms import uses_engine
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.outcome import code_version
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.gates import GateResult
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.registry.publishing import Published
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.training import Training

OPENING_FILE = "dataset-opening.json"
MANIFEST_FILE = "manifest.json"
PROOF_FILE = "ledger/model-published.tlog-proof"
DOCUMENTS = "documents"
LOG = "_log"  # no organisation is called so
WAIT_SECONDS = 30.0  # another run in the same folder may be writing


@dataclass(frozen=True)
class Recorded:
    """Where a run stands in the ledger.

    folder: the publisher's replica. index: of the entry that says that the model was published. proof: that it is in
    the ledger, under a head that all members cosigned.
    """

    folder: Path
    index: int
    proof: Proof


@dataclass(frozen=True)
class Said:
    """What there is to say about a run that has ended. parts: of every member; the publisher's first."""

    pipeline: Pipeline
    parts: Sequence[PartReport]
    model: bytes
    results: Sequence[GateResult]
    published: Published
    decision: Decision

    @property
    def run(self) -> str:
        """The run's id."""
        return self.parts[0].run_id


def record_run(said: Said, folder: RunFolder) -> Recorded:
    """Write a run that has ended into the ledger below the working folder, and have every member cosign it.

    Raises UserError if the ledger's files were changed or contradict each other, naming the file and the evidence.
    """
    members = sorted(said.pipeline.members)
    with open_ledger(folder.var, members) as (sequencer, replicas, signers):
        admit(sequencer, signers)
        ledger = RunLedger(sequencer, replicas, signers)
        known = sequencer.history.runs.by_id.get(said.run)
        if known is None or known.state in ("open", "suspended"):
            _say_training(ledger, said, folder)
        if (said.published.registered_model, int(said.published.version), said.run) not in _published(sequencer):
            _say_model(ledger, said)
        note = ledger.checkpoint()
        model = (said.published.registered_model, int(said.published.version))
        index = sequencer.history.runs.versions[model].index
        hashes = sequencer.store.inclusion_proof(index, sequencer.size)
        proof = Proof(sequencer.store.entry(index), index, tuple(hashes), note)
        return Recorded(ledger_folder(folder.var, said.pipeline.publisher), index, proof)


def attach_proof(recorded: Recorded, published: Published, tracking: Tracking) -> None:
    """Put the proof beside the model in MLflow: who pulls the model can verify it without the ledger."""
    client = tracking.client()
    client.log_text(published.mlflow_run_id, str(recorded.proof), PROOF_FILE)
    client.set_tag(published.mlflow_run_id, "lepton.ledger", Checkpoint.parse(recorded.proof.note.text).origin)
    client.set_tag(published.mlflow_run_id, "lepton.ledger_entry", str(recorded.index))


def ledger_folder(var: Path, organisation: str) -> Path:
    """Return where an organisation keeps its replica."""
    return var / "ledger" / organisation


def manifest_of(pipeline: Pipeline, run: str) -> bytes:
    """Write down what members agreed on, in RFC 8785's form; its SHA-256 is the manifest digest in the ledger."""
    return canonical.encode(
        {
            "format": "lepton-manifest/in-process/v1",
            "run": run,
            "pipeline": pipeline.name,
            "members": sorted(pipeline.members),
            "spec": pipeline.digest().hex(),
            "contract": pipeline.read_contract().agreement().hex(),
            "code_version": code_version(),
        }
    )


def opening_of(organisation: str, contract: Contract, digest: str, rows: int, folder: Path) -> Opening:
    """Commit to an organisation's rows. The opening is kept in its own folder of the run, and is the same next time.

    digest: of the rows, hex. rows: how many, exactly.
    """
    path = folder / OPENING_FILE
    document = dataset_document(
        f"{organisation}/{contract.id}", {"rows": digest}, rows=rows, contract=contract.agreement().hex()
    )
    if path.exists() and (before := Opening.load(path)).document == document:
        return before
    opening = Opening(document)
    opening.save(path)
    return opening


def use_of(pipeline: Pipeline, run: str) -> Use:
    """Say what a run is, as terms of data products look at it."""
    training = pipeline.training
    return Use(
        run=run,
        members=tuple(sorted(pipeline.members)),
        publisher=pipeline.publisher,
        purpose=pipeline.purpose or "",
        algorithm=training.algorithm,
        depth=training.max_depth if isinstance(training, Training) else 1,  # one that grows no trees has no depth
        rounds=training.rounds,
    )


def model_chain(model: bytes, salt: bytes = bytes(32)) -> list[str]:
    """Return, for every boosting round, the digest of the model so far, hex.

    salt: 32 zero bytes, or the one that the members of a run at a hub share. The first digest is SHA-256 of it and the
    digests of the round's trees, each next one of the digest before and those of its round; so every one vouches for
    all trees up to it, and anyone with the model file (and the salt) can work it out.
    """
    read = read_model(model)
    so_far, chain = salt, []
    for start, end in zip(read.rounds, read.rounds[1:], strict=False):
        so_far = hashlib.sha256(so_far + b"".join(map(tree_digest, read.trees[start:end]))).digest()
        chain.append(so_far.hex())
    return chain


def tree_digest(tree: Tree) -> bytes:
    """Return SHA-256 over a tree's arrays as XGBoost's model file has them, little-endian, each behind its length.

    In this order: left_children, right_children, split_indices (int32), split_conditions (float32), default_left
    (uint8); then for each categorical node, ascending, its number and its categories (int32).
    """
    arrays = [
        tree.left.astype("<i4"),
        tree.right.astype("<i4"),
        tree.feature.astype("<i4"),
        tree.threshold.astype("<f4"),
        tree.default_left.astype(np.uint8),
    ]
    for node in sorted(tree.categories):
        arrays.append(np.concatenate(([node], tree.categories[node])).astype("<i4"))
    data = [array.tobytes() for array in arrays]
    return hashlib.sha256(b"".join(len(each).to_bytes(8, "little") + each for each in data)).digest()


def _say_training(ledger: RunLedger, said: Said, folder: RunFolder) -> None:
    pipeline, run, speaker = said.pipeline, said.run, said.pipeline.publisher
    document = manifest_of(pipeline, run)
    folder.write(MANIFEST_FILE, document)
    manifest = digest_of(document)
    known = ledger.history.runs.by_id.get(run)
    if known is None:
        ledger.record(
            entries.RunOpened,
            by=speaker,
            run=run,
            pipeline=pipeline.name,
            members=sorted(pipeline.members),
            manifest=manifest,
            spec=pipeline.digest().hex(),
            code_version=code_version(),
        )
    elif known.state == "suspended":
        ledger.record(entries.RunResumed, by=speaker, run=run, manifest=manifest, trees=known.trees)
    for part in sorted(said.parts, key=lambda part: part.organisation):
        _say_joined(ledger, said, part, manifest, folder)
    _say_grants(ledger, said, folder.var)
    # Another algorithm's model is one piece: the ledger has its digest as that of one tree.
    chain = model_chain(said.model) if uses_engine(pipeline) else [hashlib.sha256(said.model).hexdigest()]
    for tree, digest in enumerate(chain, 1):
        ledger.record(entries.TreeFinished, by=speaker, run=run, tree=tree, model=digest, check="no hub")
    model = digest_of(said.model)
    ledger.record(entries.RunFinished, by=speaker, run=run, manifest=manifest, trees=len(chain), model=model)
    figures = said.parts[0].evaluated.figures
    ledger.record(
        entries.Evaluation,
        by=speaker,
        run=run,
        model=model,
        rows=disclosed(figures.rows),
        metrics={entry_name(metric): float(score) for metric, score in figures.scores.items()},
        gates={entry_name(gate.name): gate.passed for gate in said.results},
    )


def _say_joined(ledger: RunLedger, said: Said, part: PartReport, manifest: str, folder: RunFolder) -> None:
    """Let a member say that it took part, with a commitment to its rows; the opening stays in its own folder."""
    rows = sum(part.ingest.rows.values())
    own = folder.of(part.organisation).path
    opening = opening_of(part.organisation, said.pipeline.read_contract(), part.validated.digest, rows, own)
    shown = next((one.rows for one in part.evaluated.organisations if one.name == part.organisation), None)
    ledger.record(
        entries.RunJoined,
        by=part.organisation,
        run=said.run,
        manifest=manifest,
        dataset=opening.commitment,
        rows=None if shown is None else disclosed(rows),
    )


def _say_grants(ledger: RunLedger, said: Said, var: Path) -> None:
    """Let every owner of a data product say under which grant the run used it."""
    documents = Documents(var / "ledger" / LOG / DOCUMENTS)
    for name, organisation in said.pipeline.read_organisations().items():
        if organisation.product is None:
            continue
        product = f"{name}/{organisation.product}"
        grant = allowed(ledger.history, documents.get, product, use_of(said.pipeline, said.run))
        if grant is not None:
            request = ledger.history.grants.by_id[product, grant].asked.request
            ledger.record(entries.GrantUsed, by=name, grant=grant, product=product, request=request, run=said.run)


def _say_model(ledger: RunLedger, said: Said) -> None:
    version = {
        "model": said.published.registered_model,
        "version": int(said.published.version),
        "digest": said.published.digest,
    }
    speaker = said.pipeline.publisher
    ledger.record(entries.ModelPublished, by=speaker, run=said.run, **version)
    alias = "champion" if said.decision.outcome == "champion" else "challenger"
    ledger.record(entries.ModelPromoted, by=speaker, alias=alias, **version)


def _published(sequencer: Sequencer) -> set[tuple[str, int, str]]:
    versions = sequencer.history.runs.versions
    return {(model, number, version.published.run) for (model, number), version in versions.items()}


def admit(sequencer: Sequencer, signers: Mapping[str, Signer]) -> None:
    """Admit those to a ledger whose keys are at hand, unless they are members."""
    for name, signer in signers.items():
        if name not in sequencer.history.members.by_name:
            sequencer.admit(signer)


@contextmanager
def open_ledger(var: Path, members: Sequence[str]) -> Iterator[tuple[Sequencer, dict[str, Replica], dict[str, Signer]]]:
    """Open log, replicas and keys of everybody in this process, and close them with all that was said published."""
    log, signers = _keys(var / "identity", members)
    with ExitStack() as stack:
        sequencer = _patiently(lambda: Sequencer(ledger_folder(var, LOG), log))
        stack.callback(sequencer.close)
        replicas = {}
        for name in members:
            replicas[name] = Replica(ledger_folder(var, name), signers[name], log.verifier)
            stack.callback(replicas[name].close)
        yield sequencer, replicas, signers


def _patiently(open_log: Callable[[], Sequencer]) -> Sequencer:
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return open_log()
        except LedgerInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _keys(folder: Path, members: Sequence[str]) -> tuple[Signer, dict[str, Signer]]:
    """Load the log's and the members' keys, or draw them; one run at a time, lest two draw different ones."""
    file = os.open(make_private_folder(folder), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        signers = {name: Signer(name, _organisation_key(folder / name, name)) for name in members}
        return _log_signer(folder / LOG), signers
    finally:
        os.close(file)


def _organisation_key(home: Path, name: str) -> SigningKey:
    if not (home / "signing.key").exists():
        return OrganisationHome.create(home, name).signer()
    return OrganisationHome(home).signer()


def _log_signer(home: Path) -> Signer:
    """Load the log's key, or draw it. The log's origin follows from the key, so that no two logs share one."""
    path = make_private_folder(home) / "log.key"
    if not path.exists():
        write_private(path, SigningKey.generate().private.private_bytes_raw())
    key = SigningKey.from_seed(read_private(path, what="the log's key"))
    return Signer(f"lepton.local/{digest_of(key.public)[:8]}", key)


def entry_name(text: str) -> str:
    """Write the name of a metric or a gate as the ledger takes it."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:127] or "unnamed"
