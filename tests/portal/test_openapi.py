"""The API against its own OpenAPI document: schemathesis asks for what it allows and for what it forbids."""

import shutil

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lepton_pipelines.portal.app import create_app
from lepton_pipelines.portal.guarding import COOKIE

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ADDRESS = "http://127.0.0.1:8800"
DOCUMENT = create_app({}, ADDRESS).openapi()
del DOCUMENT["paths"]["/api/v1/session"]["delete"]  # it would end the session of all that comes after
schema = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig.discover())


@pytest.fixture(scope="module")
def owner(built, tmp_path_factory, visitors):
    """Harbour's owner, who may do everything, in a folder that may be written in."""
    var = tmp_path_factory.mktemp("fuzzed") / "var"
    shutil.copytree(built.var, var)
    world = type(built)(var, built.granted, built.open, built.held)
    return visitors(world).sign_in(world, "harbour")


@schema.parametrize()
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_announces(case, owner):
    asked = case.as_transport_kwargs(base_url=ADDRESS)
    asked.pop("cookies", None)
    if isinstance(asked.get("data"), bytes):
        asked["content"] = asked.pop("data")
    token = owner.cookies.get(COOKIE)
    try:
        answer = owner.request(**asked)
    finally:
        owner.cookies.clear()
        owner.cookies.set(COOKIE, token)
    case.validate_response(answer, checks=CHECKS)
