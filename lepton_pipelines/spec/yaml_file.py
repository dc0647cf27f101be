"""YAML files into models, with errors that say file, line and field, all of them at once."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from .errors import UserError
from .fields import did_you_mean, nearest

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]

# A spec is some dozens of nodes and a contract some thousands; more means aliases that multiply.
_MOST_NODES = 200_000

# Other libraries' names for what XGBoost's command line and this spec call differently.
_SYNONYMS = {
    "n_estimators": "rounds",
    "num_boost_round": "rounds",
    "num_round": "rounds",
    "n_rounds": "rounds",
    "orgs": "organisations",
    "organizations": "organisations",
    "organization": "organisation",
    "members": "organisations",
    "target": "label",
}


@dataclass
class Document:
    """A YAML file's plain data, and the line (from 1) on which each of its keys and items stands."""

    path: Path
    data: Any
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """Return the line of the entry, or of the nearest entry around it that stands in the file."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def at(self, location: Location) -> str:
        """Return "pipeline.yaml:10"."""
        return f"{self.path.name}:{self.line(location)}"


def read_yaml(path: Path | str) -> Document:
    """Read a YAML 1.2 file.

    Raises UserError for a file that is missing, not UTF-8, not YAML, indented with tabs, or that gives a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.{_other_file(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. Name the YAML file in it.") from None
    except PermissionError:
        raise UserError(f"{path} may not be read by this user. Change its permissions.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path.name}:{line} is not UTF-8. Save the file as UTF-8.") from None
    return read_yaml_text(text, path)


def read_yaml_text(text: str, path: Path) -> Document:
    """Read YAML 1.2 from a text. path: what errors call it.

    Raises UserError for what is not YAML, empty, indented with tabs, or gives a key twice.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(StringIO(text))
    except MarkedYAMLError as error:
        raise UserError(_syntax_problem(path, text, error)) from None
    except YAMLError as error:
        raise UserError(f"{path.name} is not YAML: {error}") from None
    if root is None:
        raise UserError(f"{path} is empty.")
    return _Reader(path, yaml).read(root)


def read_model(model: type[Model], path: Path | str) -> Model:
    """Read a YAML file into a model.

    Raises UserError with every problem that was found, each as "file:line  field what".
    """
    return validate(model, read_yaml(path))


def validate(model: type[Model], document: Document) -> Model:
    """Make the model from a file's data. Raises UserError with every problem, in the order of the lines."""
    if not isinstance(document.data, dict):
        raise UserError(f"{document.at(())}  must hold fields like `name: value`, not {_kind(document.data)}.")
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise UserError(_problems(model, document, error)) from None


class _Reader:
    """Turns composed nodes into plain data, keeping their lines."""

    def __init__(self, path: Path, yaml: YAML) -> None:
        self.document = Document(path, None)
        self.yaml = yaml
        self.problems: list[str] = []
        self.nodes = 0

    def read(self, root: Node) -> Document:
        self.document.data = self._plain(root, (), ())
        if self.problems:
            raise UserError(self.problems)
        return self.document

    def _plain(self, node: Node, location: Location, around: tuple[int, ...]) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        self.document.lines.setdefault(location, line)
        if id(node) in around or self.nodes > _MOST_NODES:
            raise UserError(f"{self.document.path.name}:{line} holds aliases without end. Write the values out.")
        around = (*around, id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, location, around)
        if isinstance(node, SequenceNode):
            return [self._plain(item, (*location, i), around) for i, item in enumerate(node.value)]
        return self.yaml.constructor.construct_object(node, deep=True)

    def _mapping(self, node: MappingNode, location: Location, around: tuple[int, ...]) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            name = self.document.path.name
            if isinstance(key_node, MappingNode | SequenceNode):
                self.problems.append(f"{name}:{line}  a key must be a word, not a list or a mapping.")
                continue
            if key_node.value == "<<":
                self.problems.append(f"{name}:{line}  merge keys (<<) are not read. Write the fields out.")
                continue
            key = self.yaml.constructor.construct_object(key_node, deep=True)
            inner = (*location, key)
            if key in mapping:
                first = self.document.lines[inner]
                self.problems.append(
                    f"{name}:{line}  {_dotted(inner)} is given twice (first on line {first}). Take one out."
                )
            else:
                self.document.lines[inner] = line
                mapping[key] = self._plain(value_node, inner, around)
        return mapping


def _other_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor does the folder {path.parent}."
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"})
    return did_you_mean(path.name, names)


def _syntax_problem(path: Path, text: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    lines = text.splitlines() or [""]
    # The scanner often stumbles a line after the tab.
    for candidate in (number, number - 1, number + 1):
        if 0 <= candidate < len(lines):
            indent = lines[candidate][: len(lines[candidate]) - len(lines[candidate].lstrip())]
            if "\t" in indent:
                return f"{path.name}:{candidate + 1}  is indented with a tab. YAML wants spaces: replace it."
    problem = error.problem or error.context or "cannot be read"
    if "\t" in problem or "\\t" in problem:
        return f"{path.name}:{number + 1}  holds a tab where YAML wants spaces: replace it."
    return f"{path.name}:{number + 1}  is not YAML: {problem}. Check quotes, colons and indentation there."


def _problems(model: type[BaseModel], document: Document, error: ValidationError) -> list[str]:
    found: dict[str, int] = {}
    for details in error.errors(include_url=False):
        location = tuple(_in_file(details["loc"], document.data))
        text = _problem(model, location, dict(details), document)
        found.setdefault(text, document.line(location))
    return sorted(found, key=lambda text: found[text])


def _in_file(loc: Location, data: Any) -> Iterator[str | int]:
    """Leave out what pydantic puts between: the tags of the branches of a union."""
    for place, step in enumerate(loc):
        inside = step in data if isinstance(data, dict) else isinstance(data, list) and step in range(len(data))
        if inside:
            data = data[step]
            yield step
        elif place == len(loc) - 1 and isinstance(data, dict) and isinstance(step, str) and step.isidentifier():
            # A missing field stands last and in no data.
            yield step


def _problem(model: type[BaseModel], location: Location, details: dict[str, Any], document: Document) -> str:
    where, kind = document.at(location), details["type"]
    name = _dotted(location) or "the file"
    if kind == "extra_forbidden":
        return f"{where}  {_unknown(model, location)}"
    if kind == "missing":
        around = location[:-1]
        return f"{document.at(around)}  {name} is missing. Add it."
    message = str(details["msg"])
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    if kind in {"value_error", "assertion_error"} or not kind.isidentifier() or kind in _CUSTOM_KINDS:
        return f"{where}  {name} {message}." if not message.endswith((".", "?")) else f"{where}  {name} {message}"
    given = "" if isinstance(details.get("input"), (dict, list)) else f" (it is {details.get('input')!r})"
    if kind in {"literal_error", "enum"}:
        expected = details.get("ctx", {}).get("expected", "")
        words = [w.strip("'\" ") for w in expected.replace(" or ", ", ").split(", ")]
        return f"{where}  {name} must be {expected}{given}.{did_you_mean(str(details.get('input')), words)}"
    return f"{where}  {name}: {message[:1].lower()}{message[1:]}{given}."


_CUSTOM_KINDS = {"reference", "secret", "spec"}


def _unknown(model: type[BaseModel], location: Location) -> str:
    key = str(location[-1])
    around = _models_at(model, location[:-1])
    noun = next((getattr(m, "noun", "field") for m in around), "field")
    fields = [f.alias or n for m in around for n, f in m.model_fields.items()]
    text = f"{_dotted(location)} is not a {noun}."
    if (synonym := _SYNONYMS.get(key)) in fields:
        return f"{text} Did you mean {synonym}?"
    if guess := nearest(key, fields):
        return f"{text} Did you mean {guess}?"
    for place, other in _all_models(model):
        if key in other.model_fields and place:
            return f"{text} It belongs under {place}."
    return f"{text} Known are: {', '.join(dict.fromkeys(fields))}."


def _models_at(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """Return the models that may stand at a place of the file."""
    models = [model]
    for step in location:
        inner = [m for outer in models if step in outer.model_fields for m in _models_in(outer, str(step))]
        models = inner or models
    return models


def _models_in(model: type[BaseModel], field_name: str) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        for inner in get_args(annotation):
            walk(inner)

    walk(model.model_fields[field_name].annotation)
    return found


def _all_models(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    for name in model.model_fields:
        for inner in _models_in(model, name):
            yield from _all_models(inner, f"{place}.{name}" if place else name)


def _dotted(location: Location) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in location).lstrip(".")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")
