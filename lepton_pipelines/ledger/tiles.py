"""Tiles and entry bundles: how a log lies in files, as in C2SP `tlog-tiles`.

Level L of the tiles holds the roots of perfect subtrees of 256^L entries, 256 hashes to a file; the last file of a
level is partial and carries its width in its name. Entries lie in bundles of 256, each behind its length in two bytes.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged
from lepton_pipelines.ledger.merkle import HASH_BYTES, Frontier, root_of

TILE_HEIGHT = 8
TILE_WIDTH = 256
MAXIMUM_ENTRY_BYTES = 0xFFFF


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Name the file of a tile: `tile/<level>/<number>[.p/<width>]`."""
    return f"tile/{level}/{_number_path(number, width)}"


def bundle_path(number: int, width: int = TILE_WIDTH) -> str:
    """Name the file of an entry bundle: `tile/entries/<number>[.p/<width>]`."""
    return f"tile/entries/{_number_path(number, width)}"


def widths(count: int) -> Iterator[tuple[int, int]]:
    """Yield (number, width) of the files that hold `count` hashes or entries of one level, the partial one last."""
    for number in range(count // TILE_WIDTH):
        yield number, TILE_WIDTH
    if count % TILE_WIDTH:
        yield count // TILE_WIDTH, count % TILE_WIDTH


def levels(size: int) -> Iterator[tuple[int, int]]:
    """Yield (level, count of hashes) of every level of tiles that a tree of this size has."""
    level = 0
    while size:
        yield level, size
        size //= TILE_WIDTH
        level += 1


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """Write entries one after the other, each behind its length. Raises EntryRefused if one exceeds 65,535 bytes."""
    parts = []
    for entry in entries:
        if len(entry) > MAXIMUM_ENTRY_BYTES:
            raise EntryRefused(f"an entry of {len(entry)} bytes does not fit the ledger: at most {MAXIMUM_ENTRY_BYTES}")
        parts.append(struct.pack(">H", len(entry)) + entry)
    return b"".join(parts)


def unpack_bundle(data: bytes, count: int, where: str) -> list[bytes]:
    """Read exactly `count` entries. Raises LedgerDamaged, naming the file, if the bundle is malformed."""
    entries: list[bytes] = []
    position = 0
    while position < len(data):
        if position + 2 > len(data):
            raise LedgerDamaged(f"{where} is malformed: it ends within an entry's length")
        (length,) = struct.unpack_from(">H", data, position)
        position += 2
        if position + length > len(data):
            raise LedgerDamaged(f"{where} is malformed: it ends within entry {len(entries)} of the bundle")
        entries.append(data[position : position + length])
        position += length
    if len(entries) != count:
        raise LedgerDamaged(f"{where} is malformed: it holds {len(entries)} entries instead of {count}")
    return entries


def split_tile(data: bytes, width: int, where: str) -> list[bytes]:
    """Read the hashes of a tile. Raises LedgerDamaged, naming the file, if its length is not `width` hashes."""
    if len(data) != width * HASH_BYTES:
        raise LedgerDamaged(f"{where} is malformed: {len(data)} bytes instead of {width} hashes of {HASH_BYTES}")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


class TileReader:
    """Reads a published log of `size` entries from its files, and proves from them.

    Only what the size calls for is read. Full tiles are kept in memory once read, so that many proofs cost little.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    def tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of one tile. Raises LedgerDamaged if it is missing or malformed."""
        key = (level, number)
        if key not in self._tiles:
            width = self._width(self.size >> (TILE_HEIGHT * level), number)
            path = tile_path(level, number, width)
            self._tiles[key] = split_tile(self._read(path), width, str(self.folder / path))
        return self._tiles[key]

    def bundle(self, number: int) -> list[bytes]:
        """Return the entries of one bundle. Raises LedgerDamaged if it is missing or malformed."""
        if self._bundle[0] != number:
            width = self._width(self.size, number)
            path = bundle_path(number, width)
            self._bundle = (number, unpack_bundle(self._read(path), width, str(self.folder / path)))
        return self._bundle[1]

    def entry(self, index: int) -> bytes:
        """Return one entry."""
        return self.bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def subtree(self, height: int, index: int) -> bytes:
        """Return the root of a perfect subtree, from the tile that holds its parts."""
        level, rest = divmod(height, TILE_HEIGHT)
        first = index << rest
        hashes = self.tile(level, first // TILE_WIDTH)
        at = first % TILE_WIDTH
        return root_of(hashes[at : at + (1 << rest)]) if rest else hashes[at]

    def _width(self, count: int, number: int) -> int:
        width = min(TILE_WIDTH, count - number * TILE_WIDTH)
        if width <= 0:
            raise LedgerDamaged(f"{self.folder}: a ledger of {self.size} entries has no such tile ({number})")
        return width

    def _read(self, path: str) -> bytes:
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise LedgerDamaged(
                f"{self.folder / path} cannot be read ({error.strerror}): the head says {self.size} entries. "
                "Copy the ledger anew from another member"
            ) from error


class TileEdge:
    """The unfinished right edge of all levels of tiles, and the finished tiles that are not written yet.

    `hashes[level]` are the hashes of the level's last, partial tile; `finished` maps (level, number) to full tiles.
    """

    def __init__(self) -> None:
        self.size = 0
        self.frontier = Frontier()
        self.hashes: list[list[bytes]] = []
        self.finished: dict[tuple[int, int], list[bytes]] = {}

    @staticmethod
    def read(reader: TileReader) -> "TileEdge":
        """Take the edge of a published log from its last tiles."""
        edge = TileEdge()
        edge.size = reader.size
        for level, count in levels(reader.size):
            edge.hashes.append(list(reader.tile(level, count // TILE_WIDTH)) if count % TILE_WIDTH else [])
        for level in reversed(range(len(edge.hashes))):
            for each in edge.hashes[level]:
                edge.frontier.append(each, height=TILE_HEIGHT * level)
        return edge

    def append(self, leaf: bytes) -> None:
        """Add the hash of an entry."""
        number = self.size
        self.size += 1
        self.frontier.append(leaf)
        level = 0
        while True:
            if level == len(self.hashes):
                self.hashes.append([])
            self.hashes[level].append(leaf)
            if len(self.hashes[level]) < TILE_WIDTH:
                return
            full, self.hashes[level] = self.hashes[level], []
            number //= TILE_WIDTH
            self.finished[level, number] = full
            leaf = root_of(full)
            level += 1

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of every tile to be written: those that got full, and the partial ones."""
        for (level, number), hashes in sorted(self.finished.items()):
            yield tile_path(level, number), b"".join(hashes)
        for level, count in levels(self.size):
            if self.hashes[level]:
                width = len(self.hashes[level])
                yield tile_path(level, count // TILE_WIDTH, width), b"".join(self.hashes[level])


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _number_path(number: int, width: int) -> str:
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return path if width == TILE_WIDTH else f"{path}.p/{width}"
