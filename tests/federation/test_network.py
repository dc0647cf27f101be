"""Members and hub over real gRPC with mutual TLS, on loopback."""

import contextlib
import json
import socket
import sqlite3
import ssl
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lepton_pipelines.federation import grpc_member, hub_connection
from lepton_pipelines.federation.hub_connection import ConnectionLost
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.runs import connect
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy
from lepton_pipelines.sums import SumAborted, Sums


def values_of(member: str, length: int, bound: int = 1 << 40) -> np.ndarray:
    seed = int.from_bytes(member.encode(), "big") % 2**32
    return np.random.default_rng(seed).integers(-(bound // 3), bound // 3, length)


def greet_until_refused(connection):
    """The hub reads its list of members once a second."""
    while True:
        connection.hello("test")


@pytest.mark.parametrize("length", [0, 3, 1_000, 300_000])
def test_every_member_gets_the_exact_total_over_the_network(hub_of_three, length):
    def part(sums):
        total = sums.sum("cells", values_of(sums.member, length), bound=1 << 40, context=b"c" * 32)
        sums.finish(b"model")
        return total

    for total in hub_of_three.everywhere(part):
        np.testing.assert_array_equal(total, sum(values_of(name, length) for name in hub_of_three.homes))


def test_the_network_is_a_sums_and_gives_what_the_in_process_federation_gives(hub_of_three):
    def part(sums):
        assert isinstance(sums, Sums) and sums.parties == 3
        pending = [sums.start(f"s{i}", values_of(sums.member, 50 + i), bound=1 << 40) for i in range(20)]
        return [one.result() for one in pending]

    federation = InProcessFederation(list(hub_of_three.homes))
    results = [None] * 3

    def local(i, name):
        results[i] = part(federation.sums(name))

    threads = [threading.Thread(target=local, args=(i, name)) for i, name in enumerate(hub_of_three.homes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    federation.close()
    for over_network, in_process in zip(hub_of_three.everywhere(part), results, strict=True):
        for one, other in zip(over_network, in_process, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_member_at_another_state_is_named_before_anything_is_sent(hub_of_three):
    def part(sums):
        context = bytes(32) if sums.member == "valley" else b"\xaa" * 32
        return sums.sum("tree-3/level-0", values_of(sums.member, 5), bound=1 << 40, context=context)

    for result in hub_of_three.everywhere(part):
        with pytest.raises(SumAborted, match="valley is at the state 0000000000000000…"):
            raise result
    with contextlib.closing(sqlite3.connect(hub_of_three.hub.folder / "hub.sqlite")) as log:
        kinds = {wire.Envelope.FromString(e).kind for (e,) in log.execute("SELECT envelope FROM log") if e}
    assert wire.KIND_ANNOUNCE in kinds and wire.KIND_UPLOAD not in kinds


def test_a_total_beyond_its_bound_ends_the_run_for_everyone(hub_of_three):
    results = hub_of_three.everywhere(lambda sums: sums.sum("s", np.array([7, 3]), bound=12))
    assert all("1 of 2 cells of the total are beyond the bound 12" in str(result) for result in results)


def test_a_hub_that_restarts_in_the_middle_of_a_run_goes_on_with_it(hub_of_three):
    here = threading.Barrier(4)

    def part(sums):
        first = sums.sum("first", values_of(sums.member, 10), bound=1 << 40)
        pending = sums.start("second", values_of(sums.member, 400_000), bound=1 << 40)
        here.wait(30)
        return first, pending.result()

    def restart():
        here.wait(30)
        hub_of_three.stop()
        hub_of_three.serve()

    thread = threading.Thread(target=restart)
    thread.start()
    results = hub_of_three.everywhere(part)
    thread.join()
    for first, second in results:
        np.testing.assert_array_equal(first, sum(values_of(name, 10) for name in hub_of_three.homes))
        np.testing.assert_array_equal(second, sum(values_of(name, 400_000) for name in hub_of_three.homes))


def test_a_member_that_comes_back_finds_its_totals_and_the_others_go_on_under_new_keys(hub_of_three):
    gone = threading.Event()

    def part(sums):
        totals = [sums.sum("first", values_of(sums.member, 10), bound=1 << 40)]
        if sums.member == "valley":
            sums.close()
            gone.set()
            sums = hub_of_three.join("valley")
            totals = [sums.sum("first", values_of(sums.member, 10), bound=1 << 40)]
        gone.wait(30)
        totals.append(sums.sum("second", values_of(sums.member, 10), bound=1 << 40))
        return sums._machine.epoch, [total.tolist() for total in totals]

    results = hub_of_three.everywhere(part)
    total = sum(values_of(name, 10) for name in hub_of_three.homes).tolist()
    assert results == [(2, [total, total])] * 3


def test_a_member_that_comes_back_is_ready_while_the_others_are_in_no_sum(hub_of_three, monkeypatch):
    monkeypatch.setattr(grpc_member, "_SIGN_OF_LIFE", 0.2)
    back = threading.Event()

    def part(sums):
        sums.sum("first", values_of(sums.member, 10), bound=1 << 40)
        if sums.member == "valley":
            sums.close()
            sums = hub_of_three.join("valley")
            sums.wait_until_ready(20)
            back.set()
        assert back.wait(30)  # as for a word in the ledger
        return sums.sum("second", values_of(sums.member, 10), bound=1 << 40).tolist()

    total = sum(values_of(name, 10) for name in hub_of_three.homes).tolist()
    assert hub_of_three.everywhere(part) == [total] * 3


def test_a_member_that_comes_back_with_other_rows_is_refused_by_itself(hub_of_three):
    gone = threading.Event()

    def part(sums):
        sums.sum("first", values_of(sums.member, 10), bound=1 << 40)
        if sums.member == "valley":
            sums.close()
            sums = hub_of_three.join("valley")
            changed = values_of("valley", 10)
            changed[3] += 1
            sums.start("first", changed, bound=1 << 40).result()
        gone.wait(0.2)
        return sums.sum("second", values_of(sums.member, 10), bound=1 << 40)

    for result in hub_of_three.everywhere(part):
        with pytest.raises(SumAborted, match="valley: sum 'first' was begun before a restart with other numbers"):
            raise result


def test_a_disk_that_is_full_stops_the_run_before_anything_is_sent(hub_of_three):
    def part(sums):
        sums.sum("first", values_of(sums.member, 10), bound=1 << 40)
        if sums.member == "valley":
            pages = sums._journal._database.execute("PRAGMA page_count").fetchone()[0]
            sums._journal._database.execute(f"PRAGMA max_page_count = {pages}")
        for i in range(200):
            sums.sum(f"{'long name ' * 20}{i}", values_of(sums.member, 10), bound=1 << 40)
        return

    for result in hub_of_three.everywhere(part):
        with pytest.raises(SumAborted, match=r"valley cannot write what must be on disk first.*full"):
            raise result


def test_who_was_revoked_is_told_so_at_its_next_call(hub_of_three):
    connection = hub_of_three.connect("valley")
    connection.hello("test")
    hub_of_three.hub.revoke("valley", "its laptop was stolen")
    with pytest.raises(ConnectionLost, match="valley was shut out by the hub's operator: its laptop was stolen"):
        greet_until_refused(connection)
    connection.close()


def test_a_certificate_for_a_replaced_identity_is_refused(hub_of_three):
    connection = hub_of_three.connect("valley")
    again = OrganisationHome.create(hub_of_three.folder / "valley-again", "valley")
    request = again.request()
    admission = hub_of_three.hub.admit(request, fingerprint=request.fingerprint)
    again.accept(admission.model_dump_json().encode(), fingerprint=hub_of_three.hub.fingerprint)
    with pytest.raises(ConnectionLost, match="identity key that was replaced"):
        greet_until_refused(connection)
    connection.close()
    hub_of_three.homes["valley"] = again
    replaced = hub_of_three.connect("valley")
    assert replaced.hello("test") == 1
    replaced.close()


def test_an_organisation_that_lost_its_keys_trains_again_after_it_was_admitted_and_compared_anew(hub_of_three):
    again = OrganisationHome.create(hub_of_three.folder / "valley-again", "valley")
    asked = again.request()
    admission = hub_of_three.hub.admit(asked, fingerprint=asked.fingerprint)
    again.accept(admission.model_dump_json().encode(), fingerprint=hub_of_three.hub.fingerprint)
    hub_of_three.homes["valley"] = again
    for home in hub_of_three.homes.values():
        for other in hub_of_three.homes.values():
            if other is not home:
                told = other.request()
                home.trust(told.model_dump_json().encode(), fingerprint=told.fingerprint)
    keys = {name: home.signer().public.hex() for name, home in hub_of_three.homes.items()}
    members = tuple({**one.model_dump(), "key": keys[one.name]} for one in hub_of_three.manifest.members)
    told = {**hub_of_three.manifest.model_dump(), "run": "after", "members": members}
    hub_of_three.manifest = Manifest.model_validate(told)
    with contextlib.closing(hub_of_three.connect("valley")) as connection:
        connection.hello("test")  # the hub reads its list of members anew for a key that it does not know
    hub_of_three.propose()

    def part(name):
        address = f"localhost:{hub_of_three.port}"
        with connect("after", hub_of_three.homes[name], policy=Policy(), address=address) as sums:
            total = sums.sum("s", np.full(3, 7), bound=30).tolist()
            sums.finish(b"model")  # nobody hangs up before the others have their totals
            return total

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(part, hub_of_three.homes)) == [[21, 21, 21]] * 3


def test_an_organisation_that_was_never_admitted_does_not_get_in(hub_of_three, tmp_path):
    stranger = OrganisationHome.create(tmp_path / "stranger", "stranger")
    other_hub = type(hub_of_three.hub).create(tmp_path / "other-hub", "localhost:1")
    request = stranger.request()
    admission = other_hub.admit(request, fingerprint=request.fingerprint)
    stranger.accept(admission.model_dump_json().encode(), fingerprint=other_hub.fingerprint)
    hub_of_three.homes["stranger"] = stranger
    connection = hub_of_three.connect("stranger", patience=0.5)
    with pytest.raises(ConnectionLost, match="was not reached"):
        connection.hello("test")
    connection.close()
    other_hub.close()


@pytest.mark.parametrize(
    ("newest", "certificate", "answered"),
    [
        (ssl.TLSVersion.TLSv1_3, True, True),
        (ssl.TLSVersion.TLSv1_2, True, False),
        (ssl.TLSVersion.TLSv1_3, False, False),
    ],
)
def test_the_hub_takes_no_older_tls_and_nobody_without_a_certificate(hub_of_three, newest, certificate, answered):
    credentials = hub_of_three.homes["north"].credentials()
    context = ssl.create_default_context(cadata=credentials.authority.decode())
    context.maximum_version = newest
    context.set_alpn_protocols(["h2"])
    if certificate:
        chain, key = hub_of_three.folder / "chain.pem", hub_of_three.folder / "key.pem"
        chain.write_bytes(credentials.certificate)
        key.write_bytes(credentials.tls_key)
        context.load_cert_chain(chain, key)

    def first_answer():
        try:
            with (
                socket.create_connection(("localhost", hub_of_three.port), timeout=60) as plain,
                context.wrap_socket(plain, server_hostname="hub.lepton") as secure,
            ):
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                return secure.recv(1000)
        except (ssl.SSLError, ConnectionError):
            return b""

    assert bool(first_answer()) == answered


def test_a_chunk_that_was_lost_is_sent_again_from_where_the_hub_has_it(hub_of_three):
    sums = [hub_of_three.join(name) for name in hub_of_three.homes]
    for one in sums:
        one.wait_until_ready(30)
    connection = hub_of_three.connect("north")
    length = 1_200_000  # more than one chunk
    vectors = {one.member: values_of(one.member, length) for one in sums}
    lost = []
    original = sums[0]._connection.carry

    def losing(name, request, data=b"", **settings):
        reply = original(name, request, data, **settings)
        if name == "PutChunk" and len(lost) < 2:
            lost.append(request.offset)
            return original(name, request, data, **settings)  # the answer was lost, the chunk comes twice
        return reply

    sums[0]._connection.carry = losing
    pending = [one.start("long", vectors[one.member], bound=1 << 40) for one in sums]
    for one in pending:
        np.testing.assert_array_equal(one.result(), sum(vectors.values()))
    assert len(lost) == 2
    connection.close()


def test_protocol_versions_that_do_not_meet_are_refused_by_name(hub_of_three):
    connection = hub_of_three.connect("north")
    reply = connection.call("Hello", wire.HelloRequest(member="north", oldest_protocol=7, newest_protocol=9))
    assert reply.refused == (
        "north speaks protocol 7 to 9, the hub 1 to 1: none in common. Update the hub to a release that speaks 7 or "
        "newer."
    )
    connection.close()


def test_a_manifest_with_a_key_that_the_hub_did_not_admit_is_refused(hub_of_three):
    fields = hub_of_three.manifest.model_dump()
    fields["run"] = "r-other"
    fields["members"][1]["key"] = "ab" * 32
    forged = Manifest.model_validate_json(json.dumps(fields))
    connection = hub_of_three.connect("valley")
    with pytest.raises(UserError, match="another key for north than the hub admitted"):
        connection.propose(forged)
    connection.close()


def test_a_call_in_anothers_name_is_refused(hub_of_three):
    connection = hub_of_three.connect("valley")
    envelope = wire.Envelope(run=hub_of_three.manifest.run, kind=wire.KIND_MANIFEST, member="north", body=b"x" * 32)
    reply = connection.call("Exchange", wire.ExchangeRequest(envelope=envelope, wait_milliseconds=10))
    assert reply.status == wire.STATUS_REFUSED and "valley may not speak for north" in reply.reason
    with pytest.raises(UserError, match="valley is in no run 'r-none' at this hub"):
        connection.look("r-none")
    connection.close()


def test_a_renewed_certificate_is_for_the_same_identity(hub_of_three):
    home = hub_of_three.homes["north"]
    connection = hub_of_three.connect("north")
    before = home.credentials().certificate
    home.renew(connection.renew(home.request().model_dump_json().encode()))
    assert home.credentials().certificate != before
    foreign = hub_of_three.homes["valley"].request().model_dump_json().encode()
    with pytest.raises((UserError, ConnectionLost), match="north cannot renew for valley"):
        connection.renew(foreign)
    connection.close()


def test_a_clock_that_is_a_day_off_is_warned_of_and_does_not_matter_to_sums(hub_of_three, monkeypatch, caplog):
    tomorrow = types.SimpleNamespace(time=lambda: time.time() + 86_400, monotonic=time.monotonic)
    monkeypatch.setattr(hub_connection, "time", tomorrow)
    connection = hub_of_three.connect("north")
    with caplog.at_level("WARNING", logger="lepton.federation"):
        assert connection.hello("test") == 1
    assert "are -86400 s apart" in caplog.text
    connection.close()
    totals = hub_of_three.everywhere(lambda sums: sums.sum("s", np.ones(3, np.int64), bound=3).tolist())
    assert totals == [[3, 3, 3]] * 3
