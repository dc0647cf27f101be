"""Keys of a federation: from ephemeral key pairs to the key that is used for one vector and never again.

Each key epoch every pair agrees a secret from X25519 and ML-KEM-768 together (whoever breaks one of them learns
nothing), through HKDF-SHA256 salted with the manifest's digest. The secrets live in memory only: a member that restarts
opens a new epoch. The first member draws a group key and wraps it for each of the others.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from lepton_pipelines.federation.announcement import Announcement
from lepton_pipelines.federation.envelope import Untrusted
from lepton_pipelines.federation.wire import federation_pb2 as wire

_NONCE = bytes(12)  # every AES-GCM key here is derived for one message


@dataclass(frozen=True)
class MaskKeys:
    """AES-256 keys of one member for one sum: what it adds, what it subtracts, and the group mask."""

    add: tuple[bytes, ...]
    subtract: tuple[bytes, ...]
    group: bytes


def mask_keys(member: str, pairs: Mapping[str, bytes], group: bytes, announcement: Announcement) -> MaskKeys:
    """Derive the keys of one sum from the secrets of a key epoch (HKDF-Expand, RFC 5869).

    pairs: this member's secret with each other member, 32 bytes. group: the secret of all members, 32 bytes.
    Of a pair the member with the lower id adds. The first member adds the group mask too. Everything that was announced
    goes into the derivation, so masks cancel only between members that agree on it, and no key comes twice.
    """
    add = [_mask_key(secret, "pair", announcement) for other, secret in sorted(pairs.items()) if member < other]
    subtract = [_mask_key(secret, "pair", announcement) for other, secret in sorted(pairs.items()) if other < member]
    group_mask = _mask_key(group, "group", announcement)
    if member == min(announcement.members):
        add.append(group_mask)
    return MaskKeys(tuple(add), tuple(subtract), group_mask)


def _mask_key(secret: bytes, use: str, announcement: Announcement) -> bytes:
    return expand(secret, b"lepton/mask/1", use.encode(), announcement.encoded)


def expand(secret: bytes, *info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes; each part of the info behind its length, so that no two infos run together."""
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in info)
    return HKDFExpand(hashes.SHA256(), 32, joined).derive(secret)


