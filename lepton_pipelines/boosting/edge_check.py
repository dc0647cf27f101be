"""Whether edges that were agreed before still do for the rows that there are now.

They do if every bin still holds enough rows of the total, so that no edge comes to single out a few people, and if
no column lacks values that lacked none. Both follow from one sum of counts, so all parties find the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, CodeArray
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.edges import EdgeSearch
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.pool import spans
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.sums import Int64Array


@dataclass(frozen=True)
class CountBins:
    """Turn a set into codes by edges and count the rows in each bin.

    As the search for edges counts: rows without weight fill no bin, but a value that they lack is known to be missing.
    """

    binning: Binning
    schema: FeatureSchema
    name: str

    def run(self, shard: Shard) -> Int64Array:
        """Count; returns int64, for each column its bins, what lacks the value, and what has no code.

        Raises UserError for infinite values.
        """
        shard.encode(self.name, self.binning, self.schema, trained_on=False)
        codes, weight = shard.codes[self.name], shard.weight(self.name)
        starts = _starts(self.binning)
        counts = np.zeros((shard.pool.threads, starts[-1]), np.int64)
        places = spans(codes.rows, shard.pool.threads)
        tasks = [(_count, (codes.values, weight, starts, *span, counts[i])) for i, span in enumerate(places)]
        shard.pool.run(tasks)
        total: Int64Array = counts.sum(axis=0)
        return total


def still_hold(rows: Collective, name: str, schema: FeatureSchema, binning: Binning, search: EdgeSearch) -> bool:
    """Tell whether edges do for all parties' rows as they are now.

    name: the set that is trained on. search: what edges would be looked for. The rows are then in codes.
    """
    step = CountBins(binning, schema, name)
    total = rows.sum(step, "edges/kept", bound=search.rows, context=(binning.digest,))
    for feature, start in enumerate(_starts(binning)[:-1].tolist()):
        bins = int(binning.bins[feature])
        missing, unknown = total[start + bins : start + bins + 2].tolist()
        if unknown or (missing and not binning.missing[feature]):
            return False
        if not binning.categorical[feature] and bins > 1 and total[start : start + bins].min() < search.smallest_bin:
            return False
    return True


def _starts(binning: Binning) -> NDArray[np.int64]:
    """int64, columns + 1: where each column's counts begin, and the end."""
    return np.concatenate([[0], np.cumsum(binning.bins.astype(np.int64) + 2)])


@kernel
def _count(
    codes: CodeArray, weight: NDArray[np.float32], starts: NDArray[np.int64], lo: int, hi: int, counts: Int64Array
) -> None:
    features = len(starts) - 1
    for r in range(lo, hi):
        weightless = len(weight) > 0 and not weight[r] > 0
        for f in range(features):
            at = starts[f] + codes[r * features + f]
            if weightless and at < starts[f + 1] - 2:
                continue
            counts[at] += 1
