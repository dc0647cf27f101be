"""The Merkle tree of a log: hashes, roots, and proofs of inclusion and consistency.

Hashing is RFC 6962, section 2.1 (SHA-256, 0x00 before a leaf, 0x01 before a node). Proofs are made by its recursive
definition and checked by the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2. Nothing here reads files: where
subtrees come from is told by a function, so the same code proves from tiles, from memory and in tests.
"""

import hashlib
from collections.abc import Callable, Sequence

from lepton_pipelines.ledger.errors import ProofRefused

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]
"""(height, index) → root of the perfect subtree over leaves [index·2^height, (index+1)·2^height)."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry as a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into the node above them."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: enough to add leaves and to tell the root, in O(log n) memory.

    `roots` holds (height, hash) of the perfect subtrees that the tree is made of, the leftmost and largest first.
    """

    def __init__(self) -> None:
        self.size = 0
        self.roots: list[tuple[int, bytes]] = []

    def append(self, leaf: bytes, height: int = 0) -> None:
        """Add the hash of a leaf, or of a whole perfect subtree of this height where the tree is aligned to it."""
        self.size += 1 << height
        while self.roots and self.roots[-1][0] == height:
            leaf = node_hash(self.roots.pop()[1], leaf)
            height += 1
        self.roots.append((height, leaf))

    def root(self) -> bytes:
        """Return the root hash of the tree as it stands."""
        if not self.roots:
            return EMPTY_ROOT
        root = self.roots[-1][1]
        for _, left in reversed(self.roots[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> "Frontier":
        """Return an independent frontier, to try an extension on."""
        other = Frontier()
        other.size, other.roots = self.size, list(self.roots)
        return other


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashed leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def root_at(size: int, subtree: Subtree) -> bytes:
    """Return the root of the first `size` entries."""
    return _range_hash(0, size, subtree) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Prove that the entry at `index` is in the tree of `size` entries: sibling hashes from the leaf upwards."""
    if not 0 <= index < size:
        raise ProofRefused(f"there is no entry {index} in a tree of {size} entries (they count from 0)")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            proof.append(_range_hash(low, middle, subtree))
            low = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Prove that the tree of `new` entries begins with the tree of `old` entries (RFC 6962, section 2.1.2)."""
    if not 0 <= old <= new:
        raise ProofRefused(f"a tree of {new} entries cannot begin with one of {old}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, new, True
    while old < high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            proof.append(_range_hash(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        proof.append(_range_hash(low, high, subtree))
    return proof[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root that a leaf hash and its inclusion proof lead to (RFC 9162, section 2.1.3.2).

    Raises ProofRefused if the proof cannot belong to this index and size.
    """
    if not 0 <= index < size:
        raise ProofRefused(f"the proof is for entry {index} of a tree that has {size}")
    number, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofRefused(f"the inclusion proof has {len(proof)} hashes, too many for entry {index} of {size}")
        if number & 1 or number == last:
            root = node_hash(sibling, root)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofRefused(f"the inclusion proof has {len(proof)} hashes, too few for entry {index} of {size}")
    return root


def check_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is the entry at `index` under this root. Raises ProofRefused otherwise."""
    if root_from_inclusion(index, size, leaf, proof) != root:
        raise ProofRefused(f"the inclusion proof of entry {index} does not lead to the root of {size} entries")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` entries begins with the tree of `old` (RFC 9162, section 2.1.4.2).

    Raises ProofRefused if it does not, or if the proof has the wrong form.
    """
    refused = ProofRefused(f"the consistency proof from {old} to {new} entries does not hold")
    if not 0 <= old <= new:
        raise ProofRefused(f"a tree of {new} entries cannot begin with one of {old}")
    if old == new or old == 0:
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise refused
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise refused
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first_root = second_root = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise refused
        if number & 1 or number == last:
            first_root, second_root = node_hash(sibling, first_root), node_hash(sibling, second_root)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second_root = node_hash(second_root, sibling)
        number, last = number >> 1, last >> 1
    if last or first_root != old_root or second_root != new_root:
        raise refused


def _split(size: int) -> int:
    """Return the largest power of two below `size`: where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_hash(low: int, high: int, subtree: Subtree) -> bytes:
    """Return the root over entries [low, high), where low is a multiple of the range's largest power of two."""
    size = high - low
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return subtree(height, low >> height)
    middle = low + _split(size)
    return node_hash(_range_hash(low, middle, subtree), _range_hash(middle, high, subtree))
