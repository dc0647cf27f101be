"""Keeps a training's progress, on disk and for workers that are lost."""

import time
from typing import TYPE_CHECKING

from lepton_pipelines.boosting.progress import Progress
from lepton_pipelines.organisation.rows import Restore

if TYPE_CHECKING:
    from lepton_pipelines.organisation.run import OrganisationRun

CHECKPOINT_SECONDS = 1.0  # trees that take less are kept several at a time


class CheckpointKeeper:
    """Keeps a training's progress, on disk and for workers that are lost, as often as it is worth it."""

    def __init__(self, part: "OrganisationRun") -> None:
        self._part = part
        self._rounds = part.resumed_at
        self._last = time.monotonic()

    def keep(self, reached: Progress) -> None:
        """Keep the progress after a round.

        Every round at every organisation alike, or they would not find a round that all of them have.
        """
        part = self._part
        self._rounds += 1
        if not part.repeats:
            part.own_folder.write_checkpoint(self._rounds, reached.to_bytes())
        if part.record is not None:
            part.record.tree(self._rounds, part.shared(reached.model))
        if part.product is not None:
            part.product.check()
        if time.monotonic() - self._last < CHECKPOINT_SECONDS:
            return  # repeating the steps of a second is cheaper than sending every worker the model
        self._last = time.monotonic()
        part.rows.checkpoint(
            Restore(part.parameters, part.binning, part.features, "train", part.evaluation, reached.model)
        )
