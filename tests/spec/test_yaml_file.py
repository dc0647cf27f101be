"""Reading YAML: what is wrong with a file is said by line, whatever is wrong."""

import pytest

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.yaml_file import read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2\n", "spec.yaml:2  is indented with a tab. YAML wants spaces: replace it."),
        ("a:\n\t- 1\n", "spec.yaml:2  is indented with a tab. YAML wants spaces: replace it."),
        ("a: 1\nb: 2\na: 3\n", "spec.yaml:3  a is given twice (first on line 1). Take one out."),
        ("a: {b: 1, c: 2,\n  b: 3}\n", "spec.yaml:2  a.b is given twice (first on line 1). Take one out."),
        ("a: [1, 2\n", "spec.yaml:2  is not YAML"),
        ('a: "open\n', "is not YAML"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("a: &x {b: *x}\n", "spec.yaml:1 holds aliases without end"),
        ("? [1, 2]\n: 3\n", "spec.yaml:1  a key must be a word"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "spec.yaml:3  merge keys (<<) are not read"),
    ],
)
def test_what_is_wrong_is_said_by_line(tmp_path, text, message):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_yaml(path)
    assert message in str(refused.value)


def test_both_of_two_duplicates_are_told(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("a: 1\na: 2\nb: 1\nb: 2\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_yaml(path)
    assert len(refused.value.problems) == 2


def test_a_file_that_is_not_utf8_is_refused_by_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_bytes("name: x\ntitle: Zürich\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"spec.yaml:2 is not UTF-8"):
        read_yaml(path)


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "pipeline.yaml").write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pipelin.yaml does not exist. Did you mean pipeline.yaml?"):
        read_yaml(tmp_path / "pipelin.yaml")


def test_aliases_that_multiply_are_stopped(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match="aliases without end"):
        read_yaml(path)


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("# first\na:\n  b: 1\n  c:\n    - x\n    - y\n", encoding="utf-8")
    document = read_yaml(path)
    assert document.data == {"a": {"b": 1, "c": ["x", "y"]}}
    assert document.line(("a", "b")) == 3
    assert document.line(("a", "c", 1)) == 6
    assert document.at(("a", "c", 1, "deeper")) == "spec.yaml:6"
