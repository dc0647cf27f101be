"""Rows and contracts to read them by, and a real object store on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import KeySplit

ROOT = Path(__file__).parents[2]


def _document(*, minimum_rows: int = 1) -> dict:
    def ours(**value):
        return [{"property": "lepton", "value": value}]

    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "patients",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": "patients",
                "customProperties": ours(minimum_rows=minimum_rows),
                "properties": [
                    {"name": "patient_id", "logicalType": "integer", "primaryKey": True},
                    {
                        "name": "radius",
                        "logicalType": "number",
                        "logicalTypeOptions": {"minimum": 0, "maximum": 100},
                        "customProperties": ours(unit="mm", missing=[-9, "?"]),
                    },
                    {"name": "visits", "logicalType": "integer"},
                    {
                        "name": "stage",
                        "logicalType": "string",
                        "customProperties": ours(categories=["I", "II", "III"], group=True),
                    },
                    {"name": "smoker", "logicalType": "boolean"},
                    {"name": "city", "logicalType": "string", "customProperties": ours(role="unused", personal=True)},
                    {
                        "name": "malignant",
                        "logicalType": "integer",
                        "required": True,
                        "customProperties": ours(role="label", categories=[0, 1]),
                    },
                ],
            }
        ],
    }


@pytest.fixture
def document():
    """The contract's document, to be changed at will."""
    return _document()


@pytest.fixture
def contract(document):
    return parse_contract(document)


def _patients(n: int = 40, *, first: int = 4001) -> pd.DataFrame:
    draw = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "patient_id": np.arange(first, first + n, dtype=np.int64),
            "radius": np.where(draw.random(n) < 0.1, np.nan, draw.uniform(0, 100, n)),
            "visits": draw.integers(0, 9, n),
            "stage": draw.choice(["I", "II", "III"], n),
            "smoker": draw.random(n) < 0.5,
            "city": "Lyon",
            "malignant": np.arange(n) % 2,
        }
    )


@pytest.fixture
def patients():
    """Makes rows that keep the contract."""
    return _patients


@pytest.fixture
def organisation():
    """Makes the file of an organisation whose data lie at a URL."""

    def make(url: object, name: str = "harbour", **options: object) -> Organisation:
        return Organisation.model_validate({"organisation": name, "data": {"url": str(url), **options}})

    return make


@pytest.fixture
def split():
    return KeySplit(key="patient_id", train=0.6, valid=0.2, test=0.2)


def _server_environment() -> Path:
    """An environment of its own for moto, whose botocore is another than s3fs's; made once, kept in the checkout."""
    folder = ROOT / ".venv-moto"
    server = folder / "bin" / "moto_server"
    if not server.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run(
            [folder / "bin" / "pip", "install", "--quiet", "moto[server]>=5,<6"],
            check=True,
            capture_output=True,
            timeout=240,
        )
    return server


@pytest.fixture(scope="session")
def s3_server():
    """Endpoint of an S3 server (moto) on a free port of this machine."""
    try:
        server = _server_environment()
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"moto_server cannot be installed here: {error}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": os.environ.get("INITIAL_NO_AUTH_ACTION_COUNT", "inf")}
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):  # noqa: S310 - our own loopback server
                break
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.skip("moto_server did not start")
            time.sleep(0.05)
    yield endpoint
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """A fresh bucket, with credentials in the environment: (endpoint, bucket, file system)."""
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    # File systems are kept by their arguments, which do not tell the environment's credentials.
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem(
        endpoint_url=s3_server, client_kwargs={"region_name": "eu-west-1"}, skip_instance_cache=True
    )
    name = f"harbour-{time.monotonic_ns()}"
    filesystem.mkdir(name)
    yield s3_server, name, filesystem
    filesystem.rm(name, recursive=True)
