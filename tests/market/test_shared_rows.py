"""Shareable rows: fetched once, from anywhere that fsspec reads, and only as they were published."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from lepton_pipelines.market.catalogue import offer
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.shared_rows import fetch

LEPTON = Path(sys.executable).with_name("lepton")
ROWS = b"id,value\n1,2\n" * 1000


@pytest.fixture
def shared(market):
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/open/rows.csv", ROWS)
    digest = hashlib.sha256(ROWS).hexdigest()
    more = f"shareable: {{url: 'memory://open/rows.csv', digest: {digest}, licence: CC-BY-4.0}}\n"
    market.publish(more=more)
    opened = []

    def open_url(url):
        opened.append(url)
        return fsspec.open(url, "rb").open()

    yield offer(market.of("north"), "harbour/patients"), open_url, opened
    filesystem.rm("/open", recursive=True)


def test_rows_are_fetched_once_and_kept(shared, tmp_path):
    found, open_url, opened = shared
    for _ in range(2):
        assert fetch(found, tmp_path / "cache", open_url, to=tmp_path / "copy.csv").read_bytes() == ROWS
    assert opened == ["memory://open/rows.csv"]


def test_rows_that_were_changed_since_are_refused_and_not_kept(shared, tmp_path):
    found, open_url, _ = shared
    fsspec.filesystem("memory").pipe("/open/rows.csv", ROWS + b"3,4\n")
    with pytest.raises(MarketRefused, match="is not kept"):
        fetch(found, tmp_path / "cache", open_url)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_copy_that_was_spoilt_here_is_fetched_again(shared, tmp_path):
    found, open_url, opened = shared
    fetch(found, tmp_path / "cache", open_url).write_bytes(b"spoilt")
    assert fetch(found, tmp_path / "cache", open_url).read_bytes() == ROWS
    assert len(opened) == 2


def test_another_licence_than_the_one_asked_for_is_refused_before_anything_is_fetched(shared, tmp_path):
    found, open_url, opened = shared
    with pytest.raises(MarketRefused, match=r"CC-BY-4\.0, you asked for MIT"):
        fetch(found, tmp_path / "cache", open_url, licence="MIT")
    assert opened == []


def test_rows_that_are_not_shareable_never_leave(market, tmp_path):
    market.publish()
    with pytest.raises(MarketRefused, match="its rows never leave harbour"):
        fetch(offer(market.of("north"), "harbour/patients"), tmp_path, fsspec.open)


def lepton(*arguments):
    told = list(map(str, arguments))
    return subprocess.run([LEPTON, *told], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_rows_in_a_bucket_are_pulled_by_the_command_and_are_named_once_they_are_gone(market, bucket, monkeypatch):
    endpoint, name, filesystem = bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    filesystem.pipe(f"{name}/open/rows.csv", ROWS)
    digest = hashlib.sha256(ROWS).hexdigest()
    market.publish(more=f"shareable: {{url: 's3://{name}/open/rows.csv', digest: {digest}, licence: CC-BY-4.0}}\n")
    copy, speaker = market.folder / "copy.csv", ("--as", "north", "--var", market.folder / "var")
    pulled = lepton("market", "pull", "harbour/patients", "--to", copy, "--licence", "CC-BY-4.0", *speaker)
    assert pulled.returncode == 0, pulled.stderr
    assert copy.read_bytes() == ROWS
    filesystem.rm(f"{name}/open/rows.csv")
    assert lepton("market", "pull", "harbour/patients", *speaker).returncode == 0  # it is kept
    shutil.rmtree(market.folder / "var" / "products")
    gone = lepton("market", "pull", "harbour/patients", *speaker)
    assert gone.returncode == 2 and "Traceback" not in gone.stderr
    assert "harbour/patients" in gone.stderr and "does not exist" in gone.stderr
