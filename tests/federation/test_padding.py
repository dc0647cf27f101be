"""With padded levels the hub sees the same number and lengths of sums in every round, whatever trees are grown."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import boost
from lepton_pipelines.data.encoding import Encoded
from lepton_pipelines.federation.hub import HubRun
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.organisation.rows import EncodedRows
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import LocalSums

NAMES = ("harbour", "north", "valley")
PARAMETERS = BoosterParameters.read({"objective": "binary:logistic", "max_depth": 5, "gamma": 1.0, "max_bin": 32})
ROUNDS, FEATURES = 5, 6


def part(member, *, simple=False):
    """A third of the rows; simple ones, which a stump tells apart, have small trees."""
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :FEATURES].astype(np.float32)
    label = (X[:, 0] > 15) if simple else y
    mine = slice(NAMES.index(member), None, len(NAMES))
    return Encoded(X[mine], label[mine].astype(np.float32), None, np.arange(len(X), dtype=np.uint64)[mine])


def trained(sums, encoded, **settings):
    names = tuple(f"x{i}" for i in range(FEATURES))
    rows = LocalRows(Shard({"train": EncodedRows(encoded)}, threads=1))
    schema = FeatureSchema(names, ("float",) * FEATURES, (0,) * FEATURES)
    told = {"rounds": ROUNDS, "features": schema, "evaluation": ("train",), **settings}
    return boost(PARAMETERS, rows, sums=sums, **told)


def in_process(*, simple, pad_levels):
    federation = InProcessFederation(NAMES)
    with ThreadPoolExecutor(len(NAMES)) as pool:
        ended = pool.map(
            lambda name: trained(federation.sums(name), part(name, simple=simple), pad_levels=pad_levels), NAMES
        )
        (model,) = {one.model for one in ended}
    federation.close()
    return model


def seen_by_the_hub(hub_of_three, monkeypatch, *, simple):
    """Cells and width of every sum of the training's rounds, as the hub reads them in the clear; and the model."""
    seen = {}
    say = HubRun.say

    def watched(self, now, member, request):
        if request.envelope.kind == wire.KIND_ANNOUNCE:
            told = wire.Announce.FromString(request.envelope.body)
            seen[request.envelope.number] = (told.cells, told.width)
        return say(self, now, member, request)

    monkeypatch.setattr(HubRun, "say", watched)
    ended = hub_of_three.everywhere(lambda sums: trained(sums, part(sums.member, simple=simple), pad_levels=True))
    (model,) = {one.model for one in ended}
    return [seen[number] for number in sorted(seen)], model


@pytest.mark.parametrize("simple", [False, True])
def test_the_hub_sees_the_same_lengths_in_every_round_and_the_model_is_the_unpadded_one(
    hub_of_three, monkeypatch, simple
):
    seen, model = seen_by_the_hub(hub_of_three, monkeypatch, simple=simple)
    assert model == in_process(simple=simple, pad_levels=False) == in_process(simple=simple, pad_levels=True)
    a_round = PARAMETERS.max_depth + 1  # a sum a level, and the scores
    rounds = [seen[place : place + a_round] for place in range(len(seen) - ROUNDS * a_round, len(seen), a_round)]
    assert all(one[:-1] == rounds[0][:-1] for one in rounds)
    lengths = [cells for cells, _ in rounds[0][:-1]]
    zero_words = 2 * lengths[0] - lengths[2]
    assert [(cells - zero_words) // (lengths[0] - zero_words) for cells in lengths] == [1, 1, 2, 4, 8]


def test_trees_without_a_largest_size_cannot_be_padded():
    for told in ({"grow_policy": "lossguide", "max_leaves": 8}, {"max_depth": 0, "grow_policy": "depthwise"}):
        parameters = BoosterParameters.read({"objective": "binary:logistic", **told})
        rows = LocalRows(Shard({"train": EncodedRows(part("north"))}, threads=1))
        schema = FeatureSchema(tuple("abcdef"), ("float",) * FEATURES, (0,) * FEATURES)
        with pytest.raises(UserError, match="pad_levels needs grow_policy depthwise and a max_depth"):
            boost(parameters, rows, sums=LocalSums(), rounds=1, features=schema, pad_levels=True)
