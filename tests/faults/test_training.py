"""Training over the network: three processes and a hub, the same model bytes as in one process."""

import importlib.util
import threading
from pathlib import Path

import pytest

from lepton_pipelines.federation.in_process import InProcessFederation

NAMES = ("harbour", "north", "valley")
PROGRAM = Path(__file__).with_name("training_program.py")


@pytest.fixture(scope="module")
def in_process_model():
    """The digest of the model that three threads train together."""
    spec = importlib.util.spec_from_file_location("training_program", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    federation, models = InProcessFederation(NAMES), {}

    def part(name):
        with federation.sums(name) as sums:
            models[name] = program.model_of(name, sums)

    threads = [threading.Thread(target=part, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    federation.close()
    (model,) = set(models.values())
    return model


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_over_the_network_gives_the_model_of_the_in_process_federation(processes, in_process_model):
    parts = [processes.start(name, program=PROGRAM) for name in NAMES]
    assert processes.finish(parts) == {in_process_model}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fatal", [3, 20, 45])
def test_an_organisation_killed_in_training_repeats_from_its_journal_and_the_model_is_the_same(
    processes, in_process_model, fatal
):
    steady = [processes.start(name, program=PROGRAM) for name in NAMES[:2]]
    assert processes.start(NAMES[2], "--die", str(fatal), program=PROGRAM).gone() == -9
    again = processes.start(NAMES[2], program=PROGRAM)
    assert processes.finish([*steady, again]) == {in_process_model}
