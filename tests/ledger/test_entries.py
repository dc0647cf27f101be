"""What an entry may say: closed, strict, no persons, no small counts; and commitments that open later."""

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.commitment import Opening, dataset_document
from lepton_pipelines.ledger.entries import KINDS
from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.predicate import DISCLOSURE_LIMIT, PublicKey, disclosed, fresh
from lepton_pipelines.ledger.statement import read_entry, sign_entry

NORTH = Signer.generate("north")
COMMON = fresh("north", NORTH.verifier.key_id, "lepton.test/ledger")
A, B, C = "a" * 64, "b" * 64, "c" * 64
KEY = PublicKey.of(NORTH.verifier.raw)
TERMS = {
    "product": "north/patients",
    "version": 1,
    "contract": A,
    "terms": B,
    "rows": 214,
    "commitment": f"hmac-sha256:{C}",
}
GRANT = {"grant": "g-1", "product": "north/patients", "request": A}
STATE = {"run": "r-1", "manifest": A, "trees": 3}
VERSION = {"model": "breast-cancer", "version": 1, "digest": A}
FIELDS = {
    "member-admitted": {"organisation": "north", "key": KEY},
    "key-rotated": {"key": KEY},
    "key-revoked": {"organisation": "north", "key": NORTH.verifier.key_id, "reason": "laptop lost"},
    "product-published": TERMS,
    "product-changed": TERMS | {"version": 2, "shareable": True},
    "product-withdrawn": {"product": "north/patients", "contract": A, "reason": "superseded"},
    "grant-asked": GRANT | {"contract": B, "purpose": "diagnosis of breast cancer"},
    "grant-given": GRANT | {
        "contract": B, "to": "valley", "purpose": "diagnosis", "until": "2027-01-01T00:00:00Z", "runs": 5
    },
    "grant-refused": GRANT | {"reason": "purpose is not in the terms (clause 2)"},
    "grant-revoked": GRANT | {"reason": "contract ended"},
    "grant-used": GRANT | {"run": "r-1"},
    "run-opened": {
        "run": "r-1", "pipeline": "demo", "members": ["north", "valley"],
        "manifest": A, "spec": B, "code_version": "0.1.0",
    },
    "run-joined": {"run": "r-1", "manifest": A, "dataset": f"hmac-sha256:{C}", "rows": 214},
    "run-suspended": STATE | {"missing": ["valley"], "reason": "no answer since 2026-11-22 03:00"},
    "run-resumed": STATE,
    "run-aborted": STATE | {"reason": "digests of the edges differ"},
    "run-finished": STATE | {"model": B},
    "tree-finished": {"run": "r-1", "tree": 1, "model": A, "sent": {"north": B}, "check": "passed"},
    "model-published": VERSION | {"run": "r-1"},
    "model-promoted": VERSION | {"alias": "champion"},
    "model-rolled-back": VERSION | {"alias": "champion", "before": 2, "reason": "calibration drifted"},
    "model-offered": {"offer": "north/breast-cancer", "version": 1, "digest": A, "card": B},
    "model-withdrawn": {"offer": "north/breast-cancer", "version": 1, "digest": A, "reason": "superseded"},
    "algorithm-offered": {"offer": "north/averaging", "version": "1.0.post1", "wheel": A, "code": B, "card": C},
    "algorithm-withdrawn": {"offer": "north/averaging", "version": "1.0", "wheel": A, "reason": "superseded"},
    "compute-offered": {
        "offer": "north/evenings", "version": 1, "cores": 8, "memory": 1 << 35, "accelerators": 1, "accelerator": "A2",
        "members": ["valley"], "hours": ["mon-fri 18:00-06:00"], "quota": 100, "until": "2999-01-01T00:00:00Z",
        "terms": A,
    },
    "compute-withdrawn": {"offer": "north/evenings", "terms": A, "reason": "moved"},
    "compute-reserved": {
        "reservation": "c-1", "offer": "north/evenings", "terms": A, "work": "tuning", "cores": 2, "memory": 1 << 30,
        "start": "2026-11-25T18:00:00Z", "end": "2026-11-25T20:00:00Z",
    },
    "compute-released": {"reservation": "c-1", "reason": "done early"},
    "work-asked": {"job": "j-1", "reservation": "c-1", "work": "tuning", "document": A},
    "work-ended": {"job": "j-1", "outcome": "done", "core_seconds": 12.5, "tasks": 9, "result": B},
    "evaluation": {"run": "r-1", "model": A, "rows": 85, "metrics": {"auc": 0.994}, "gates": {"auc": True}},
    "policy-refused": {"run": "r-1", "manifest": A, "clause": "max_depth", "reason": "depth 12, allowed are 8"},
}  # fmt: skip


