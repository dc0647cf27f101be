"""Proofs, held against published vectors, against RFC 6962's definition, and against sigstore's verifier."""

import base64
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    root_of,
)

# The leaves and roots with which Certificate Transparency's own implementations are tested.
PUBLISHED_LEAVES = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
]  # fmt: skip
PUBLISHED_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
ENTRIES = [f"entry {number}".encode() for number in range(300)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def subtree(height: int, index: int) -> bytes:
    return root_of(LEAVES[index << height : (index + 1) << height])


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2, word for word."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = 1 << ((n - 1).bit_length() - 1)
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def sigstore_accepts(entry: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    inner = SimpleNamespace(
        inclusion_proof=SimpleNamespace(log_index=index, tree_size=size, hashes=proof, root_hash=root),
        canonicalized_body=entry,
    )
    try:
        verify_merkle_inclusion(SimpleNamespace(_inner=inner))
    except VerificationError:
        return False
    return True


def test_roots_are_the_published_ones():
    frontier = Frontier()
    for leaf, root in zip(PUBLISHED_LEAVES, PUBLISHED_ROOTS, strict=True):
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        assert frontier.root().hex() == root
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21, 64, 65])
def test_sigstore_accepts_every_inclusion_proof(size):
    root = root_at(size, subtree)
    for index in range(size):
        proof = inclusion_proof(index, size, subtree)
        assert sigstore_accepts(ENTRIES[index], index, size, proof, root)
        check_inclusion(index, size, LEAVES[index], proof, root)


@given(size=st.integers(1, 300), data=st.data())
def test_sigstore_and_we_refuse_the_same_changed_inclusion_proofs(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, subtree)
    root = root_at(size, subtree)
    changed = list(proof)
    match data.draw(st.sampled_from(["drop", "add", "flip", "index", "root"])):
        case "drop" if proof:
            changed.pop(data.draw(st.integers(0, len(proof) - 1)))
        case "add":
            changed.insert(data.draw(st.integers(0, len(proof))), data.draw(st.binary(min_size=32, max_size=32)))
        case "flip" if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            changed[at] = flip(changed[at], data.draw(st.integers(0, 255)))
        case "index":
            index = data.draw(st.integers(0, size - 1))
        case "root":
            root = flip(root, data.draw(st.integers(0, 255)))
    entry = ENTRIES[data.draw(st.integers(0, size - 1))] if changed == proof else ENTRIES[index]
    try:
        check_inclusion(index, size, leaf_hash(entry), changed, root)
        ours = True
    except ProofRefused:
        ours = False
    assert ours == sigstore_accepts(entry, index, size, changed, root)


@given(old=st.integers(0, 300), grown=st.integers(0, 300))
def test_consistency_proofs_are_those_of_the_standard(old, grown):
    new = min(300, old + grown)
    proof = consistency_proof(old, new, subtree)
    assert proof == (subproof(old, LEAVES[:new], True) if old else [])
    check_consistency(old, mth(LEAVES[:old]), new, mth(LEAVES[:new]), proof)


@given(old=st.integers(1, 299), grown=st.integers(1, 299), data=st.data())
def test_a_consistency_proof_with_one_bit_changed_is_refused(old, grown, data):
    new = min(300, old + grown)
    proof = consistency_proof(old, new, subtree)
    parts = [mth(LEAVES[:old]), mth(LEAVES[:new]), *proof]
    at = data.draw(st.integers(0, len(parts) - 1))
    parts[at] = flip(parts[at], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofRefused):
        check_consistency(old, parts[0], new, parts[1], parts[2:])


@given(size=st.integers(2, 300), at=st.integers(0, 298), data=st.data())
def test_no_consistency_proof_joins_a_log_to_one_with_another_entry(size, at, data):
    old = data.draw(st.integers(1, size - 1))
    at %= old
    other = [*LEAVES[:at], leaf_hash(b"another"), *LEAVES[at + 1 : size]]
    with pytest.raises(ProofRefused):
        check_consistency(old, mth(LEAVES[:old]), size, mth(other), subproof(old, other, True))


@given(sizes=st.lists(st.integers(0, 300), min_size=2, max_size=2))
def test_proofs_of_what_is_not_there_are_not_made(sizes):
    low, high = sorted(sizes)
    with pytest.raises(ProofRefused, match="there is no entry"):
        inclusion_proof(high, low, subtree)
    if low < high:
        with pytest.raises(ProofRefused, match="cannot begin with"):
            consistency_proof(high, low, subtree)


def test_a_frontier_grows_by_whole_subtrees_as_by_leaves():
    whole = Frontier()
    whole.append(subtree(8, 0), height=8)
    for leaf in LEAVES[256:]:
        whole.append(leaf)
    assert (whole.size, whole.root()) == (300, mth(LEAVES))
    assert base64.b64encode(whole.copy().root()) == base64.b64encode(whole.root())


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)
