"""How a ledger lies on the disk: the same tiles whatever the steps, a crash loses nothing that was acknowledged."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_pipelines.ledger import journal
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged, LedgerError, ProofRefused, StorageRefused
from lepton_pipelines.ledger.merkle import check_consistency, check_inclusion, leaf_hash, root_of
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.store import LedgerStore, LedgerView
from lepton_pipelines.ledger.tiles import bundle_path, pack_bundle, tile_path, unpack_bundle

LOG = Signer.generate("lepton.test/ledger")


def grow(store, size):
    """Bring a store to this many entries, `entry 0`, `entry 1`, …"""
    entries = [b"entry %d" % number for number in range(store.size, size)]
    frontier = store.edge.frontier.copy()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    store.append(entries, Checkpoint(LOG.name, frontier.size, frontier.root()).sign(LOG))


def root(size):
    return root_of([leaf_hash(b"entry %d" % number) for number in range(size)])


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "000"),
        (7, "007"),
        (999, "999"),
        (1000, "x001/000"),
        (1234067, "x001/x234/067"),
        (10**9, "x001/x000/x000/000"),
    ],
)
def test_tiles_are_named_as_in_the_standard(number, path):
    assert tile_path(0, number) == f"tile/0/{path}"
    assert bundle_path(number, 17) == f"tile/entries/{path}.p/17"


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_a_bundle_is_read_back_as_it_was_written(entries):
    assert unpack_bundle(pack_bundle(entries), len(entries), "it") == entries


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=9), st.data())
def test_a_malformed_bundle_is_named_and_never_read(entries, data):
    packed = pack_bundle(entries)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(LedgerDamaged, match="the bundle is malformed"):
        unpack_bundle(packed[:cut], len(entries), "the bundle")
    with pytest.raises(LedgerDamaged, match="the bundle is malformed"):
        unpack_bundle(packed + b"\0", len(entries), "the bundle")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    steps=st.lists(st.integers(1, 300), min_size=1, max_size=4), publish=st.lists(st.booleans(), min_size=4, max_size=4)
)
def test_the_files_do_not_depend_on_the_steps_in_which_the_ledger_grew(tmp_path_factory, steps, publish):
    once, often = tmp_path_factory.mktemp("once"), tmp_path_factory.mktemp("often")
    size = sum(steps)
    store = LedgerStore(often)
    for step, now in zip(steps, publish, strict=False):
        grow(store, store.size + step)
        if now:
            store.publish()
    store.close()
    store = LedgerStore(once)
    grow(store, size)
    store.close()
    view = LedgerView(often)
    due = files(once)
    assert {path: data for path, data in files(often).items() if path in due} == due
    assert (view.size, view.root) == (size, root(size))
    assert list(view.entries()) == [b"entry %d" % number for number in range(size)]


@pytest.mark.parametrize("published", [0, 100, 256, 300, 513])
def test_proofs_are_the_same_from_tiles_and_from_the_journal(tmp_path, published):
    store = LedgerStore(tmp_path)
    if published:
        grow(store, published)
        store.publish()
    grow(store, 600)
    for index in (0, 99, 255, 256, 511, 512, 599):
        check_inclusion(index, 600, leaf_hash(b"entry %d" % index), store.inclusion_proof(index, 600), root(600))
    for old in (1, 255, 256, 257, 512, 599, 600):
        check_consistency(old, root(old), 600, root(600), store.consistency_proof(old, 600))
        assert store.root_at(old) == root(old)
    store.close()


def test_a_full_tile_replaces_the_partial_ones(tmp_path):
    store = LedgerStore(tmp_path)
    grow(store, 200)
    store.publish()
    assert (tmp_path / "tile/0/000.p/200").exists()
    grow(store, 256)
    store.close()
    names = {path for path in files(tmp_path) if path.startswith("tile/")}
    assert names == {"tile/0/000", "tile/entries/000", "tile/1/000.p/1"}


def test_a_ledger_has_one_writer_at_a_time(tmp_path):
    store = LedgerStore(tmp_path)
    with pytest.raises(LedgerError, match="in use by another process"):
        LedgerStore(tmp_path)
    store.close()
    LedgerStore(tmp_path).close()


def test_an_entry_that_is_too_long_is_refused(tmp_path):
    store = LedgerStore(tmp_path)
    with pytest.raises(EntryRefused, match="65536 bytes does not fit"):
        store.append([b"x" * 65536], Checkpoint(LOG.name, 1, root_of([leaf_hash(b"x" * 65536)])).sign(LOG))
    assert store.size == 0
    store.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_what_a_crash_left_of_the_last_record_is_cut_off(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ledger")
    store = LedgerStore(folder)
    grow(store, 3)
    whole = (folder / "journal").stat().st_size
    grow(store, 5)
    store.give_back()
    cut = data.draw(st.integers(whole, (folder / "journal").stat().st_size - 1))
    with (folder / "journal").open("r+b") as file:
        file.truncate(cut)
    again = LedgerStore(folder)
    assert (again.size, again.root) == (3, root(3))
    grow(again, 7)
    again.close()
    assert LedgerView(folder).root == root(7)


def test_any_one_changed_byte_of_the_journal_is_found(tmp_path):
    store = LedgerStore(tmp_path)
    grow(store, 3)
    grow(store, 5)
    store.give_back()
    whole = (tmp_path / "journal").read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / "journal").write_bytes(changed)
        with pytest.raises(LedgerDamaged):
            LedgerView(tmp_path)


def test_a_crash_between_the_steps_of_publishing_loses_nothing(tmp_path, monkeypatch):
    store = LedgerStore(tmp_path)
    grow(store, 300)
    monkeypatch.setattr(store._journal, "clear", lambda: os._exit(9))
    child = os.fork()
    if child == 0:
        store.publish()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    store.give_back()
    again = LedgerStore(tmp_path)
    assert (again.size, again.published, again.root) == (300, 300, root(300))
    again.close()


APPEND_FOR_EVER = """
import sys
from pathlib import Path
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.merkle import leaf_hash
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.store import LedgerStore
log, store = Signer.generate("lepton.test/ledger"), LedgerStore(Path(sys.argv[1]))
while True:
    entries = [b"entry %d" % number for number in range(store.size, store.size + 7)]
    frontier = store.edge.frontier.copy()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    note = Checkpoint(log.name, frontier.size, frontier.root()).sign(log)
    store.append(entries, note)
    if store.size % 70 == 0:
        store.publish()
    print(store.size, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [7, 70, 77, 280, 700])
