"""What an agent deletes by itself, on the hub's word of what is over: never a run that can still be resumed."""

import os
import time
from contextlib import closing

import numpy as np

from lepton_pipelines.cli.serving import Serving
from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.runs import propose


def test_an_agent_clears_what_its_policy_no_longer_keeps_and_leaves_a_run_that_can_be_resumed(hub_of_three, capsys):
    home, address = hub_of_three.homes["north"], f"localhost:{hub_of_three.port}"
    standing = hub_of_three.manifest.model_copy(update={"run": "standing"})
    propose(standing, home, address=address)
    home.run_folder("standing").joinpath("journal.sqlite").touch()
    file = hub_of_three.folder / "north.yaml"
    file.write_text("organisation: north\ndata: rows.csv\npolicy: {kept_days: 30}\n")

    def part(sums):
        sums.sum("s", np.ones(3, np.int64), bound=9)
        sums.finish(b"model")

    def age(run, days):
        for path in home.run_folder(run).rglob("*"):
            os.utime(path, (time.time() - days * 86400,) * 2)

    def journals():
        return sorted(path.parent.name for path in (home.folder / "runs").glob("*/journal.sqlite"))

    age("standing", 31)
    serving = Serving(file, [], home.folder, hub_of_three.folder / "var")
    with closing(hub_of_three.connect("north")) as connection:
        hub_of_three.everywhere(part)
        age("r-7f3a", 29)
        serving._clear(home, connection)
        assert journals() == ["r-7f3a", "standing"]
        age("r-7f3a", 31)
        serving._clear(home, connection)
    assert journals() == ["standing"]
    assert "run r-7f3a was over for 30 days: its journal, checkpoints and log were deleted" in capsys.readouterr().out
    with closing(RunHistory(home.folder)) as history:
        assert history.forgotten("r-7f3a") and not history.forgotten("standing")
