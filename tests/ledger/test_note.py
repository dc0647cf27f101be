"""Signed notes, heads and cosignatures: against the published example, sigstore's reader, and every changed byte."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigstore._internal.rekor.checkpoint import SignedCheckpoint

from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.note import (
    COSIGNATURE,
    LOG_SIGNATURE,
    Note,
    Signer,
    Verifier,
    check_cosignature,
    check_signature,
    cosign,
    cosigners,
)

# The example in the documentation of Go's golang.org/x/mod/sumdb/note.
PUBLISHED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
LOG = Signer.generate("lepton.test/log")
NORTH, VALLEY = Signer.generate("north"), Signer.generate("valley")
HEAD = Checkpoint("lepton.test/log", 20852163, bytes(range(32)))
NOTE = HEAD.sign(LOG).with_signatures([cosign(HEAD.text(), NORTH, at=1679315147)])


def test_the_published_note_is_genuine_under_the_published_key():
    verifier = Verifier.from_vkey(PUBLISHED_KEY, LOG_SIGNATURE)
    check_signature(Note.parse(PUBLISHED_NOTE), verifier)
    assert verifier.vkey(LOG_SIGNATURE) == PUBLISHED_KEY
    assert str(Note.parse(PUBLISHED_NOTE)) == PUBLISHED_NOTE
    with pytest.raises(ProofRefused, match="is wrong"):
        check_signature(Note.parse(PUBLISHED_NOTE.replace("think", "know")), verifier)


def test_sigstore_reads_our_heads_as_its_own():
    theirs = SignedCheckpoint.from_text(str(NOTE))
    assert theirs.checkpoint.origin == HEAD.origin
    assert theirs.checkpoint.log_size == HEAD.size
    assert theirs.checkpoint.log_hash == HEAD.root.hex()
    log_line, cosignature = theirs.signed_note.signatures
    assert (log_line.name, log_line.sig_hash) == (LOG.name, LOG.verifier.note_id(LOG_SIGNATURE))
    assert LOG.verifier.verify(base64.b64decode(log_line.signature), theirs.signed_note.note.encode())
    assert (cosignature.name, cosignature.sig_hash) == ("north", NORTH.verifier.note_id(COSIGNATURE))


def test_a_head_has_the_three_lines_of_the_standard():
    assert HEAD.text() == "lepton.test/log\n20852163\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    assert Checkpoint.parse(HEAD.text()) == HEAD
    assert open_head(NOTE, LOG.verifier) == HEAD


def test_a_cosignature_covers_header_time_and_head():
    line = next(line for line in NOTE.signatures if line.name == "north")
    assert int.from_bytes(line.signature[:8], "big") == 1679315147
    signed = f"cosignature/v1\ntime 1679315147\n{HEAD.text()}".encode()
    assert NORTH.verifier.verify(line.signature[8:], signed)
    assert cosigners(NOTE, [NORTH.verifier, VALLEY.verifier]) == {"north": 1679315147}


def test_a_cosignature_under_another_name_or_key_does_not_count():
    line = cosign(HEAD.text(), NORTH)
    with pytest.raises(ProofRefused, match="not made with the key of valley"):
        check_cosignature(HEAD.text(), line, VALLEY.verifier)
    impostor = Signer.generate("north")
    assert cosigners(HEAD.sign(LOG).with_signatures([cosign(HEAD.text(), impostor)]), [NORTH.verifier]) == {}


def test_signatures_of_unknown_keys_are_passed_over():
    stranger = HEAD.sign(LOG).with_signatures([cosign(HEAD.text(), Signer.generate("stranger"))])
    assert open_head(stranger, LOG.verifier) == HEAD
    with pytest.raises(ProofRefused, match="not signed by the log's key"):
        check_signature(stranger, Signer.generate("lepton.test/log").verifier)


def test_a_head_with_any_one_byte_changed_counts_for_nobody():
    for at in range(len(str(NOTE).encode())):
        data = bytearray(str(NOTE).encode())
        data[at] ^= 1
        with contextlib.suppress(ProofRefused, UnicodeDecodeError):
            note = Note.parse(data.decode())
            open_head(note, LOG.verifier)
            assert cosigners(note, [NORTH.verifier]) == {}, f"byte {at}: only a line of an unknown key may differ"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lepton.test/log\n007\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "not the size"),
        ("lepton.test/log\n-1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "not the size"),
        ("Lepton Test\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "no origin"),
        ("lepton.test/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n", "base64 of 32 bytes"),
        ("lepton.test/log\n7\nAAAA\n", "base64 of 32 bytes"),
        ("lepton.test/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nmore\n", "three lines"),
    ],
)
def test_a_malformed_head_is_named_for_what_is_wrong(text, reason):
    with pytest.raises(ProofRefused, match=reason):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "text\n", "text\n\n— north\n", "text\n\n- north AAAAAAAA\n", "a\tb\n\n— n AAAA\n"]
)
def test_what_is_no_note_is_refused(text):
    with pytest.raises(ProofRefused):
        Note.parse(text)


@given(st.text())
def test_any_text_is_a_note_or_is_refused(text):
    with contextlib.suppress(ProofRefused):
        assert str(Note.parse(text)) == text


@pytest.mark.parametrize("name", ["", "two words", "a+b", "no\u00a0break"])
def test_a_key_needs_a_name_that_notes_can_carry(name):
    with pytest.raises(ProofRefused, match="cannot name a key"):
        Signer.generate(name)


def test_a_written_key_that_is_not_its_own_id_is_refused():
    name, _, key = LOG.verifier.vkey(LOG_SIGNATURE).split("+", 2)
    with pytest.raises(ProofRefused, match="does not belong to the id"):
        Verifier.from_vkey(f"{name}+00000000+{key}", LOG_SIGNATURE)
    with pytest.raises(ProofRefused, match="is of type 01, expected 04"):
        Verifier.from_vkey(LOG.verifier.vkey(LOG_SIGNATURE), COSIGNATURE)
