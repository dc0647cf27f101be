"""The code of an algorithm as one digest, of a wheel or as it is installed here. Nothing of it is imported.

The digest is SHA-256 of what `sha256sum` prints for the distribution's files, sorted by path: everything that it
brings but what an installer writes (RECORD, byte code, notes on where it came from). So a wheel and its installation
have the same one, and an organisation that allows it by this digest allows just that code. What the digest does not
cover is the code of its dependencies, nor somebody who can write into the environment: he could change this check, too.
"""

import hashlib
import importlib.util
import json
import posixpath
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING

from .algorithm import GROUP, algorithm_point
from .errors import UserError

if TYPE_CHECKING:
    from .organisation import Policy

OURS = "lepton-pipelines"
LARGEST_CODE = 256 << 20  # bytes of a wheel's files, unpacked
_KEPT_INFORMATION = ("entry_points.txt", "METADATA")


@dataclass(frozen=True)
class Code:
    """An algorithm's code. entry_point: as in `package.module:Class`. requires: distributions that it needs."""

    algorithm: str
    entry_point: str
    distribution: str
    version: str
    requires: tuple[str, ...]
    digest: str


def code_of_wheel(wheel: Path) -> Code:
    """Read a wheel's code without unpacking it. Raises UserError for what is no wheel of exactly one algorithm."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _code_of_archive(wheel.name, archive)
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, NotImplementedError) as error:
        raise UserError(f"{wheel} is no wheel that can be read: {error}. Build it with: python -m build") from error


def installed_code(name: str) -> Code | None:
    """Return the code that is installed here for an algorithm; None for one of Lepton Pipelines' own.

    Raises UserError if it is not installed, or so that its code cannot be told by a digest.
    """
    point = algorithm_point(name)
    distribution = point.dist
    if distribution is None:
        raise UserError(f"algorithm {name} belongs to no distribution. Install the wheel that brings it with pip.")
    if distribution.name == OURS:
        return None
    where = f"algorithm {name}: {distribution.name} {distribution.version}"
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        raise UserError(f"{where} is installed so that its code can be edited. Install its wheel, which has a digest.")
    if distribution.files is None or not any(path.name == "RECORD" for path in distribution.files):
        raise UserError(f"{where} has no list of its files (RECORD). Install its wheel with pip.")
    root = Path(str(distribution.locate_file("")))
    top = point.value.partition(":")[0].partition(".")[0]
    _not_shadowed(where, top, root)
    digests = {}
    for path in {_kept(str(each)) for each in distribution.files} | _of_packages(distribution, root):
        if path:
            try:
                digests[path] = hashlib.sha256((root / path).read_bytes()).hexdigest()
            except OSError as error:
                raise UserError(f"{where}: {path} cannot be read ({error}). Install it anew.") from error
    return _code(point, distribution, digests, where)


def refusals(policy: "Policy", name: str) -> list[str]:
    """Say why an organisation's policy does not allow an algorithm: its name, or the code that is installed for it."""
    allowed = policy.algorithms
    if allowed is not None and name not in [each.name for each in allowed]:
        return [f"policy.algorithms allows {', '.join(each.name for each in allowed)}, training.algorithm is {name}"]
    return code_refusals(policy, name)


def allowed_digests(policy: "Policy", name: str) -> list[str]:
    """Return the digests of the code that a policy allows for an algorithm."""
    return [each.digest for each in policy.algorithms or [] if each.name == name and each.digest is not None]


def code_refusals(policy: "Policy", name: str) -> list[str]:
    """Say why an organisation's policy does not allow the code that is installed here for an algorithm."""
    digests = allowed_digests(policy, name)
    try:
        code = installed_code(name)
    except UserError as error:
        return [str(error).rstrip(".")]
    if code is None:
        return [f"policy.algorithms has a digest for {name}, which is Lepton Pipelines' own"] if digests else []
    told = f"{code.distribution} {code.version}, which brings {name}, has the digest {code.digest}"
    if not digests:
        return [
            f"policy.algorithms allows {name} by no digest; the code installed here, {told}. Once you trust it, "
            f"write {{name: {name}, digest: {code.digest}}}"
        ]
    if code.digest not in digests:
        return [f"the code installed here, {told}; policy.algorithms allows {', '.join(digests)}"]
    return []


def _code_of_archive(name: str, archive: zipfile.ZipFile) -> Code:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if sum(info.file_size for info in infos) > LARGEST_CODE:
        raise UserError(f"{name} unpacks to more than {LARGEST_CODE >> 20} MiB: too large for an algorithm.")
    paths = [info.filename for info in infos]
    folders = sorted({path.split("/")[0] for path in paths if path.split("/")[0].endswith(".dist-info")})
    strange = [path for path in paths if posixpath.isabs(path) or ".." in path.split("/") or "\\" in path]
    if len(folders) != 1 or strange or len(set(paths)) < len(paths):
        raise UserError(f"{name} is no wheel: it must have one .dist-info folder, and each file once, below its own.")
    relocated = [path for path in paths if path.split("/")[0].endswith(".data") or path.endswith(".pth")]
    if relocated:
        raise UserError(
            f"{name} holds {relocated[0]}, which an installer puts elsewhere or runs at every start. "
            "An algorithm's wheel holds its package only."
        )
    distribution = PathDistribution(zipfile.Path(archive, f"{folders[0]}/"))
    points = list(distribution.entry_points.select(group=GROUP))
    if len(points) != 1:
        raise UserError(f"{name} brings {len(points)} algorithms (entry points {GROUP}). Offer one a wheel.")
    module = points[0].value.partition(":")[0].replace(".", "/")
    top = module.split("/")[0]
    own = {f"{top}.py", f"{top}/__init__.py"} & set(paths)
    if not own:
        raise UserError(f"{name}: its entry point {points[0].value} is in no package or module that it brings.")
    digests = {path: hashlib.sha256(archive.read(path)).hexdigest() for path in paths if _kept(path)}
    return _code(points[0], distribution, digests, name)


def _code(point: EntryPoint, distribution: Distribution, digests: Mapping[str, str], where: str) -> Code:
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{where} has no METADATA with its name and version.") from error
    return Code(
        point.name, point.value, name, version, tuple(distribution.requires or ()), listing_digest(digests.items())
    )


def listing_digest(digests: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a listing of files as `sha256sum` prints it, sorted by path."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def _kept(path: str) -> str:
    """Return a path if its file is code, or empty: byte code and what an installer writes are not."""
    folder, _, name = path.rpartition("/")
    if path.startswith("../") or "__pycache__" in folder.split("/") or name.endswith(".pyc"):
        return ""
    if folder.split("/")[0].endswith(".dist-info"):
        return path if folder.endswith(".dist-info") and name in _KEPT_INFORMATION else ""
    return path


def _of_packages(distribution: Distribution, root: Path) -> set[str]:
    """Return every file that lies in the distribution's packages, listed by it or not."""
    tops = {str(path).split("/")[0] for path in distribution.files or () if str(path).endswith("/__init__.py")}
    found = set()
    for top in tops:
        for path in (root / top).rglob("*"):
            if path.is_file():
                found.add(_kept(path.relative_to(root).as_posix()))
    return found


def _not_shadowed(where: str, top: str, root: Path) -> None:
    """Refuse if Python would import the package from somewhere else than the distribution's folder."""
    spec = importlib.util.find_spec(top)
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    if origin is None or origin.resolve() not in [
        (root / top / "__init__.py").resolve(),
        (root / f"{top}.py").resolve(),
    ]:
        raise UserError(f"{where}: Python would import {top} from {origin}, not from {root}. Take the other one away.")
