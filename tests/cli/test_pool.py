"""The pool with the commands that people type: offered, reserved, worked on, metered, given back."""

import json


def test_computers_are_offered_reserved_worked_on_and_given_back(command_line, tmp_path):
    (tmp_path / "offer.yaml").write_text(
        "offer: evenings\norganisation: harbour\ntitle: Spare evenings\ncores: 2\nmemory: 4 GB\nquota: 10\n"
        "price: {amount: 0.05, currency: EUR}\n"
    )
    (tmp_path / "job.yaml").write_text("work: benchmark\nrows: 1000\ncolumns: 3\nrounds: 2\n")
    (tmp_path / "training.yaml").write_text("work: training\n")

    def pool(name, *arguments, code=0):
        ended = command_line("pool", *arguments, "--as", name, "--var", tmp_path / "var")
        assert ended.code == code, ended.out + ended.err
        return ended.out if code < 2 else ended.err

    wanted = ["--work", "benchmark", "--cores", 2, "--memory", "1 GB", "--hours", 1]
    pool("north", "offers")
    assert "harbour/evenings is on offer, version 1" in pool("harbour", "offer", tmp_path / "offer.yaml")
    (listed,) = json.loads(pool("north", "offers", "--json"))
    assert (listed["offer"], listed["cores"], listed["price"]["amount"]) == ("harbour/evenings", 2, 0.05)
    held = pool("north", "reserve", *wanted).splitlines()[0]
    assert f"reserved are {held} of north" in pool("valley", "reserve", *wanted, code=2)
    assert "stays where the rows are" in pool("valley", "reserve", *["--work", "training", *wanted[2:]], code=2)
    assert "stays where the rows are" in pool("north", "run", held, tmp_path / "training.yaml", code=2)
    job = pool("north", "run", held, tmp_path / "job.yaml").strip()
    assert json.loads(pool("north", "result", job, "--json", code=1))["outcome"] == "asked"
    assert f"{job} done" in pool("harbour", "serve", tmp_path / "offer.yaml", "--once")
    told = json.loads(pool("north", "result", job, "--json"))
    assert told["outcome"] == "done" and told["result"]["rows_a_second"] > 0
    status = json.loads(pool("valley", "status", "--json"))
    assert status["core_hours"]["by_run"][job]["organisation"] == "north"
    assert status["offers"][0]["free"]["cores"] == 0
    pool("north", "release", held, "--reason", "done early")
    assert "2 of 2 cores free" in pool("valley", "status")
    assert "not on offer any more" in pool("harbour", "withdraw", "harbour/evenings", "--reason", "moved")
