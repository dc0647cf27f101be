"""Organisations as processes, one of which is killed for good, or comes back when the others have gone on."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = ("coast", "harbour", "north", "valley")
PROGRAM = Path(__file__).with_name("changing_program.py")
LEFT = NAMES[1:]


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def simulated():
    """The model of threads whose members change as told: stages of members, and after how many sums each ends."""
    scheduled = loaded(Path(__file__).parents[1] / "federation" / "scheduled.py")
    program = loaded(PROGRAM)

    def model(*stages):
        run = scheduled.Scheduled([scheduled.Stage(*stage) for stage in stages])
        found = run.run(lambda sums: program.model_of(sums.member, sums))
        (one,) = {value for value in found.values() if isinstance(value, str)}
        return one

    return model


def ended(parts):
    found = [one.until("model") for one in parts]
    assert all(one.gone() == 0 for one in parts)
    (model,) = {one["model"] for one in found}
    (ends,) = {tuple(one["ends"]) for one in found}
    return model, ends, found[0]


def test_a_run_goes_on_without_who_was_killed_and_gives_the_model_of_the_same_schedule(four_that_go_on, simulated):
    parts = [four_that_go_on.start(name, program=PROGRAM) for name in LEFT]
    assert four_that_go_on.start("coast", "--die", "31", program=PROGRAM).gone() == -9
    model, (end,), last = ended(parts)
    assert last["members"] == [list(LEFT)] and last["stage"] == "r.1"
    assert end in (31, 32)
    assert model == simulated((NAMES, end), (LEFT, None))
    told = [fact["text"] for one in parts for fact in one.said if fact["event"] == "told"]
    assert "run r goes on without coast, as r.1 of harbour, north, valley" in told


def test_who_comes_back_is_let_in_and_all_end_with_one_model(four_that_go_on, simulated):
    parts = [four_that_go_on.start(name, "--slow", "0.3", program=PROGRAM) for name in LEFT]
    assert four_that_go_on.start("coast", "--die", "20", program=PROGRAM).gone() == -9
    parts[0].until("ready", stage="r.1")
    parts[0].until("sum", name="boosting/round 4/scores")
    back = four_that_go_on.start("coast", program=PROGRAM)
    model, ends, last = ended([*parts, back])
    assert last["stage"] == "r.2" and last["members"] == [list(NAMES)]
    assert model == simulated((NAMES, ends[0]), (LEFT, ends[1]), (NAMES, None))


def test_too_few_are_left_and_the_run_stands_still(four_that_go_on):
    steady = [four_that_go_on.start(name, program=PROGRAM) for name in LEFT[:2]]
    lost = [four_that_go_on.start(name, "--die", "20", program=PROGRAM) for name in ("coast", "valley")]
    assert {one.gone() for one in lost} == {-9}
    for one in steady:
        with pytest.raises(AssertionError, match="ended with 1"):
            one.until("model")
    said = [fact for one in steady for fact in one.said]
    assert not [fact for fact in said if fact["event"] == "model"]
    assert [fact for fact in said if fact["event"] == "told" and "2 members are left, and it needs 3" in fact["text"]]
