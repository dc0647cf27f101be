"""Sources: every file once, in pieces, whoever wrote it; what is wrong is said before a row is read."""

import gzip
import http.server
import json
import pickle
import threading

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.validation import check
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError


def _all(source):
    return pd.concat([source.read(piece) for piece in source.pieces()], ignore_index=True)


def _travelled(source):
    return pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes, as Dask sends them


def _refusal(organisation, contract):
    with pytest.raises(UserError) as refused:
        _all(open_source(organisation, contract))
    assert str(refused.value).startswith("harbour: ")
    return str(refused.value)


WRITERS = {
    "pandas.parquet": lambda f, p: f.to_parquet(p, index=False),
    "polars.parquet": lambda f, p: pl.from_pandas(f).write_parquet(p),
    "old-spark.parquet": lambda f, p: pq.write_table(
        pa.Table.from_pandas(f, preserve_index=False),
        p,
        version="1.0",
        use_deprecated_int96_timestamps=True,
        flavor="spark",
        compression="gzip",
        data_page_version="1.0",
    ),
    "plain.csv": lambda f, p: f.to_csv(p, index=False),
    "packed.csv.gz": lambda f, p: f.to_csv(p, index=False),
    "packed.csv.zst": lambda f, p: (
        pl.from_pandas(f).write_csv(p, compression="zstd")
        if "compression" in pl.DataFrame.write_csv.__annotations__
        else _write_zst(f, p)
    ),
}


def _write_zst(frame, path):
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(frame.to_csv(index=False).encode())


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_the_same_from_every_writer(tmp_path, organisation, contract, patients, name):
    from lepton_pipelines.data.encoding import encode

    frame = patients()
    WRITERS[name](frame, tmp_path / name)
    source = open_source(organisation(tmp_path / name), contract)
    read = _all(source)
    assert check(read, contract).found == ()
    one, other = encode(read, contract), encode(frame, contract)
    assert one.X.tobytes() == other.X.tobytes()
    assert one.label.tobytes() == other.label.tobytes()
    assert one.row_id.tolist() == other.row_id.tolist()


def test_only_the_contracts_columns_are_read(tmp_path, organisation, contract, patients):
    patients().assign(secret=1).to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path), contract)
    assert list(_all(source).columns) == ["patient_id", "radius", "visits", "stage", "smoker", "malignant"]


def test_folders_give_every_file_once_and_their_names_are_columns(tmp_path, organisation, contract, patients):
    frame = patients()
    for stage, rows in frame.groupby("stage"):
        folder = tmp_path / f"stage={stage}"
        folder.mkdir()
        rows.drop(columns="stage").to_parquet(folder / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "stage=I" / ".part-0.parquet.crc").write_bytes(b"x")
    source = open_source(organisation(tmp_path), contract)
    read = _all(source)
    pd.testing.assert_frame_equal(
        read.sort_values("patient_id", ignore_index=True)[["patient_id", "stage"]],
        frame[["patient_id", "stage"]],
        check_dtype=False,
    )


def test_row_groups_are_pieces_that_are_every_row_once(tmp_path, organisation, contract, patients, monkeypatch):
    monkeypatch.setattr("lepton_pipelines.data.sources._PIECE_ROWS", 12)
    frame = patients(50)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "p.parquet", row_group_size=5)
    source = _travelled(open_source(organisation(tmp_path), contract))
    pieces = source.pieces()
    assert [p.rows for p in pieces] == [10, 10, 10, 10, 10]
    assert [p.first_row for p in pieces] == [0, 10, 20, 30, 40]
    assert source.rows == 50
    assert _all(source)["patient_id"].tolist() == frame["patient_id"].tolist()


def test_columns_may_have_other_names_at_home(tmp_path, organisation, contract, patients):
    patients().rename(columns={"radius": "Radius mm"}).to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path, columns={"radius": "Radius mm"}), contract)
    assert "radius" in _all(source).columns


def test_a_csv_without_a_header_takes_the_contracts_order(tmp_path, organisation, contract, patients):
    patients().to_csv(tmp_path / "p.csv", index=False, header=False)
    source = open_source(organisation(tmp_path, csv={"header": False}), contract)
    assert _all(source)["patient_id"].tolist() == patients()["patient_id"].tolist()


def test_decimal_commas_are_read_as_numbers(tmp_path, organisation, contract, patients):
    patients().to_csv(tmp_path / "p.csv", index=False, sep=";", decimal=",")
    source = open_source(organisation(tmp_path, csv={"delimiter": ";", "decimal": ","}), contract)
    assert _all(source)["radius"].sum() == pytest.approx(patients()["radius"].sum())


