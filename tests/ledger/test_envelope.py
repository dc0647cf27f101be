"""Envelopes and statements: against securesystemslib's DSSE, RFC 8785's own example, and every changed byte."""

import base64
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from lepton_pipelines.ledger import canonical
from lepton_pipelines.ledger.entries import KeyRevoked, RunOpened
from lepton_pipelines.ledger.envelope import PAYLOAD_TYPE, Envelope, seal
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.predicate import fresh
from lepton_pipelines.ledger.statement import encode_statement, read_entry, sign_entry

NORTH, VALLEY = Signer.generate("north"), Signer.generate("valley")
COMMON = fresh("north", NORTH.verifier.key_id, "lepton.test/ledger")
PREDICATE = KeyRevoked(**COMMON, organisation="north", key=NORTH.verifier.key_id, reason="lost on 2026-11-20")
LEAF = sign_entry(PREDICATE, [NORTH])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=12,
)  # fmt: skip


def their_key(signer: Signer) -> SSlibKey:
    public = {"public": signer.verifier.raw.hex()}
    return SSlibKey(signer.verifier.key_id, "ed25519", "ed25519", public)


def test_an_independent_dsse_verifies_our_envelopes():
    theirs = TheirEnvelope.from_dict(json.loads(seal(b"payload", [NORTH, VALLEY]).pack()))
    assert theirs.payload_type == PAYLOAD_TYPE
    keys = theirs.verify([their_key(NORTH), their_key(VALLEY)], threshold=2)
    assert keys.keys() == {NORTH.verifier.key_id, VALLEY.verifier.key_id}


def test_an_independent_dsse_refuses_what_we_refuse():
    envelope = seal(b"payload", [NORTH])
    forged = Envelope(b"another", envelope.signatures)
    with pytest.raises(EntryRefused, match="forged"):
        forged.check(NORTH.verifier)
    with pytest.raises(VerificationError):
        TheirEnvelope.from_dict(json.loads(forged.pack())).verify([their_key(NORTH)], threshold=1)


def test_our_envelopes_are_in_canonical_form():
    assert rfc8785.dumps(json.loads(LEAF)) == LEAF
    payload = Envelope.unpack(LEAF).payload
    assert rfc8785.dumps(json.loads(payload)) == payload


def test_an_entry_with_any_one_byte_changed_is_refused():
    for at in range(len(LEAF)):
        changed = bytearray(LEAF)
        changed[at] ^= 1
        with pytest.raises(EntryRefused):
            read_entry(bytes(changed)).envelope.check(NORTH.verifier)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"extra": 1},
        lambda value: value | {"payloadType": "text/plain"},
        lambda value: value | {"signatures": []},
        lambda value: value | {"signatures": value["signatures"] * 2},
        lambda value: value | {"signatures": [value["signatures"][0] | {"keyid": "ed25519"}]},
        lambda value: value | {"payload": value["payload"] + "="},
        lambda value: {key: value[key] for key in ("payload", "signatures")},
    ],
)
def test_an_envelope_has_exactly_one_form(change):
    with pytest.raises(EntryRefused):
        Envelope.unpack(rfc8785.dumps(change(json.loads(LEAF))))


@pytest.mark.parametrize("spaced", [json.dumps(json.loads(LEAF)).encode(), LEAF + b"\n", b"[]", b"\xff", b"{"])
def test_json_in_another_form_is_no_envelope(spaced):
    with pytest.raises(EntryRefused):
        Envelope.unpack(spaced)


def test_an_in_toto_statement_is_what_the_payload_is():
    statement = json.loads(Envelope.unpack(LEAF).payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:lepton:ledger:key-revoked:v1"
    assert [subject["name"] for subject in statement["subject"]] == ["north"]
    assert statement["predicate"]["reason"] == "lost on 2026-11-20"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"predicateType": "urn:lepton:ledger:party:v1"}, "no entries of type"),
        ({"predicateType": "key-revoked"}, "no entries of type"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "expected https"),
        ({"subject": [{"name": "north", "digest": {"sha256": "0" * 64}}]}, "subject is not what"),
        ({"predicate": {}}, "malformed: ledger Field required"),
        ({"more": 1}, "no in-toto statement"),
    ],
)
def test_a_statement_of_another_form_is_named_for_what_is_wrong(change, reason):
    statement = json.loads(encode_statement(PREDICATE)) | change
    with pytest.raises(EntryRefused, match=reason):
        read_entry(seal(rfc8785.dumps(statement), [NORTH]).pack())


# The example of RFC 8785, section 3.2.2, and what section 3.2.3 makes of it.
RFC_INPUT = r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
RFC_OUTPUT = (
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
    '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
)


def test_the_canonical_form_is_that_of_the_rfcs_example():
    assert canonical.encode(json.loads(RFC_INPUT)).decode() == RFC_OUTPUT
    assert canonical.decode(RFC_OUTPUT.encode(), "the example") == json.loads(RFC_INPUT)


@given(JSON)
def test_what_was_written_is_read_back_and_no_other_form_is(value):
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data, "it")) == data
    assert data == rfc8785.dumps(value)
    for other in (json.dumps(value).encode(), data + b" ", json.dumps(value, separators=(",", ":")).encode()):
        if other != data:
            with pytest.raises(EntryRefused):
                canonical.decode(other, "it")


@pytest.mark.parametrize(
    "data",
    [
        b"1.0",
        b"[1e2]",
        b'{"a":1.50}',
        b"-0",
        b"[9007199254740993]",
        b"NaN",
        b'{"a":1,"a":2}',
        b'{"b":1,"a":2}',
        b'"\\u0041"',
    ],
)
def test_numbers_names_and_strings_have_one_spelling(data):
    with pytest.raises(EntryRefused):
        canonical.decode(data, "it")


def test_integers_that_a_json_number_cannot_hold_are_decimal_strings():
    assert canonical.encode({"sum": 2**63, "small": 7}) == b'{"small":7,"sum":"9223372036854775808"}'
    assert canonical.encode([-(2**53), 2**53 - 1]) == b'["-9007199254740992",9007199254740991]'


def test_a_statement_is_signed_in_the_encoding_that_dsse_prescribes():
    envelope = seal(b"{}", [NORTH])
    signed = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
    assert NORTH.verifier.verify(envelope.signatures[NORTH.verifier.key_id], signed)
    assert base64.b64decode(json.loads(envelope.pack())["payload"]) == b"{}"


def test_a_kind_of_entry_carries_its_version_in_its_type():
    opened = RunOpened(
        **COMMON, run="r-1", pipeline="demo", members=["north"], manifest="0" * 64, spec="1" * 64, code_version="0.1.0"
    )
    assert json.loads(encode_statement(opened))["predicateType"] == "urn:lepton:ledger:run-opened:v1"