@dataclass
class KeyEpoch:
    """One member's keys of one epoch, from its own ephemeral pair to the secrets shared with all others.

    draw: source of random bytes. `share` goes to everyone; with everyone's shares `seal` makes what goes to the
    others; with everyone's boxes `open` completes the epoch.
    """

    member: str
    number: int
    salt: bytes
    draw: Callable[[int], bytes]
    pairs: dict[str, bytes] = field(default_factory=dict, repr=False)
    group: bytes = field(default=b"", repr=False)
    _shares: dict[str, wire.KeyShare] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._x25519 = X25519PrivateKey.from_private_bytes(self.draw(32))
        self._ml_kem = MLKEM768PrivateKey.from_seed_bytes(self.draw(64))

    @property
    def complete(self) -> bool:
        """Whether sums can be made under this epoch."""
        return bool(self.group)

    def share(self, *, incarnation: bytes, done: int) -> wire.KeyShare:
        """Return the public halves."""
        return wire.KeyShare(
            x25519=self._x25519.public_key().public_bytes_raw(),
            ml_kem_768=self._ml_kem.public_key().public_bytes_raw(),
            incarnation=incarnation,
            done=done,
        )

    def seal(self, shares: Mapping[str, wire.KeyShare]) -> wire.KeyBoxes:
        """Encapsulate a secret to every member with a higher id; the first member wraps the group key as well.

        Raises Untrusted if a member's public key is not one.
        """
        self._shares = dict(shares)
        boxes = wire.KeyBoxes()
        leader = self.member == min(shares)
        group = self.draw(32) if leader else b""
        for other in sorted(shares):
            if other <= self.member:
                continue
            try:
                secret, ciphertext = MLKEM768PublicKey.from_public_bytes(shares[other].ml_kem_768).encapsulate()
            except ValueError as error:
                raise Untrusted(f"{other}'s ML-KEM-768 key is not one") from error
            boxes.encapsulated[other] = ciphertext
            self.pairs[other] = self._agree(other, secret, ciphertext)
            if leader:
                boxes.group_key[other] = AESGCM(self._wrapping(other)).encrypt(_NONCE, group, self._label(other))
        if leader:
            self.group = group
        return boxes

    def open(self, boxes: Mapping[str, wire.KeyBoxes]) -> None:
        """Take what the members with lower ids encapsulated, and the group key.

        Raises Untrusted, naming the member whose box does not open.
        """
        for other in sorted(boxes):
            if other >= self.member:
                continue
            ciphertext = boxes[other].encapsulated.get(self.member, b"")
            try:
                secret = self._ml_kem.decapsulate(ciphertext)
            except ValueError as error:
                raise Untrusted(f"{other} encapsulated no secret to {self.member}") from error
            self.pairs[other] = self._agree(other, secret, ciphertext)
        leader = min(boxes)
        if leader != self.member:
            wrapped = boxes[leader].group_key.get(self.member, b"")
            try:
                self.group = AESGCM(self._wrapping(leader)).decrypt(_NONCE, wrapped, self._label(self.member))
            except (InvalidTag, ValueError) as error:
                raise Untrusted(f"{leader}'s group key does not open at {self.member}") from error

    def seal_announcement(self, announcement: Announcement) -> bytes:
        """Encrypt an announcement for the members: the hub learns that there will be a sum, not of what."""
        key = self._announcement_key(self.member, announcement.number)
        return AESGCM(key).encrypt(_NONCE, announcement.encoded, self.member.encode())

    def open_announcement(self, sender: str, number: int, sealed: bytes) -> bytes:
        """Decrypt a member's announcement. Raises Untrusted if it was not made by one who holds the group key."""
        try:
            return AESGCM(self._announcement_key(sender, number)).decrypt(_NONCE, sealed, sender.encode())
        except (InvalidTag, ValueError) as error:
            raise Untrusted(f"{sender}'s announcement of sum {number} does not open") from error

    def authenticate_form(self, sender: str, number: int, challenge: bytes, value: bytes) -> bytes:
        """Return the authenticator of a form: only who holds the group key can make it, and the hub does not."""
        label = str(number).encode()
        return expand(self.group, b"lepton/form/1", self._epoch, label, sender.encode(), challenge, value)

    def blind(self, outcome: bytes) -> bytes:
        """Return what only members can compare with an outcome's digest."""
        return expand(self.group, b"lepton/outcome/1", outcome)

    @property
    def _epoch(self) -> bytes:
        return self.number.to_bytes(8, "big")

    def _announcement_key(self, sender: str, number: int) -> bytes:
        return expand(self.group, b"lepton/announcement/1", self._epoch, number.to_bytes(8, "big"), sender.encode())

    def _wrapping(self, other: str) -> bytes:
        return expand(self.pairs[other], b"lepton/wrap-group-key/1")

    def _label(self, receiver: str) -> bytes:
        return b"lepton/group-key/1\0" + self._epoch + receiver.encode()

    def _agree(self, other: str, encapsulated: bytes, ciphertext: bytes) -> bytes:
        try:
            public = X25519PublicKey.from_public_bytes(self._shares[other].x25519)
            exchanged = self._x25519.exchange(public)
        except ValueError as error:
            raise Untrusted(f"{other}'s X25519 key is not one") from error
        first, second = sorted((self.member, other))
        transcript = hashlib.sha256()
        for part in (
            b"lepton/pair/1",
            self._epoch,
            first.encode(),
            second.encode(),
            self._shares[first].x25519,
            self._shares[first].ml_kem_768,
            self._shares[second].x25519,
            self._shares[second].ml_kem_768,
            ciphertext,
        ):
            transcript.update(len(part).to_bytes(4, "big") + part)
        return HKDF(hashes.SHA256(), 32, self.salt, transcript.digest()).derive(exchanged + encapsulated)