def test_large_keys_of_a_csv_stay_exact(tmp_path, organisation, contract, patients):
    frame = patients(first=2**60 + 1)
    frame.to_csv(tmp_path / "p.csv", index=False)
    read = _all(open_source(organisation(tmp_path), contract))
    assert read["patient_id"].tolist() == frame["patient_id"].tolist()


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_a_large_csv_is_prepared_in_blocks_with_the_same_rows(
    tmp_path, organisation, contract, patients, split, monkeypatch, name
):
    frame = patients(3000)
    frame.loc[2500, "radius"] = -1
    frame.to_csv(tmp_path / name, index=False)
    source = open_source(organisation(tmp_path), contract)
    (piece,) = source.pieces()
    whole = prepare(source, piece, split)
    monkeypatch.setattr("lepton_pipelines.data.csv_file._BLOCK_BYTES", 7_001)
    sizes = [len(block) for block in source.blocks(piece)]
    assert len(sizes) > 5
    assert sum(sizes) == 3000
    blocks = prepare(source, piece, split, quarantine=tmp_path / "aside")
    assert {n: s.X.tobytes() for n, s in blocks.sets.items()} == {n: s.X.tobytes() for n, s in whole.sets.items()}
    assert blocks.violations.found == whole.violations.found
    (file,) = (tmp_path / "aside").iterdir()
    assert pd.read_parquet(file)["row"].tolist() == [2501]


def test_a_text_among_numbers_costs_no_other_block_its_numbers(tmp_path, organisation, contract, patients, monkeypatch):
    frame = patients(500).astype({"visits": object})
    frame.loc[400, "visits"] = "many"
    frame.to_csv(tmp_path / "p.csv", index=False)
    monkeypatch.setattr("lepton_pipelines.data.csv_file._BLOCK_BYTES", 5_000)
    source = open_source(organisation(tmp_path), contract)
    blocks = list(source.blocks(source.pieces()[0]))
    assert sum(block["visits"].dtype == "float64" for block in blocks) == len(blocks) - 1
    (violation,) = sum((check(block, contract) for block in blocks[1:]), check(blocks[0], contract)).found
    assert (violation.column, violation.values) == ("visits", ("'many'",))


