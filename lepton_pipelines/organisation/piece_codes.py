"""Codes of an organisation's pieces, kept between runs in `data.cache`: only new pieces are put into bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lepton_pipelines.data.piece_cache import PieceCache
from lepton_pipelines.data.sources import Piece


@dataclass(frozen=True)
class KeptPiece:
    """A piece as a worker has prepared it.

    content: its digest. rows: by set. sound: no row breaks the contract; else nothing of it is kept.
    """

    piece: Piece
    content: bytes
    rows: Mapping[str, int]
    sound: bool


@dataclass(frozen=True)
class PieceCodes:
    """Where the codes of one set of a worker's rows are kept, piece by piece (`boosting.row_set.PartCodes`)."""

    cache: PieceCache
    name: str
    pieces: tuple[KeptPiece, ...]

    @property
    def rows(self) -> Sequence[int]:
        """How many rows of the set each piece has."""
        return [one.rows[self.name] for one in self.pieces]

    def load(self, part: int, binning: bytes) -> NDArray[Any] | None:
        """Return a piece's codes under the edges of this digest; None if they are not kept, or damaged."""
        one = self.pieces[part]
        if not one.sound:
            return None
        return self.cache.load_codes(one.piece, one.content, self.name, binning)

    def keep(self, part: int, binning: bytes, codes: NDArray[Any]) -> None:
        """Keep a piece's codes. Raises UserError if the cache cannot be written."""
        one = self.pieces[part]
        if one.sound and one.rows[self.name]:
            self.cache.store_codes(one.piece, one.content, self.name, binning, codes)
