"""in-toto statements (version 1) around our predicates: what the payload of every envelope is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lepton_pipelines.ledger import canonical
from lepton_pipelines.ledger.entries import KINDS
from lepton_pipelines.ledger.envelope import Envelope, seal
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.predicate import TYPE_PREFIX, Predicate

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True)
class Entry:
    """An entry as it was read from a leaf: the envelope, and the predicate that it holds."""

    envelope: Envelope
    predicate: Predicate

    @property
    def kind(self) -> str:
        """The kind of entry, as in `run-opened`."""
        return self.predicate.KIND


def encode_statement(predicate: Predicate) -> bytes:
    """Write the statement that carries a predicate, in RFC 8785's form."""
    return canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": _subject(predicate),
            "predicateType": f"{TYPE_PREFIX}{predicate.KIND}:v1",
            "predicate": predicate.model_dump(mode="json", exclude_none=True),
        }
    )


def decode_statement(payload: bytes) -> Predicate:
    """Read a statement. Raises EntryRefused, saying what is wrong with it, if it is not one of our kinds."""
    value = canonical.decode(payload, "the statement")
    if not isinstance(value, dict) or value.keys() != {"_type", "subject", "predicateType", "predicate"}:
        raise EntryRefused("the payload is no in-toto statement with _type, subject, predicateType and predicate")
    if value["_type"] != STATEMENT_TYPE:
        raise EntryRefused(f"the payload is of type {str(value['_type'])[:80]!r}, expected {STATEMENT_TYPE}")
    kind = KINDS.get(str(value["predicateType"]).removeprefix(TYPE_PREFIX).removesuffix(":v1"))
    if kind is None or value["predicateType"] != f"{TYPE_PREFIX}{kind.KIND}:v1":
        raise EntryRefused(f"the ledger knows no entries of type {str(value['predicateType'])[:80]!r}")
    predicate = _validated(kind, value["predicate"])
    if value["subject"] != _subject(predicate):
        raise EntryRefused(f"the statement's subject is not what its {kind.KIND} predicate is about")
    return predicate


def sign_entry(predicate: Predicate, signers: Sequence[Signer]) -> bytes:
    """Write and sign an entry; return the leaf."""
    return seal(encode_statement(predicate), signers).pack()


def read_entry(leaf: bytes) -> Entry:
    """Read a leaf. Raises EntryRefused if envelope or statement are malformed. Signatures are `History`'s to check."""
    envelope = Envelope.unpack(leaf)
    return Entry(envelope, decode_statement(envelope.payload))


def _validated(kind: type[Predicate], value: Any) -> Predicate:
    try:
        predicate = kind.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))} {each['msg']}" for each in error.errors()[:5])
        raise EntryRefused(f"the {kind.KIND} entry is malformed: {problems}") from error
    return predicate


def _subject(predicate: Predicate) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in predicate.subjects()]
