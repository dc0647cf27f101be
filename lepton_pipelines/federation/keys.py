"""Keys of a federation: from the secrets that pairs agree on to the key that is used for one vector and never again."""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from lepton_pipelines.federation.announcement import Announcement


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
    add = [_expand(secret, "pair", announcement) for other, secret in sorted(pairs.items()) if member < other]
    subtract = [_expand(secret, "pair", announcement) for other, secret in sorted(pairs.items()) if other < member]
    group_mask = _expand(group, "group", announcement)
    if member == min(announcement.members):
        add.append(group_mask)
    return MaskKeys(tuple(add), tuple(subtract), group_mask)


def _expand(secret: bytes, use: str, announcement: Announcement) -> bytes:
    info = b"lepton/mask/1\0" + use.encode() + b"\0" + announcement.encoded
    return HKDFExpand(hashes.SHA256(), 32, info).derive(secret)
