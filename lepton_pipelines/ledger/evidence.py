"""Evidence that a log misbehaved or a ledger was changed, in a file that a third party can check.

Nothing in it has to be believed: it holds heads that the log signed and the hashes that show what is wrong with them.
What a kind of evidence proves, and what it does not, is what `check` returns.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lepton_pipelines.ledger import canonical
from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.durable_file import write_durably
from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.merkle import (
    Frontier,
    check_consistency,
    check_inclusion,
    leaf_hash,
)
from lepton_pipelines.ledger.note import LOG_SIGNATURE, Note, Verifier
from lepton_pipelines.ledger.tiles import digest


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error
    return text


Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Bytes = Annotated[str, AfterValidator(_base64)]


class _Evidence(BaseModel):
    """What every kind has: the format, the log's key, who found it, when, and what a reader should know first."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["lepton-ledger-evidence/v1"] = "lepton-ledger-evidence/v1"
    log: str
    found_by: str
    time: str
    summary: str


class SplitView(_Evidence):
    """The log signed two heads that cannot both be of one log.

    proof: empty if the sizes are equal. Otherwise it shows that the larger tree begins with `root_of_larger`, another
    root than the smaller head's at the same size.
    """

    kind: Literal["split-view"] = "split-view"
    smaller: str
    larger: str
    root_of_larger: Hash | None = None
    proof: list[Hash] = []


class Shortened(_Evidence):
    """The log was presented with fewer entries than it had signed for."""

    kind: Literal["shortened"] = "shortened"
    seen: str
    presented: str


class ForeignEntries(_Evidence):
    """Entries that came with a head do not lead to it.

    frontier: (height, hash) of the perfect subtrees that the head `seen` is made of; null for the empty log.
    """

    kind: Literal["foreign-entries"] = "foreign-entries"
    seen: str | None
    frontier: list[tuple[int, Hash]]
    entries: list[Bytes]
    presented: str


class ChangedFile(_Evidence):
    """A replica holds an entry that is not the one under the signed head.

    leaf, proof: what the head has at `index`. found: what the file has there.
    """

    kind: Literal["changed-file"] = "changed-file"
    head: str
    index: int = Field(ge=0)
    leaf: Hash
    proof: list[Hash]
    found: Bytes


Evidence = SplitView | Shortened | ForeignEntries | ChangedFile
_READER: TypeAdapter[Evidence] = TypeAdapter(Annotated[Evidence, Field(discriminator="kind")])


@dataclass(frozen=True)
class Finding:
    """What an evidence file proves, and what it does not."""

    proved: str
    not_proved: str


