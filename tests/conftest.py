"""What every test may use."""

import datetime
import fcntl
import importlib
import ipaddress
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[1]


LONGEST = (
    "e2e/test_three_machines.py",
    "e2e/test_platform.py",
    "e2e/test_stopping.py",
    "e2e/test_examples.py",
    "e2e/test_authenticated_servers.py",
    "e2e/test_pending.py",
    "e2e/test_approval.py",
    "e2e/test_deployment.py",
)
"""Modules that take minutes: begun first, so that at the end no process works on one of them by itself."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take longest first; `--no-loadscope-reorder` keeps them there among several processes."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="module")
def _no_module_leaves_a_store_behind() -> Iterator[None]:
    """MLflow keeps the address of a store in a global and in the environment, where the next module would find it."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ[name] for name in names if name in os.environ}
    yield
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(before.get(names[0]))
        mlflow.set_registry_uri(before.get(names[1]))
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


@dataclass
class Example:
    """A copy of the healthcare example that a test may spoil."""

    folder: Path

    @property
    def spec(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a text in one of the example's files; it must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} holds no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def change_rows(self, hospital: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Write a hospital's rows anew."""
        path = self.folder / "data" / hospital / "patients.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)


def copied(folder: Path) -> Example:
    """Copy the example and write its rows."""
    source = ROOT / "examples" / "healthcare"
    shutil.copytree(source, folder / "healthcare", ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "healthcare" / "data")
    return Example(folder / "healthcare")


@pytest.fixture
def example(tmp_path) -> Example:
    """The example's specs and rows, for one test."""
    return copied(tmp_path)


@pytest.fixture(scope="session")
def copy_example() -> Callable[[Path], Example]:
    """Makes copies of the example in folders, for a module that runs several."""
    return copied


@pytest.fixture(scope="module")
def module_example(tmp_path_factory) -> Example:
    """The example's specs and rows, for a module's tests, which run it one after the other."""
    return copied(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def commands_in_one_process() -> Callable[..., list[SimpleNamespace]]:
    """Runs commands of `lepton` in one process: what ended with which code, and said what (code, out, err)."""

    def run(commands: Sequence[Sequence[object]], environment: dict[str, str]) -> list[SimpleNamespace]:
        ended = subprocess.run(
            [sys.executable, ROOT / "tests" / "commands_program.py"],
            input=json.dumps([[str(word) for word in command] for command in commands]),
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        return [SimpleNamespace(**json.loads(line)) for line in ended.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the public data sets: LEPTON_DATA_MIRROR, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("LEPTON_DATA_MIRROR") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "heart-disease").is_dir():
        pytest.skip(f"no public data sets at {folder}: set LEPTON_DATA_MIRROR to a folder that holds them")
    return folder


@pytest.fixture
def build_wheel(tmp_path) -> Callable[..., Path]:
    """Write a wheel of one module as any build backend would, from its files' contents."""

    def build(
        code: str, *, name: str = "lepton-averaging", version: str = "1.0", points: str | None = None, **files: str
    ) -> Path:
        module = name.replace("-", "_")
        points = f"averaging = {module}:Averaging" if points is None else points
        information = f"{module}-{version}.dist-info"
        contents = {
            f"{module}/__init__.py": code,
            **files,
            f"{information}/METADATA": (
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: numpy\n"
            ),
            f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{information}/entry_points.txt": f"[lepton.algorithms]\n{points}\n",
        }
        path = tmp_path / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in contents.items():
                wheel.writestr(file, text)
            wheel.writestr(
                f"{information}/RECORD", "".join(f"{file},,\n" for file in [*contents, f"{information}/RECORD"])
            )
        return path

    return build


@pytest.fixture
def pip_install(tmp_path, monkeypatch) -> Iterator[Callable[[Path], Path]]:
    """Install a wheel as an administrator does, with pip, into a folder of the test's own on the path."""
    folder, modules = tmp_path / "installed", set(sys.modules)

    def install(wheel: Path) -> Path:
        pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--target", folder, wheel], check=True)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        return folder

    yield install
    for module in set(sys.modules) - modules:
        if module.startswith("lepton_averaging"):
            del sys.modules[module]
    from lepton_pipelines.spec import algorithm, training

    algorithm._load.cache_clear()
    training.training_model.cache_clear()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that signs itself: (key file, certificate file)."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "server.key", folder / "server.crt"
    files[0].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return files


@pytest.fixture(scope="module")
def server_settings() -> dict[str, str]:
    """What a module's Prefect server is started with besides the usual; a module may have its own."""
    return {}


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Prefect's, laid out once for all processes of the tests: it takes seconds of computing."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    home = shared / "prefect-database"
    with (shared / "prefect-database.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            home.mkdir()
            kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            subprocess.run(
                [Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "-y"],
                env={**kept, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
                check=True,
                capture_output=True,
            )
            (home / "done").touch()
    return home / "prefect.db"


# One for each module: modules look their runs and deployments up by names that others use as well.
@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory, server_settings, prefect_database) -> Iterator[str]:
    """The API address of a Prefect server with a database of its own."""
    home = tmp_path_factory.mktemp("prefect-server")
    shutil.copy(prefect_database, home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [Path(sys.executable).with_name("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(
            command,
            # Its pages ask the address that the server is told of.
            env={
                **kept,
                "PREFECT_HOME": str(home),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_API_URL": address,
                **server_settings,
            },
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until_it_answers(f"{address}/health", server, home / "log.txt")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_it_answers(address: str, server: "subprocess.Popen[bytes]", log: Path, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"{address} does not answer: {log.read_text()[-2000:]}")


@pytest.fixture
def page():
    """A page of the system's Chromium."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 1400})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where pictures of pages are kept after the tests."""
    folder = Path(os.environ.get("LEPTON_TEST_PICTURES") or Path(__file__).parents[1] / "var" / "test-pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _server_environment() -> Path:
    """An environment of its own for moto, whose botocore is another than s3fs's; made once, kept in the checkout."""
    folder = ROOT / ".venv-moto"
    server = folder / "bin" / "moto_server"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of tests may want it at once
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
