"""Allows an algorithm in an organisation's own file: the one place where a command changes what a user wrote."""

import os
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from .errors import UserError
from .organisation import read_organisation

OURS = ("xgboost", "linear")


def allow_algorithm(path: Path, name: str, digest: str) -> bool:
    """Write an algorithm with its code's digest into policy.algorithms; comments and order stay.

    A digest that stood there for the name is replaced. Where the policy named no algorithms, Lepton Pipelines' own are
    named too, so that they stay allowed. Returns whether the file was changed. Raises UserError if the file is wrong
    before, or would be after.
    """
    policy = read_organisation(path).policy
    if any((each.name, each.digest) == (name, digest) for each in policy.algorithms or []):
        return False
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    document: Any = yaml.load(path.read_text(encoding="utf-8"))
    if "policy" not in document:
        document["policy"] = CommentedMap()
    told = document["policy"]
    if told.get("algorithms") is None:
        told["algorithms"] = list(OURS)
    listed = told["algorithms"]
    for place in reversed(range(len(listed))):
        if (listed[place]["name"] if isinstance(listed[place], dict) else listed[place]) == name:
            del listed[place]
    listed.append({"name": name, "digest": digest})
    text = StringIO()
    yaml.dump(document, text)
    _replace(path, text.getvalue())
    return True


def _replace(path: Path, text: str) -> None:
    """Write the file anew if it is a whole organisation's file; it is the old one or the new one, never half."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=path.suffix, delete=False, encoding="utf-8") as file:
        new = Path(file.name)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        read_organisation(new)
        new.chmod(path.stat().st_mode)
        new.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be changed: {error}. Change its permissions.") from error
    finally:
        new.unlink(missing_ok=True)
