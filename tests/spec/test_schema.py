"""The exported JSON Schemas, and the help texts that editors and run forms take from the models."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from lepton_pipelines.spec.schema import MODELS, json_schema, write_schemas

ROOT = Path(__file__).parents[2]


def _fields(schema):
    models = {schema["title"]: schema, **schema["$defs"]}
    return [(m, f, told) for m, model in models.items() for f, told in model.get("properties", {}).items()]


@pytest.mark.parametrize("name", MODELS)
def test_every_field_has_a_title_and_help(name):
    # Where field and model say the same, the help stands at the model.
    bare = [f"{m}.{f}" for m, f, told in _fields(json_schema(name)) if not told.keys() & {"description", "$ref"}]
    assert bare == []


@pytest.mark.parametrize("name", MODELS)
def test_the_schemas_in_docs_are_those_of_the_models(name, tmp_path):
    write_schemas(tmp_path)
    committed = ROOT / "docs" / "schema" / f"{name}.schema.json"
    command = f"lepton schema {name} > docs/schema/{name}.schema.json"
    assert json.loads(committed.read_text(encoding="utf-8")) == json_schema(name), f"run: {command}"


SPECS = [p for p in sorted((ROOT / "examples").glob("*/*.yaml")) if not p.name.endswith(".odcs.yaml")]


@pytest.mark.parametrize("path", SPECS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_example_specs_fit_the_schemas(path):
    data = YAML(typ="safe", pure=True).load(path)
    name = "pipeline" if "organisations" in data else "organisation"
    jsonschema.validate(json.loads(json.dumps(data, default=str)), json_schema(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_about_the_spec_names_every_field(name):
    page = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    fields = {f for model, f, _ in _fields(json_schema(name)) if model not in {"Training", "Metric", "Improvement"}}
    assert sorted(f for f in fields if not re.search(rf"\b{f}\b", page)) == []
