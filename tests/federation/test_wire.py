"""Messages: the generated module, canonical encodings, manifests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.federation.encoding import canonical, digest
from lepton_pipelines.federation.manifest import Manifest, Member, choose_protocol, read_manifest
from lepton_pipelines.spec.errors import UserError

ROOT = Path(__file__).parents[2]
PROTO = "lepton_pipelines/federation/wire/federation.proto"


@pytest.mark.parametrize("name", ["federation_pb2.py", "federation_pb2.pyi"])
def test_the_generated_module_is_the_one_of_the_proto_file(tmp_path, name):
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", str(ROOT / PROTO)], check=True)
    here = (ROOT / PROTO).with_name(name).read_text()
    assert (tmp_path / PROTO).with_name(name).read_text() == here


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_the_canonical_encoding_is_json_and_the_same_however_it_was_ordered(value):
    encoded = canonical(value)
    assert canonical(json.loads(encoded)) == encoded
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == encoded


def test_what_readers_could_take_for_different_things_has_no_encoding():
    for value in (1.5, {1: 2}, {"a": object()}, float("nan")):
        with pytest.raises(TypeError):
            canonical(value)
    assert canonical([2**53, -(2**53) + 1]) == b'["9007199254740992",-9007199254740991]'
    assert digest("one", "x") != digest("two", "x")


def manifest(**fields):
    usual = {
        "run": "r-1",
        "hub": "aa" * 32,
        "members": tuple(Member(name=name, key=f"{i:064x}") for i, name in enumerate(("a", "b", "c"))),
        "spec": "00" * 32,
        "contract": "11" * 32,
        "code": "test",
    }
    return Manifest(**{**usual, **fields})


def test_a_manifest_survives_travel_and_every_field_is_in_its_digest():
    one = manifest()
    assert read_manifest(one.encoded()) == one
    for field, value in {"run": "r-2", "spec": "22" * 32, "grace_seconds": 7, "privacy": {"epsilon": 1}}.items():
        assert manifest(**{field: value}).digest() != one.digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=2), "has version 2, this code reads version 1"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda m: m["members"].reverse(), "members are named once each and in order"),
        (lambda m: m["members"].pop(), "2 members are too few"),
        (lambda m: m["members"][1].update(key=m["members"][0]["key"]), "two members have the same key"),
        (lambda m: m.update(run="../../etc"), "run: String should match pattern"),
        (lambda m: m.pop("spec"), "spec: Field required"),
    ],
)
def test_a_manifest_that_is_not_in_order_is_refused_with_the_reason(change, message):
    fields = json.loads(manifest().encoded())
    change(fields)
    with pytest.raises(UserError, match=message):
        read_manifest(canonical(fields))


def test_a_manifest_that_two_readers_could_take_for_different_ones_is_refused():
    with pytest.raises(UserError, match="not in its canonical encoding"):
        read_manifest(manifest().encoded() + b" ")
    for data in (b"", b"[]", b"\x80\x04K\x01.", b"{" * 100_000, b"x" * (1 << 21)):
        with pytest.raises(UserError):
            read_manifest(data)


def test_protocol_versions_meet_at_the_newest_that_both_speak():
    assert choose_protocol((1, 3), (2, 5), we="the hub", they="north") == 3
    with pytest.raises(UserError, match=r"north speaks protocol 1 to 1, the hub 2 to 3: none in common\. Update north"):
        choose_protocol((2, 3), (1, 1), we="the hub", they="north")
