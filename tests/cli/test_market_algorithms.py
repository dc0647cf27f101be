"""An algorithm of others from its wheel to a run that may use it, with the commands that people type."""

import json
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
AVERAGING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
SPEC = re.search(r"```yaml\n(organisation: north\n.*?)```", PAGE, flags=re.DOTALL)[1]


def test_a_run_waits_for_every_organisation_to_allow_the_code_that_it_has_installed(
    command_line, example, build_wheel, pip_install, tmp_path
):
    wheel = build_wheel(AVERAGING)
    pip_install(wheel)
    (tmp_path / "averaging.yaml").write_text(re.sub("wheel: .*", f"wheel: {wheel.name}", SPEC))

    def market(name, *arguments):
        ended = command_line("market", *arguments, "--as", name, "--var", tmp_path / "var")
        assert ended.code == 0, ended.err
        return ended.out

    assert "north/averaging 1.0 is on offer" in market("north", "publish-algorithm", tmp_path / "averaging.yaml")
    (listed,) = json.loads(market("valley", "algorithms", "baseline", "--json"))
    assert listed["id"] == "north/averaging"
    shown = market("valley", "show-algorithm", "north/averaging")
    assert listed["code"] in shown and "the mean label" in shown and "digits" in shown
    pulled = market("valley", "pull-algorithm", "north/averaging").splitlines()[0]
    assert Path(pulled).read_bytes() == wheel.read_bytes()
    assert json.loads(market("valley", "verify-algorithm", "north/averaging", "--json"))["code"] == listed["code"]

    text = example.spec.read_text()
    training = "training: {algorithm: averaging, label: malignant, objective: 'binary:logistic', digits: 8}\n"
    example.spec.write_text(re.sub(r"training:\n.*?(?=split)", training, text, flags=re.DOTALL))
    refused = command_line("check", example.spec, "--var", example.var)
    assert refused.code == 2
    for name in ("north", "harbour", "valley"):
        assert re.search(f"{name}: policy.algorithms allows averaging by no digest.*{listed['code']}", refused.err)
        market(name, "use-algorithm", "north/averaging", "--organisation", example.folder / f"{name}.yaml")
    assert command_line("check", example.spec, "--var", example.var).code == 0
    assert "north/averaging 1.0 is not on offer any more" in market(
        "north", "withdraw-algorithm", "north/averaging", "--reason", "superseded"
    )
    assert "no algorithm is on offer" in market("valley", "algorithms")
