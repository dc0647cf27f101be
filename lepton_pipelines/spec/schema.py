"""JSON Schemas of the files that users write: editors complete fields and show their help from them."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .errors import UserError
from .organisation import Organisation
from .pipeline import Pipeline

# The contract is not ours: its schema is the standard's own, https://github.com/bitol-io/open-data-contract-standard.
MODELS: dict[str, type[BaseModel]] = {"pipeline": Pipeline, "organisation": Organisation}

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of `pipeline` or `organisation`. Raises UserError for another name."""
    if name not in MODELS:
        raise UserError(f"there is no schema {name}. Known are: {', '.join(MODELS)}.")
    return {"$schema": _DIALECT, **MODELS[name].model_json_schema()}


def write_schemas(folder: Path | str) -> list[Path]:
    """Write every schema as NAME.schema.json into a folder and return the files."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name in MODELS:
            path = folder / f"{name}.schema.json"
            path.write_text(json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            files.append(path)
    except OSError as error:
        raise UserError(f"schemas cannot be written to {folder}: {error.strerror or error}.") from error
    return files
