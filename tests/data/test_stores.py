"""Rows in object stores: credentials from everywhere they may come from, and what a store refuses, named."""

import http.server
import json
import threading

import pytest
from reading import read_all, refusal_of, travelled

from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.errors import UserError


class TestS3:
    """A real server on loopback."""

    def _write(self, filesystem, bucket, frame, name="patients/p.parquet"):
        with filesystem.open(f"{bucket}/{name}", "wb") as file:
            frame.to_parquet(file)

    def test_rows_come_from_a_bucket(self, bucket, organisation, contract, patients):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        harbour = organisation(f"s3://{name}/patients/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        source = travelled(open_source(harbour, contract))
        assert read_all(source)["patient_id"].tolist() == patients()["patient_id"].tolist()

    def test_credentials_come_from_named_variables(self, bucket, organisation, contract, patients, monkeypatch):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("HARBOUR_KEY", "testing")
        storage = {"endpoint": endpoint, "region": "eu-west-1", "key": "${HARBOUR_KEY}", "secret": "${HARBOUR_SECRET}"}
        harbour = organisation(f"s3://{name}/patients/", storage=storage)
        assert "HARBOUR_SECRET is not set" in refusal_of(harbour, contract)
        monkeypatch.setenv("HARBOUR_SECRET", "testing")
        assert len(read_all(open_source(harbour, contract))) == 40

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
        assert "no credentials" in refusal_of(organisation(f"s3://{name}/patients/", storage=storage), contract)
        harbour = organisation(f"s3://{name}/patients/", storage={**storage, "anonymous": True})
        assert "is not open to anonymous readers" in refusal_of(harbour, contract)
        places = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        read = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": places}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [read]})
        filesystem.call_s3("put_bucket_policy", Bucket=name, Policy=policy)
        filesystem.chmod(f"{name}/patients/p.parquet", "public-read")
        assert len(read_all(travelled(open_source(harbour, contract)))) == 40

    def test_credentials_come_from_a_profile(self, bucket, organisation, contract, patients, no_credentials):
        endpoint, name, filesystem = bucket
        self._write(filesystem, name, patients())
        no_credentials.write_text("[ward]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
        storage = {"endpoint": endpoint, "region": "eu-west-1", "profile": "ward"}
        harbour = organisation(f"s3://{name}/patients/", storage=storage)
        assert len(read_all(travelled(open_source(harbour, contract)))) == 40

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
            assert len(read_all(travelled(open_source(harbour, contract)))) == 40
        finally:
            server.shutdown()
            server.server_close()
        assert set(asked) == {"/role"}

    def test_a_missing_bucket_is_refused(self, bucket, organisation, contract):
        endpoint, _, _ = bucket
        harbour = organisation("s3://no-such-bucket-here/x/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        told = refusal_of(harbour, contract)
        assert "does not exist" in told
        assert "s3://no-such-bucket-here/x/" in told

    def test_a_missing_object_is_refused(self, bucket, organisation, contract):
        endpoint, name, _ = bucket
        harbour = organisation(f"s3://{name}/no.parquet", storage={"endpoint": endpoint, "region": "eu-west-1"})
        assert "does not exist" in refusal_of(harbour, contract)

    def test_missing_credentials_name_the_variables(self, bucket, organisation, contract, monkeypatch, tmp_path):
        endpoint, name, _ = bucket
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": endpoint, "region": "eu-west-1"})
        assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refusal_of(harbour, contract)

    def test_an_unknown_profile_is_refused(self, bucket, organisation, contract):
        endpoint, name, _ = bucket
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": endpoint, "profile": "nobody"})
        assert "profile nobody" in refusal_of(harbour, contract)

    def test_a_server_that_is_not_there_is_refused(self, bucket, organisation, contract, monkeypatch):
        _, name, _ = bucket
        monkeypatch.setattr("lepton_pipelines.data.storage._S3_ATTEMPTS", 1)
        harbour = organisation(f"s3://{name}/x/", storage={"endpoint": "http://127.0.0.1:9", "region": "eu-west-1"})
        assert "http://127.0.0.1:9 cannot be reached" in refusal_of(harbour, contract)

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
        assert "no file is at" in refusal_of(organisation("s3://patients/rows/", storage=storage), contract)
        assert asked[0] == 503
        assert 200 in asked
        monkeypatch.setattr("lepton_pipelines.data.storage._S3_ATTEMPTS", 2)
        always, asked = throttling(99)
        told = refusal_of(organisation("s3://patients/rows/", storage=storage | {"endpoint": always}), contract)
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
        assert told in refusal_of(organisation("s3://patients/rows/", storage=storage), contract)
