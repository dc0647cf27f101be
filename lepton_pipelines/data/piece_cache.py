"""Prepared pieces kept between runs: a retrain reads only what is new or has changed.

An entry is what `preparation.prepare` made of a piece: encoded rows by set, counts, digest. Its name is a SHA-256
over everything that it follows from: the file's path, size and version (ETag, or time of change), the piece, the
contract, split and options of reading, and this release. Edges are not among them. Where a pipeline keeps its edges
(`training.edges: kept`), the codes of a piece's rows lie beside its entry and say by which edges, and of which
content. Entries hold rows, so the folder is its owner's alone; they are NumPy's zip files with checksums, written
whole or not at all, and nothing in them is executable.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit

from .encoding import Encoded
from .splits import SETS
from .violations import KeySample, Violations

if TYPE_CHECKING:
    from .preparation import Prepared
    from .sources import Piece, Source

_FORMAT = 1


@dataclass(frozen=True)
class PieceCache:
    """A folder of prepared pieces of one source, on whatever machine it is used.

    folder: for all sources; each has one of its own below. scope: of source, contract, split and release, hex.
    """

    folder: str
    scope: str

    @staticmethod
    def of(source: "Source", split: KeySplit | TimeSplit, folder: str) -> "PieceCache":
        """Return the cache for pieces of a source that are prepared with a split."""
        told: dict[str, Any] = {
            "format": _FORMAT,
            "release": version("lepton-pipelines"),
            "contract": source.contract.agreement().hex(),
            "split": split.model_dump(mode="json"),
            "data": source.data.model_dump(mode="json", exclude={"storage", "cache"}),
        }
        if source.contract.windowed:
            # A row's windows look into other files: what they gave holds as long as none of them changed or came.
            told["files"] = [asdict(file) for file in source.files]
        return PieceCache(folder, _digest(told))

    def holds(self, piece: "Piece") -> bool:
        """Tell whether there is an entry for a piece."""
        return self._path(piece).exists()

    def load(self, piece: "Piece") -> "Prepared | None":
        """Return a piece as it was prepared before; None if it is not here, or the entry is damaged."""
        from .preparation import Prepared

        path = self._path(piece)
        try:
            # NumPy forgets to close a file of its own that turns out to be damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                told = json.loads(bytes(stored["told"]))
                sets = {name: _encoded(stored, name, told) for name in SETS}
                keys = KeySample(stored["keys"], told["below"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # it is written anew
        os.utime(path)
        violations = Violations(
            rows=told["rows"],
            missing=_pairs(told["missing"]),
            inexact=_pairs(told["inexact"]),
            label_range=None if told["label_range"] is None else (told["label_range"][0], told["label_range"][1]),
            keys=keys,
        )
        return Prepared(sets, violations, bytes.fromhex(told["digest"]))

    def store(self, piece: "Piece", prepared: "Prepared") -> None:
        """Keep a prepared piece. One with rows that break the contract is not kept: it is told of again each time.

        Raises UserError if the folder cannot be written.
        """
        found = prepared.violations
        if found.rejected:
            return
        told = {
            "rows": found.rows,
            "missing": found.missing,
            "inexact": found.inexact,
            "label_range": found.label_range,
            "below": found.keys.below,
            "digest": prepared.digest.hex(),
            "weighted": next(iter(prepared.sets.values())).weight is not None,
            "groups": list(next(iter(prepared.sets.values())).groups),
        }
        arrays = {"told": np.frombuffer(json.dumps(told).encode(), np.uint8), "keys": found.keys.hashes}
        for name, encoded in prepared.sets.items():
            arrays |= dict(_arrays(name, encoded))
        self._write(self._path(piece), arrays)

    def load_codes(self, piece: "Piece", content: bytes, name: str, binning: bytes) -> NDArray[Any] | None:
        """Return the codes of one set of a piece's rows; None if they are not here, or damaged.

        content: the piece's digest. name: of the set. binning: digest of the edges.
        """
        path = self._codes_path(piece, name)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if bytes(stored["content"]) != content or bytes(stored["binning"]) != binning:
                    return None
                codes: NDArray[Any] = stored["codes"]
                return codes
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # they are made anew

    def store_codes(self, piece: "Piece", content: bytes, name: str, binning: bytes, codes: NDArray[Any]) -> None:
        """Keep the codes of one set of a piece's rows, in place of those by other edges.

        Raises UserError if the folder cannot be written.
        """
        told = {"content": np.frombuffer(content, np.uint8), "binning": np.frombuffer(binning, np.uint8)}
        self._write(self._codes_path(piece, name), {**told, "codes": codes})

    def forget_others(self, pieces: "list[Piece]") -> int:
        """Delete entries of this source that none of its pieces has any more. Returns how many were deleted."""
        held = {self._path(piece).stem for piece in pieces}
        entries = (Path(self.folder) / self.scope).glob("*.npz")
        gone = [path for path in entries if path.name.partition(".")[0] not in held]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _write(self, path: Path, arrays: Mapping[str, Any]) -> None:
        unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                np.savez(out, **arrays)
            unfinished.replace(path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise UserError(
                f"data.cache {self.folder} cannot be written: {error.strerror or error}. Make it writable, or take "
                "data.cache out."
            ) from error

    def _codes_path(self, piece: "Piece", name: str) -> Path:
        return self._path(piece).with_suffix(f".{name}.codes.npz")

    def _path(self, piece: "Piece") -> Path:
        told = {"file": asdict(piece.file), "row_groups": piece.row_groups, "first_row": piece.first_row}
        return Path(self.folder) / self.scope / f"{_digest(told)}.npz"


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _arrays(name: str, encoded: Encoded) -> Iterator[tuple[str, Any]]:
    yield f"{name}.X", encoded.X
    yield f"{name}.label", encoded.label
    yield f"{name}.row_id", encoded.row_id
    if encoded.weight is not None:
        yield f"{name}.weight", encoded.weight
    for group, codes in encoded.groups.items():
        yield f"{name}.group.{group}", codes


def _encoded(stored: Mapping[str, Any], name: str, told: Mapping[str, Any]) -> Encoded:
    return Encoded(
        stored[f"{name}.X"],
        stored[f"{name}.label"],
        stored[f"{name}.weight"] if told["weighted"] else None,
        stored[f"{name}.row_id"],
        {group: stored[f"{name}.group.{group}"] for group in told["groups"]},
    )


def _pairs(told: list[list[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(count)) for name, count in told)
