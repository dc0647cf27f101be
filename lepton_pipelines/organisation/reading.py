"""An organisation's rows read onto its workers, told piece by piece while it goes on."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

from lepton_pipelines.compute.pinned import PinnedRows
from lepton_pipelines.compute.reporting import hearing
from lepton_pipelines.data.sources import Source
from lepton_pipelines.organisation.progress import PiecesRead
from lepton_pipelines.organisation.rows import ReadPieces
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit

if TYPE_CHECKING:
    from distributed import Client


def read_rows(
    client: "Client",
    source: Source,
    split: KeySplit | TimeSplit,
    *,
    quarantine: str | None,
    on_loss: Callable[[str], None],
    tell: Callable[[PiecesRead], None],
) -> PinnedRows:
    """Have every worker read its pieces, and say how far that has come. Arguments as of `ReadPieces`, `PinnedRows`.

    Raises what reading raised.
    """
    pieces, topic = source.pieces(), f"lepton-reading-{uuid4().hex}"
    with hearing(client, topic, _Counted(source, tell)):
        return PinnedRows(
            client,
            ReadPieces(source, split, quarantine, topic),
            pieces,
            [max(piece.rows, 0) or piece.file.size for piece in pieces],
            on_loss=on_loss,
        )


class _Counted:
    """Adds up what workers say of pieces; one that is read again, because its worker was lost, counts once."""

    def __init__(self, source: Source, tell: Callable[[PiecesRead], None]) -> None:
        self._name, self._of, self._total = source.organisation, len(source.pieces()), source.rows
        self._tell = tell
        self._rows: dict[int, int] = {}
        self._done: set[int] = set()

    def __call__(self, told: tuple[int, int, bool]) -> None:
        index, rows, done = told
        self._rows[index] = max(rows, self._rows.get(index, 0))
        if done:
            self._done.add(index)
        self._tell(PiecesRead(self._name, len(self._done), self._of, sum(self._rows.values()), self._total))
