"""Documents that travel as sums arrive whole at everybody; what was exchanged is counted by purpose."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.organisation.wire import CountedSums, gather, gather_json, purpose_of
from lepton_pipelines.sums import LocalSums

MEMBERS = ("harbour", "north", "valley")


def together(work):
    """Let every member do its part at the same time; results by member."""
    federation = InProcessFederation(MEMBERS)
    with ThreadPoolExecutor(len(MEMBERS)) as threads:
        running = {name: threads.submit(work, name, federation.sums(name)) for name in MEMBERS}
        return {name: part.result() for name, part in running.items()}


@settings(max_examples=25, deadline=None)
@given(documents=st.tuples(*[st.binary(max_size=200)] * len(MEMBERS)))
def test_everybody_gets_everybody_s_document(documents):
    mine = dict(zip(MEMBERS, documents, strict=True))

    def work(name, sums):
        return gather(sums, "shown", member=name, members=MEMBERS, document=mine[name])

    assert all(told == mine for told in together(work).values())


def test_figures_arrive_to_the_last_bit():
    figures = {"north": [0.1, 1e-300, -7.25], "harbour": None, "valley": {"auc": 1 / 3}}

    def work(name, sums):
        return gather_json(sums, "shown", member=name, members=MEMBERS, document=figures[name])

    assert together(work)["valley"] == figures


def test_one_party_alone_needs_no_other():
    assert gather(LocalSums(), "x", member="me", members=["me"], document=b"abc") == {"me": b"abc"}


def test_traffic_is_counted_by_purpose_and_adds_up():
    def work(name, sums):
        counted = CountedSums(sums)
        counted.sum("binning/edges", np.ones(1000, np.int64), bound=10)
        for round_ in range(3):
            counted.sum(f"boosting/round {round_}/tree 0.0/1", np.ones(50, np.int64), bound=10)
        return counted.by_purpose(), counted.traffic

    for lines, traffic in together(work).values():
        assert [(line.purpose, line.sums) for line in lines] == [("bin edges", 1), ("gradient histograms", 3)]
        assert sum(line.bytes_sent for line in lines) == traffic.bytes_sent
        assert sum(line.bytes_received for line in lines) == traffic.bytes_received


@pytest.mark.parametrize(
    ("name", "purpose"),
    [
        ("boosting/round 12/tree 0.0/3", "gradient histograms"),
        ("boosting/round 12/scores", "scores, next tree's root"),
        ("binning/rows", "row counts"),
        ("evaluation/north alone", "evaluation"),
        ("shown/contents", "figures that may be shown"),
        ("drift/psi", "drift"),
    ],
)
def test_a_sum_s_name_tells_its_purpose(name, purpose):
    assert purpose_of(name) == purpose
