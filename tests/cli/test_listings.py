"""What lists or shows something also tells it as JSON, and how commands end is documented."""

import json
from pathlib import Path

import pytest
import typer.main

from lepton_pipelines.cli.app import app
from lepton_pipelines.cli.run_listing import going_on, show_runs
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome

ROOT = Path(__file__).parents[2]
LISTS = {
    "status", "show", "search", "usage", "models", "show-model", "compatible", "verify", "check", "algorithms",
    "show-algorithm", "verify-algorithm", "offers", "result", "contribution",
}  # fmt: skip


def commands(command=None, path=()):
    """Yield every command by its words."""
    command = command or typer.main.get_command(app)
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))
    if path and not hasattr(command, "commands"):
        yield path, command


@pytest.mark.parametrize(("path", "command"), [(p, c) for p, c in commands() if p[-1] in LISTS], ids=str)
def test_every_listing_takes_json(path, command):
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_every_command_stands_in_the_documentation():
    page = (ROOT / "docs" / "command-line.md").read_text()
    missing = [
        " ".join(path) for path, command in commands() if not command.hidden and f"`{' '.join(path)}" not in page
    ]
    assert not missing


def test_a_check_tells_rows_and_problems_as_json_and_ends_as_without_it(command_line, example):
    ended = command_line("check", example.spec, "--var", example.var, "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["ready"], told["problems"]) == (0, True, [])
    assert {one["organisation"]: one["checked"] for one in told["organisations"]}.keys() == set(told["members"])
    assert sum(one["checked"] for one in told["organisations"]) == 569
    assert any("max_bin" in note for note in told["notes"])
    example.change_rows("north", lambda rows: rows.assign(mean_radius=rows["mean_radius"] + 1000))
    ended = command_line("check", example.spec, "--var", example.var, "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["ready"]) == (2, False)
    assert all(problem in ended.err for problem in told["problems"])


def test_the_hub_tells_its_members_as_json(command_line, tmp_path):
    hub = HubHome.create(tmp_path / "hub", "127.0.0.1:7443")
    request = OrganisationHome.create(tmp_path / "north", "north").request()
    hub.admit(request, fingerprint=request.fingerprint)
    hub.close()
    told = json.loads(command_line("hub", "status", "--json").out)
    assert [one["organisation"] for one in told["members"]] == ["north"]
    assert told["members"][0]["shut_out"] is None and told["runs"] == []
    assert told["fingerprint"] in command_line("hub", "status").out


def test_a_run_under_way_says_whom_it_waits_for_and_until_when():
    one = {"status": "running", "sum": 59, "step": "upload", "bytes": 3_400_000, "seconds_left": 211}
    seen = going_on({**one, "seconds_since_seen_of_missing": {"valley": 42, "north": None}})
    assert seen == (
        "running, sum 59, upload; 3.4 MB so far; waiting for valley (last seen 42 s ago), north (not seen yet), "
        "then suspended in 211 s"
    )
    assert going_on({**one, "seconds_since_seen_of_missing": {}}) == "running, sum 59, upload; 3.4 MB so far"
    unsigned = going_on({**one, "status": "inviting", "seconds_since_seen_of_missing": {"valley": None}})
    assert unsigned == "inviting: waiting for valley to sign"


def test_of_many_runs_that_are_over_the_latest_are_shown_and_all_that_are_under_way(capsys):
    over = [{"run": f"r-{number}", "state": "finished", "line": "finished"} for number in range(30)]
    show_runs([{"run": "old", "state": "suspended", "line": "suspended: waits for valley"}, *over])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "  10 earlier runs are over (--json shows all)"
    assert shown[1] == "  run old: suspended: waits for valley"
    assert [line.split()[1] for line in shown[2:]] == [f"r-{number}:" for number in range(10, 30)]


def test_where_no_platform_runs_json_says_so_with_exit_code_1(command_line):
    ended = command_line("status", "--json")
    assert (ended.code, json.loads(ended.out)) == (1, {"running": False})


def test_violations_are_counted_in_json(command_line, example):
    example.change_rows("north", lambda rows: rows.assign(mean_radius=rows["mean_radius"] + 1000))
    contract = example.folder / "contract.odcs.yaml"
    ended = command_line("data", "check", example.folder / "north.yaml", "--contract", contract, "--json")
    told = json.loads(ended.out)
    assert ended.code == 2
    assert (told["rows"], told["kept"]) == (214, 0)
    assert [(each["column"], each["rule"], each["count"]) for each in told["violations"]] == [
        ("mean_radius", "range", 214)
    ]