class TestRefusals:
    """Each bad input has one message, with the organisation, the file or column, and the next step."""

    def test_a_missing_file(self, tmp_path, organisation, contract):
        assert "does not exist. Correct data.url" in _refusal(organisation(tmp_path / "no.parquet"), contract)

    def test_an_empty_folder(self, tmp_path, organisation, contract):
        assert "no file is at" in _refusal(organisation(tmp_path), contract)

    @pytest.mark.parametrize(
        ("log", "kind"),
        [
            ("below/_delta_log/00000000000000000000.json", "holds a Delta table"),
            ("metadata/v1.metadata.json", "holds an Iceberg table"),
            (".hoodie/hoodie.properties", "holds a Hudi table"),
        ],
    )
    def test_a_table_whose_log_says_which_files_count(self, tmp_path, organisation, contract, patients, log, kind):
        patients().to_parquet(tmp_path / "deleted.parquet")
        (tmp_path / log).parent.mkdir(parents=True)
        (tmp_path / log).write_text("{}")
        assert kind in _refusal(organisation(tmp_path), contract)

    def test_files_of_another_kind(self, tmp_path, organisation, contract):
        (tmp_path / "p.xlsx").write_bytes(b"x")
        assert "found p.xlsx" in _refusal(organisation(tmp_path), contract)

    def test_an_unknown_scheme(self, organisation, contract):
        assert "cannot be opened" in _refusal(organisation("nosuch://bucket/x"), contract)

    def test_a_wrong_column_name_with_the_nearest(self, tmp_path, organisation, document, patients):
        document["schema"][0]["properties"][1]["name"] = "mean_radius"
        patients().rename(columns={"radius": "radius_mean"}).to_parquet(tmp_path / "p.parquet")
        told = _refusal(organisation(tmp_path), parse_contract(document))
        assert 'column "mean_radius" is missing from' in told
        assert '(found "radius_mean")' in told
        assert "schema.properties" in told

    def test_an_empty_file(self, tmp_path, organisation, contract):
        for name in ("p.csv", "p.parquet"):
            (tmp_path / name).touch()
            assert f"{name} is empty" in _refusal(organisation(tmp_path / name), contract)

    def test_a_header_without_rows(self, tmp_path, organisation, contract, patients):
        patients().head(0).to_csv(tmp_path / "p.csv", index=False)
        assert "holds a header and no rows" in _refusal(organisation(tmp_path), contract)

    def test_a_parquet_without_rows(self, tmp_path, organisation, contract, patients):
        patients().head(0).to_parquet(tmp_path / "p.parquet")
        assert "holds no rows" in _refusal(organisation(tmp_path), contract)

    def test_a_wrong_delimiter(self, tmp_path, organisation, contract, patients):
        patients().to_csv(tmp_path / "p.csv", index=False, sep=";")
        assert 'Set data.csv.delimiter: ";"' in _refusal(organisation(tmp_path), contract)

    def test_mixed_encodings(self, tmp_path, organisation, contract, document, patients):
        document["schema"][0]["properties"][5]["customProperties"][0]["value"] = {"role": "group", "categories": ["a"]}
        frame = patients().assign(city="Zürich")
        (tmp_path / "p.csv").write_bytes(
            frame.to_csv(index=False).encode() + frame.to_csv(index=False, header=False).encode("latin-1")
        )
        told = _refusal(organisation(tmp_path), parse_contract(document))
        assert "is not utf-8 throughout. Set data.csv.encoding" in told

    def test_an_unknown_encoding(self, tmp_path, organisation, contract, patients):
        patients().to_csv(tmp_path / "p.csv", index=False)
        told = _refusal(organisation(tmp_path, csv={"encoding": "utf-9"}), contract)
        assert "data.csv.encoding utf-9 is not known" in told

    def test_duplicate_columns(self, tmp_path, organisation, contract, patients):
        text = patients().to_csv(index=False).replace("visits", "radius", 1)
        (tmp_path / "p.csv").write_text(text)
        assert 'column "radius" stands twice' in _refusal(organisation(tmp_path), contract)

    def test_a_truncated_gz(self, tmp_path, organisation, contract, patients):
        packed = gzip.compress(patients(2000).to_csv(index=False).encode())
        (tmp_path / "p.csv.gz").write_bytes(packed[: len(packed) // 2])
        assert "ends too early or is damaged" in _refusal(organisation(tmp_path), contract)

    def test_a_truncated_parquet(self, tmp_path, organisation, contract, patients):
        patients(2000).to_parquet(tmp_path / "p.parquet")
        whole = (tmp_path / "p.parquet").read_bytes()
        (tmp_path / "p.parquet").write_bytes(whole[: len(whole) // 2])
        assert "is not a parquet file" in _refusal(organisation(tmp_path), contract)

    def test_a_ragged_csv(self, tmp_path, organisation, contract, patients):
        text = patients().to_csv(index=False) + "1,2,3\n"
        (tmp_path / "p.csv").write_text(text)
        assert "Check data.csv.delimiter" in _refusal(organisation(tmp_path), contract)

    def test_a_file_that_changes_while_it_is_read(self, tmp_path, organisation, contract, patients):
        patients().to_parquet(tmp_path / "p.parquet")
        source = open_source(organisation(tmp_path), contract)
        patients(41).to_parquet(tmp_path / "p.parquet")
        with pytest.raises(UserError, match="changed while it was read"):
            source.read(source.pieces()[0])

    def test_another_unit(self, tmp_path, organisation, contract, patients):
        table = pa.Table.from_pandas(patients(), preserve_index=False)
        place = table.schema.get_field_index("radius")
        field = table.schema.field("radius").with_metadata({"unit": "cm"})
        pq.write_table(table.cast(table.schema.set(place, field)), tmp_path / "p.parquet")
        assert 'column "radius" is in cm, the contract wants mm' in _refusal(organisation(tmp_path), contract)

    def test_nested_values(self, tmp_path, organisation, contract, patients):
        patients().assign(radius=[[1.0, 2.0]] * 40).to_parquet(tmp_path / "p.parquet")
        assert 'column "radius" is list' in _refusal(organisation(tmp_path), contract)

    def test_an_unreadable_file(self, tmp_path, organisation, contract, patients, monkeypatch):
        import fsspec.implementations.local as local

        patients().to_parquet(tmp_path / "p.parquet")
        (tmp_path / "p.parquet").chmod(0)
        try:
            (tmp_path / "p.parquet").read_bytes()
        except PermissionError:
            pass
        else:
            # The superuser reads everything; only here is the refusal of the system stood in for.
            def denied(*_args: object, **_options: object) -> None:
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(local.LocalFileSystem, "_open", denied)
        assert "may not be read by this user" in _refusal(organisation(tmp_path), contract)

    def test_storage_options_for_a_local_path(self, tmp_path, organisation, contract, patients):
        patients().to_parquet(tmp_path / "p.parquet")
        told = _refusal(organisation(tmp_path, storage={"region": "eu-west-1"}), contract)
        assert "Take data.storage out" in told

    def test_all_missing_columns_are_told_at_once(self, tmp_path, organisation, contract, patients):
        patients().drop(columns=["radius", "visits"]).to_parquet(tmp_path / "p.parquet")
        told = _refusal(organisation(tmp_path), contract)
        assert '"radius" is missing' in told
        assert '"visits" is missing' in told


class TestS3:
    """A real server on loopback."""

    def _write(self, filesystem, bucket, frame, name="patients/p.parquet"):
        with filesystem.open(f"{bucket}/{name}", "wb") as file:
            frame.to_parquet(file)

    def test_rows_come_from_a_bucket(self, bucket, organisation, contract, patients):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        harbour = organisation(f"s3://{name}/patients/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        source = _travelled(open_source(harbour, contract))
        assert _all(source)["patient_id"].tolist() == patients()["patient_id"].tolist()

    def test_credentials_come_from_named_variables(self, bucket, organisation, contract, patients, monkeypatch):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("HARBOUR_KEY", "testing")
        storage = {"endpoint": endpoint, "region": "eu-west-1", "key": "${HARBOUR_KEY}", "secret": "${HARBOUR_SECRET}"}
        harbour = organisation(f"s3://{name}/patients/", storage=storage)
        assert "HARBOUR_SECRET is not set" in _refusal(harbour, contract)
        monkeypatch.setenv("HARBOUR_SECRET", "testing")
        assert len(_all(open_source(harbour, contract))) == 40

    @pytest.fixture
    def no_credentials(self, monkeypatch, tmp_path):
        """Take away whatever credentials this machine has; returns where a file of profiles is looked for."""
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        return tmp_path / "profiles"

    def test_an_anonymous_reader_needs_no_credentials(self, bucket, organisation, contract, patients, no_credentials):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        storage = {"endpoint": endpoint, "region": "eu-west-1"}
        assert "no credentials" in _refusal(organisation(f"s3://{name}/patients/", storage=storage), contract)
        harbour = organisation(f"s3://{name}/patients/", storage={**storage, "anonymous": True})
        assert "is not open to anonymous readers" in _refusal(harbour, contract)
        places = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        read = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": places}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [read]})
        filesystem.call_s3("put_bucket_policy", Bucket=name, Policy=policy)
        filesystem.chmod(f"{name}/patients/p.parquet", "public-read")
        assert len(_all(_travelled(open_source(harbour, contract)))) == 40

    def test_credentials_come_from_a_profile(self, bucket, organisation, contract, patients, no_credentials):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        no_credentials.write_text("[ward]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
        storage = {"endpoint": endpoint, "region": "eu-west-1", "profile": "ward"}
        harbour = organisation(f"s3://{name}/patients/", storage=storage)
        assert len(_all(_travelled(open_source(harbour, contract)))) == 40

    def test_credentials_come_from_the_machines_role(
        self, bucket, organisation, contract, patients, no_credentials, monkeypatch
    ):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        asked = []

        class Role(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                keys = {
                    "AccessKeyId": "role",
                    "SecretAccessKey": "s",
                    "Token": "t",
                    "Expiration": "2099-01-01T00:00:00Z",
                }
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(keys).encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Role)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role")
        try:
            storage = {"endpoint": endpoint, "region": "eu-west-1"}
            harbour = organisation(f"s3://{name}/patients/", storage=storage)
            assert len(_all(_travelled(open_source(harbour, contract)))) == 40
        finally:
            server.shutdown()
            server.server_close()
        assert set(asked) == {"/role"}

    def test_a_missing_bucket_is_refused(self, bucket, organisation, contract):
        endpoint, _, _ = bucket
        harbour = organisation("s3://no-such-bucket-here/x/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        told = _refusal(harbour, contract)
        assert "does not exist" in told
        assert "s3://no-such-bucket-here/x/" in told

    def test_a_missing_object_is_refused(self, bucket, organisation, contract):
        endpoint, name, _ = bucket
        harbour = organisation(f"s3://{name}/no.parquet", storage={"endpoint": endpoint, "region": "eu-west-1"})
        assert "does not exist" in _refusal(harbour, contract)

    def test_missing_credentials_name_the_variables(self, bucket, organisation, contract, monkeypatch, tmp_path):
        endpoint, name, _ = bucket
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in _refusal(harbour, contract)

    def test_an_unknown_profile_is_refused(self, bucket, organisation, contract):
        endpoint, name, _ = bucket
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": endpoint, "profile": "nobody"})
        assert "profile nobody" in _refusal(harbour, contract)

    def test_a_server_that_is_not_there_is_refused(self, bucket, organisation, contract, monkeypatch):
        _, name, _ = bucket
        monkeypatch.setattr("lepton_pipelines.data.storage._S3_ATTEMPTS", 1)
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": "http://127.0.0.1:9", "region": "eu-west-1"})
        assert "http://127.0.0.1:9 cannot be reached" in _refusal(harbour, contract)

    def test_an_object_that_changes_while_it_is_read_is_refused(self, bucket, organisation, contract, patients):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        harbour = organisation(f"s3://{name}/patients/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        source = open_source(harbour, contract)
        self._write(filesystem, name, patients(first=9001))
        with pytest.raises(UserError, match="changed while it was read"):
            source.read(source.pieces()[0])


class TestRefusalsOfAStore:
    """What a store answers when it refuses, from a server that says it as AWS does."""

    @pytest.fixture
    def refusing(self):
        """Makes an endpoint that answers every request with one error."""
        servers = []

        def make(status, code):
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()

            class Refuses(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/xml")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

                do_HEAD = do_GET  # noqa: N815 - the library's name

                def log_message(self, *_):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            return f"http://127.0.0.1:{server.server_port}"

        yield make
        for server in servers:
            server.shutdown()
            server.server_close()

    def test_throttled_requests_are_tried_again_and_then_named(self, throttling, organisation, contract, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        once, asked = throttling(1)
        storage = {"endpoint": once, "region": "eu-west-1"}
        assert "no file is at" in _refusal(organisation("s3://patients/rows/", storage=storage), contract)
        assert asked[0] == 503
        assert 200 in asked
        monkeypatch.setattr("lepton_pipelines.data.storage._S3_ATTEMPTS", 2)
        always, asked = throttling(99)
        told = _refusal(organisation("s3://patients/rows/", storage=storage | {"endpoint": always}), contract)
        assert "is throttled even after 2 attempts" in told
        assert len(asked) >= 2

    @pytest.fixture
    def throttling(self):
        """Makes a store with an empty bucket that answers so many requests with SlowDown first, and what it said."""
        servers = []
        slow = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>no</Message></Error>"
        empty = (
            b"<?xml version='1.0'?><ListBucketResult><Name>patients</Name><KeyCount>1</KeyCount>"
            b"<IsTruncated>false</IsTruncated><Contents><Key>rows/_SUCCESS</Key><Size>0</Size>"
            b"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents></ListBucketResult>"
        )

        def make(times):
            said = []

            class Throttles(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    busy = len(said) < times
                    said.append(503 if busy else 404 if self.command == "HEAD" else 200)
                    body = slow if busy else empty
                    self.send_response(said[-1])
                    self.send_header("Content-Type", "application/xml")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

                do_HEAD = do_GET  # noqa: N815 - the library's name

                def log_message(self, *_):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Throttles)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            return f"http://127.0.0.1:{server.server_port}", said

        yield make
        for server in servers:
            server.shutdown()
            server.server_close()

    @pytest.mark.parametrize(
        ("status", "code", "told"),
        [
            (400, "ExpiredToken", "have expired. Renew HARBOUR_KEY and HARBOUR_SECRET and HARBOUR_TOKEN"),
            (
                403,
                "InvalidAccessKeyId",
                "were not accepted (InvalidAccessKeyId). Correct HARBOUR_KEY and HARBOUR_SECRET",
            ),
            (403, "AccessDenied", "is denied. Check the rights of HARBOUR_KEY and HARBOUR_SECRET"),
            (400, "IllegalLocationConstraintException", "is in another region. Set data.storage.region"),
            (404, "NoSuchBucket", "does not exist"),
        ],
    )
    def test_a_refusal_names_the_variable_or_the_setting(
        self, refusing, organisation, contract, monkeypatch, status, code, told
    ):
        for name in ("KEY", "SECRET", "TOKEN"):
            monkeypatch.setenv(f"HARBOUR_{name}", "testing")
        monkeypatch.setattr("lepton_pipelines.data.storage._S3_ATTEMPTS", 1)
        storage = {name: f"${{HARBOUR_{name.upper()}}}" for name in ("key", "secret", "token")}
        storage |= {"endpoint": refusing(status, code), "region": "eu-west-1"}
        assert told in _refusal(organisation("s3://patients/rows/", storage=storage), contract)