def make(kind: str, **changes: object) -> entries.Predicate:
    return KINDS[kind](**COMMON, **FIELDS[kind] | changes)


def test_every_kind_of_entry_is_tried_here():
    assert FIELDS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", FIELDS)
def test_every_kind_is_read_back_as_it_was_written(kind):
    predicate = make(kind)
    assert read_entry(sign_entry(predicate, [NORTH])).predicate == predicate


@pytest.mark.parametrize("kind", FIELDS)
def test_an_unknown_field_is_refused(kind):
    with pytest.raises(ValidationError, match="Extra inputs"):
        make(kind, patient="4411")


@pytest.mark.parametrize(
    "reason",
    [
        "ask jane.doe@north.example",
        "patient 0049 170 1234567",
        "IBAN 89 3704 0044 0532 0130",
        "two\nlines",
        "",
        "x" * 301,
    ],
)
def test_a_reason_has_no_room_for_a_person(reason):
    with pytest.raises(ValidationError):
        make("run-aborted", reason=reason)


@pytest.mark.parametrize(
    "reason", ["tree 37: digests differ", "since 2026-11-22 03:00", "99.5 % of 1,200 rows", "naïve – ‹ok›"]
)
def test_an_ordinary_reason_is_taken(reason):
    assert read_entry(sign_entry(make("run-aborted", reason=reason), [NORTH])).predicate.reason == reason


@pytest.mark.parametrize("kind", ["run-joined", "evaluation", "product-published"])
def test_no_count_below_the_disclosure_limit_can_be_written(kind):
    with pytest.raises(ValidationError, match="greater than or equal to 20"):
        make(kind, rows=DISCLOSURE_LIMIT - 1)
    assert make(kind, rows=None).rows is None


@given(rows=st.integers(0, 10_000), limit=st.integers(0, 100))
def test_a_disclosed_count_is_never_below_the_limit(rows, limit):
    told = disclosed(rows, limit)
    assert told is None or told == rows >= max(limit, DISCLOSURE_LIMIT)
    assert (told is None) == (rows < max(limit, DISCLOSURE_LIMIT))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("run-opened", "members", ["valley", "north"]),
        ("run-opened", "members", ["north", "north"]),
        ("run-opened", "members", []),
        ("run-opened", "run", "../../etc"),
        ("run-opened", "manifest", "A" * 64),
        ("run-opened", "disclosure_limit", 5),
        ("run-joined", "rows", "214"),
        ("run-joined", "rows", 214.0),
        ("run-joined", "dataset", C),
        ("tree-finished", "tree", 0),
        ("tree-finished", "sent", {"North Hospital": B}),
        ("tree-finished", "check", "maybe"),
        ("evaluation", "metrics", {"auc": float("nan")}),
        ("member-admitted", "key", {"algorithm": "rsa", "public_key": KEY.public_key}),
        ("member-admitted", "organisation", "<script>"),
        ("grant-given", "until", "tomorrow"),
    ],
)
def test_a_malformed_field_is_refused(kind, field, value):
    with pytest.raises(ValidationError):
        make(kind, **{field: value})


def test_the_algorithm_of_a_key_is_part_of_what_is_signed():
    payload = json.loads(read_entry(sign_entry(make("member-admitted"), [NORTH])).envelope.payload)
    assert payload["predicate"]["key"]["algorithm"] == "ed25519"
    assert payload["predicate"]["author"]["key"].startswith("ed25519:")


DOCUMENT = dataset_document("north/patients", {"patients.parquet": A}, rows=214, contract=B)


def test_a_commitment_opens_with_its_salt_and_with_no_other_data(tmp_path):
    opening = Opening(DOCUMENT)
    opening.save(tmp_path / "opening.json")
    again = Opening.load(tmp_path / "opening.json")
    again.check(opening.commitment)
    assert stat.S_IMODE((tmp_path / "opening.json").stat().st_mode) == 0o600
    with pytest.raises(ProofRefused, match="does not belong"):
        Opening(DOCUMENT | {"rows": 215}, again.salt).check(opening.commitment)


def test_the_same_data_twice_gives_commitments_that_nobody_can_link():
    assert Opening(DOCUMENT).commitment != Opening(DOCUMENT).commitment


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"format":"lepton-dataset-opening/v1","document":{},"salt":"AAAA"}']
)
def test_what_is_no_opening_is_named_as_such(tmp_path, content):
    (tmp_path / "opening.json").write_bytes(content)
    with pytest.raises(ProofRefused, match="opening"):
        Opening.load(tmp_path / "opening.json")
