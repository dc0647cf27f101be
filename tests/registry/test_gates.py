import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.registry.gates import Candidate, decide, improvement, passed
from lepton_pipelines.spec.gates import Gates


def gates(**settings):
    return Gates.model_validate(settings)


def outcome(spec, candidate):
    return [(one.name, one.figure, one.limit, one.passed) for one in decide(spec, "binary:logistic", candidate)]


def test_each_gate_names_figure_and_limit():
    spec = gates(auc={"min": 0.95}, calibration_error={"max": 0.05})
    found = outcome(spec, Candidate({"auc": 0.994, "calibration_error": 0.08}))
    assert found == [("AUC ≥ 0.95", 0.994, 0.95, True), ("calibration error ≤ 0.05", 0.08, 0.05, False)]


def test_a_failed_gate_says_by_how_much():
    (result,) = decide(gates(auc={"min": 0.95}), "binary:logistic", Candidate({"auc": 0.9}))
    assert result.message == "AUC is 0.90, 0.05 too low."
    assert not passed([result])


def test_a_figure_that_was_not_measured_fails():
    (result,) = decide(gates(auc={"min": 0.95}), "binary:logistic", Candidate({}))
    assert not result.passed
    assert "was not measured" in result.message


def test_both_ends_of_a_limit_are_gates():
    spec = gates(rmse={"min": 1, "max": 3})
    assert [one[3] for one in outcome(spec, Candidate({"rmse": 0.5}))] == [False, True]


def test_the_worst_organisation_is_named():
    spec = gates(worst_organisation={"auc": {"min": 0.9}})
    own = {"north": {"auc": 0.95}, "valley": {"auc": 0.85}}
    (result,) = decide(spec, "binary:logistic", Candidate({}, ["north", "valley"], own))
    assert (result.figure, result.passed) == (0.85, False)
    assert "valley" in result.message
    assert "north" not in result.message


def test_an_organisation_that_hides_its_figure_still_gives_its_verdict():
    spec = gates(worst_organisation={"auc": {"min": 0.9}})
    candidate = Candidate({}, ["north", "valley"], {"north": {"auc": 0.95}}, {"valley": {"auc": False}})
    (result,) = decide(spec, "binary:logistic", candidate)
    assert (result.figure, result.passed) == (0.95, False)
    assert result.message == "AUC ≥ 0.90 is not kept at valley."


def test_an_organisation_without_a_figure_cannot_vouch():
    spec = gates(worst_organisation={"auc": {"min": 0.9}})
    (result,) = decide(spec, "binary:logistic", Candidate({}, ["north", "valley"], {"north": {"auc": 0.95}}))
    assert not result.passed
    assert "not measured at valley" in result.message


def test_fairness_size_and_latency_are_gates():
    spec = gates(
        fairness={"group": "sex", "equal_opportunity_gap": {"max": 0.1}},
        size_mb={"max": 5},
        latency_ms={"max": 1},
    )
    candidate = Candidate({}, gaps={"equal_opportunity_gap": 0.2}, size_bytes=2_000_000, latency_ms=3.0)
    assert [(one[0], one[3]) for one in outcome(spec, candidate)] == [
        ("equal opportunity gap by sex ≤ 0.10", False),
        ("model size in MB ≤ 5.00", True),
        ("latency in ms a row ≤ 1.00", False),
    ]


def test_without_a_champion_nothing_is_compared():
    assert decide(gates(), "binary:logistic", Candidate({"auc": 0.9})) == []


def test_an_equal_model_is_not_better_by_what_is_required():
    (result,) = decide(gates(), "binary:logistic", Candidate({"auc": 0.99}, champion={"auc": 0.99}))
    assert not result.passed
    assert result.message == "AUC +0.000, not better by the required 0.001."


@given(
    st.sampled_from(["auc", "logloss", "rmse", "r2"]),
    st.floats(-1e3, 1e3),
    st.floats(0, 10),
    st.floats(0.001, 1),
)
def test_a_gain_of_what_is_required_passes_in_the_metrics_own_direction(metric, champion, extra, required):
    sign = 1 if metric in ("auc", "r2") else -1
    assert improvement(metric, required, champion + sign * (required + extra), champion).passed == (
        sign * ((champion + sign * (required + extra)) - champion) >= required - 1e-12
    )
    assert not improvement(metric, required, champion - sign * extra, champion).passed


def test_any_improvement_will_do_where_none_is_required():
    assert improvement("rmse", 0.0, 1.9, 2.0).passed
    assert not improvement("rmse", 0.0, 2.0, 2.0).passed


@pytest.mark.parametrize(("change", "told"), [(0.0123, "+0.012"), (0.0, "+0.000"), (1e-6, "+1.0e-06")])
def test_changes_too_small_for_three_digits_are_not_written_as_zero(change, told):
    assert f"AUC {told}" in improvement("auc", 0.001, 0.5 + change, 0.5).message