def common(log: Verifier, found_by: str, summary: str) -> dict[str, Any]:
    """Return the fields that every kind of evidence has."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"log": log.vkey(LOG_SIGNATURE), "found_by": found_by, "time": now, "summary": summary}


def save(evidence: Evidence, folder: Path) -> Path:
    """Write an evidence file into `folder`/evidence, named after what it shows; return its path."""
    data = canonical.encode(evidence.model_dump(mode="json", exclude_none=True)) + b"\n"
    stamp = evidence.time.replace(":", "").replace("-", "")
    path = folder / "evidence" / f"{evidence.kind}-{stamp}-{digest(data)[:8]}.json"
    write_durably(path, data)
    return path


def load(path: Path) -> Evidence:
    """Read an evidence file. Raises ProofRefused if it is none."""
    try:
        return _READER.validate_python(_tuples(json.loads(path.read_bytes())))
    except (OSError, ValueError, ValidationError) as error:
        raise ProofRefused(f"{path} is no evidence file: {error}") from error


def check(evidence: Evidence, log: Verifier | None = None) -> Finding:
    """Check an evidence file and say what it proves. Raises ProofRefused if it proves nothing.

    log: the log's key as the reader knows it; without it, the key that the file names.
    """
    named = Verifier.from_vkey(evidence.log, LOG_SIGNATURE)
    if log is not None and (log.name, log.raw) != (named.name, named.raw):
        raise ProofRefused(f"the evidence is about the log {evidence.log}, not about {log.vkey(LOG_SIGNATURE)}")
    match evidence:
        case SplitView():
            return _check_split_view(evidence, named)
        case Shortened():
            return _check_shortened(evidence, named)
        case ForeignEntries():
            return _check_foreign_entries(evidence, named)
        case ChangedFile():
            return _check_changed_file(evidence, named)


def _check_split_view(evidence: SplitView, log: Verifier) -> Finding:
    smaller, larger = _head(evidence.smaller, log), _head(evidence.larger, log)
    if smaller.size == larger.size:
        if evidence.root_of_larger is not None or evidence.proof:
            raise ProofRefused("two heads of one size need no proof between them: the evidence was changed")
        differ = smaller.root != larger.root
    elif smaller.size > larger.size or evidence.root_of_larger is None:
        raise ProofRefused("the evidence names its heads in the wrong order, or lacks the root that shows the split")
    else:
        other = bytes.fromhex(evidence.root_of_larger)
        check_consistency(smaller.size, other, larger.size, larger.root, _hashes(evidence.proof))
        differ = other != smaller.root
    if not differ:
        raise ProofRefused("the two heads agree: this is no evidence of anything")
    return Finding(
        f"{log.name} signed two heads, of {smaller.size} and {larger.size} entries, that cannot be of one log: "
        f"whoever held its key showed different logs to different members",
        "which of the two is the true one, and who held the key",
    )


def _check_shortened(evidence: Shortened, log: Verifier) -> Finding:
    seen, presented = _head(evidence.seen, log), _head(evidence.presented, log)
    if presented.size >= seen.size:
        raise ProofRefused("the presented head is not shorter than the one that was seen: this is no evidence")
    return Finding(
        f"{log.name} signed a head of {seen.size} entries; one of {presented.size} is not its newest",
        f"that the log itself withheld {seen.size - presented.size} entries: whoever presented the old head may have",
    )


def _check_foreign_entries(evidence: ForeignEntries, log: Verifier) -> Finding:
    presented = _head(evidence.presented, log)
    frontier = Frontier()
    for height, each in evidence.frontier:
        frontier.append(bytes.fromhex(each), height)
    if evidence.seen is not None:
        seen = _head(evidence.seen, log)
        if (frontier.size, frontier.root()) != (seen.size, seen.root):
            raise ProofRefused("the frontier in the evidence is not that of the head that was seen")
    elif evidence.frontier:
        raise ProofRefused("the evidence has a frontier but no head that was seen")
    for entry in evidence.entries:
        frontier.append(leaf_hash(base64.b64decode(entry)))
    if (frontier.size, frontier.root()) == (presented.size, presented.root):
        raise ProofRefused("the entries do lead to the head: this is no evidence of anything")
    return Finding(
        f"the {len(evidence.entries)} entries that were sent along do not lead to the head of {presented.size} entries",
        f"that they were sent: that is {evidence.found_by}'s word. If so, who changed them: {log.name}, which signed "
        "the head but not the entries, or someone on the way",
    )


def _check_changed_file(evidence: ChangedFile, log: Verifier) -> Finding:
    head = _head(evidence.head, log)
    leaf = bytes.fromhex(evidence.leaf)
    check_inclusion(evidence.index, head.size, leaf, _hashes(evidence.proof), head.root)
    if leaf_hash(base64.b64decode(evidence.found)) == leaf:
        raise ProofRefused("the entry is the one under the head: this is no evidence of anything")
    return Finding(
        f"entry {evidence.index} in the files of {evidence.found_by} is not the one that {log.name} signed for",
        f"that the file held it: that is {evidence.found_by}'s word; nor who changed it, or whether the disk did",
    )


def split_view(
    log: Verifier, found_by: str, heads: Sequence[Note], proof: tuple[bytes, Sequence[bytes]] | None
) -> SplitView:
    """Make evidence of two heads that disagree.

    proof: what the larger tree has at the smaller size, and the consistency proof of that; None if sizes are equal.
    """
    smaller, larger = sorted(heads, key=lambda note: Checkpoint.parse(note.text).size)
    sizes = [Checkpoint.parse(note.text).size for note in (smaller, larger)]
    return SplitView(
        **common(log, found_by, f"two heads of {sizes[0]} and {sizes[1]} entries, both signed by {log.name}, disagree"),
        smaller=str(smaller),
        larger=str(larger),
        root_of_larger=None if proof is None else proof[0].hex(),
        proof=[] if proof is None else [each.hex() for each in proof[1]],
    )


def _head(text: str, log: Verifier) -> Checkpoint:
    return open_head(Note.parse(text), log)


def _hashes(proof: list[str]) -> list[bytes]:
    return [bytes.fromhex(each) for each in proof]


def _tuples(value: Any) -> Any:
    """JSON has lists where the models have pairs."""
    if isinstance(value, dict) and isinstance(value.get("frontier"), list):
        return {**value, "frontier": [tuple(each) if isinstance(each, list) else each for each in value["frontier"]]}
    return value
