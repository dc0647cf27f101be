"""Edges kept from run to run, so that a retrain need not search them anew and codes of old rows stay what they are.

`training.edges: kept`. Every organisation keeps at home what was found last. Edges are used again if all members
have the same, if the rows of all together are between half and twice as many as when they were searched, and if they
still do for these rows (`boosting.edge_check`). All of that follows from sums, so all members decide alike.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.edge_check import still_hold
from lepton_pipelines.boosting.edges import SMALLEST_BIN, EdgeSearch, find_edges
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.progress import binning_arrays, binning_of
from lepton_pipelines.boosting.steps import CountRows, read_counts
from lepton_pipelines.organisation.folder import write_private
from lepton_pipelines.sums import Int64Array, Sums

if TYPE_CHECKING:
    from lepton_pipelines.organisation.run import OrganisationRun

_WORDS = 16  # of 16 bits: a SHA-256
GROWTH = 2  # edges are searched anew once the rows are more than so many times as many, or as few


@dataclass(frozen=True)
class KeptEdges:
    """Edges that were found in an earlier run.

    rows: of all members together, then. settings: digest of what else they were found by (contract, bins).
    """

    binning: Binning
    rows: int
    settings: bytes

    @property
    def digest(self) -> bytes:
        """What members compare, 32 bytes."""
        return hashlib.sha256(self.binning.digest + self.rows.to_bytes(8, "little") + self.settings).digest()

    def to_bytes(self) -> bytes:
        """Encode for a file."""
        file = io.BytesIO()
        told: dict[str, NDArray[Any]] = {
            "rows": np.array(self.rows),
            "settings": np.frombuffer(self.settings, np.uint8),
        }
        np.savez(file, allow_pickle=False, **told, **binning_arrays(self.binning))
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "KeptEdges | None":
        """Decode what `to_bytes` wrote; None if it is empty or damaged: edges are then searched anew."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return KeptEdges(binning_of(file), int(file["rows"]), file["settings"].tobytes())
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error):
            return None


@dataclass(frozen=True)
class Agreed:
    """The edges that all members use. kept: whether they are those of an earlier run."""

    binning: Binning
    kept: bool


def edges_of_run(part: "OrganisationRun") -> Agreed:
    """Agree with the other members on a run's edges: those that were kept, or new ones."""
    collective = Collective(part.rows, part.sums, "binning")
    sets = tuple(dict.fromkeys(("train", *part.evaluation)))
    counts, weight_exponent = read_counts(
        collective.sum(CountRows(part.parameters, sets), "rows", bound=1 << 40), len(sets)
    )
    smallest = SMALLEST_BIN if part.sums.parties > 1 else 1
    search = EdgeSearch(part.parameters.max_bin, smallest, counts[0], weight_exponent)
    if not part.keeps_edges:
        return Agreed(find_edges(collective, "train", part.features, search), kept=False)
    settings = hashlib.sha256(part.contract.agreement() + bytes(f"{search.max_bin} {smallest}", "ascii")).digest()
    path = part.folder.var / "organisations" / part.name / "edges" / f"{part.pipeline.name}.npz"
    mine = KeptEdges.from_bytes(part.once("edges", lambda: path.read_bytes() if path.exists() else b""))
    if mine is not None and mine.settings != settings:
        mine = None
    agreed = agree(collective, part.sums, part.features, search, mine)
    if not agreed.kept:
        write_private(path, KeptEdges(agreed.binning, search.rows, settings).to_bytes())
    return agreed


def agree(rows: Collective, sums: Sums, features: FeatureSchema, search: EdgeSearch, mine: KeptEdges | None) -> Agreed:
    """Use the edges that all members have kept, if they have the same and these still do; else find new ones.

    mine: what this member has kept; None if nothing.
    """
    votes = sums.sum("agreement/edges", _vote(mine), bound=sums.parties << 32)
    same = mine is not None and _unanimous(votes, sums.parties) and _of_a_size(mine.rows, search.rows)
    if mine is not None and same and still_hold(rows, "train", features, mine.binning, search):
        return Agreed(mine.binning, kept=True)
    return Agreed(find_edges(rows, "train", features, search), kept=False)


def _vote(mine: KeptEdges | None) -> Int64Array:
    """Return int64: 1 and the digest's words and their squares; zeros for nothing."""
    if mine is None:
        return np.zeros(1 + 2 * _WORDS, np.int64)
    words = np.frombuffer(mine.digest, "<u2").astype(np.int64)
    return np.concatenate([[1], words, words * words])


def _unanimous(votes: Int64Array, members: int) -> bool:
    """Tell whether all members gave the same digest: only of equal numbers is the mean square the square of the mean.

    It follows from the totals alone, so no member finds another answer than the others.
    """
    words, squares = votes[1 : 1 + _WORDS], votes[1 + _WORDS :]
    return bool(votes[0] == members and (words * words == members * squares).all())


def _of_a_size(before: int, now: int) -> bool:
    return now <= GROWTH * before and before <= GROWTH * now