def test_a_killed_process_keeps_everything_that_it_acknowledged(tmp_path, acknowledged):
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    said = 0
    for line in process.stdout:
        said = int(line)
        if said >= acknowledged:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    said = max([said, *map(int, rest)])
    store = LedgerStore(tmp_path)
    assert store.size >= said
    assert store.size % 7 == 0
    assert store.root == root(store.size)
    grow(store, store.size + 5)
    store.close()
    assert list(LedgerView(tmp_path).entries()) == [b"entry %d" % number for number in range(store.size)]


@contextmanager
def files_no_longer_than(size):
    """The kernel takes no byte beyond this in any file: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_takes_nothing_and_breaks_nothing(tmp_path):
    store = LedgerStore(tmp_path)
    grow(store, 3)
    with (
        files_no_longer_than((tmp_path / "journal").stat().st_size + 10),
        pytest.raises(StorageRefused, match="Make room"),
    ):
        grow(store, 5)
    assert (store.size, store.root) == (3, root(3))
    grow(store, 6)
    with files_no_longer_than(20), pytest.raises(StorageRefused, match="Make room"):
        store.publish()
    assert not (tmp_path / "checkpoint").exists()
    store.close()
    assert LedgerView(tmp_path).root == root(6)


@pytest.mark.parametrize(
    "path", ["tile/0/000.p/44", "tile/0/000", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"]
)
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", None])
def test_a_malformed_tile_is_named(tmp_path, path, damage):
    store = LedgerStore(tmp_path)
    grow(store, 300)
    store.close()
    path = path.replace("0/000.p/44", "0/001.p/44")
    if damage is None:
        (tmp_path / path).unlink()
    else:
        (tmp_path / path).write_bytes(damage((tmp_path / path).read_bytes()))
    with pytest.raises(LedgerDamaged, match=path.replace(".", r"\.")):
        read_everything(tmp_path)


def read_everything(folder):
    view = LedgerView(folder)
    list(view.entries())
    [view.leaf(index) for index in range(view.size)]


def test_a_journal_of_something_else_is_refused(tmp_path):
    (tmp_path / "journal").write_bytes(b"PRAGMA journal")
    with pytest.raises(LedgerDamaged, match="no journal of a ledger"):
        LedgerStore(tmp_path)
    (tmp_path / "journal").write_bytes(journal.HEADER[:5])
    LedgerStore(tmp_path).close()


def test_a_ledger_that_is_not_there_is_named():
    with pytest.raises(LedgerError, match="there is no such folder"):
        LedgerView(Path("/nowhere/at/all"))


def test_an_entry_that_is_not_there_is_named(tmp_path):
    store = LedgerStore(tmp_path)
    grow(store, 3)
    with pytest.raises(ProofRefused, match="its 3 entries count from 0"):
        store.entry(3)
    store.close()
