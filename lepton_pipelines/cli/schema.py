"""`lepton schema`: the JSON Schema of a spec, for editors."""

import json

import typer


def schema(kind: str) -> None:
    """Print a spec's schema. Raises UserError for a kind that there is not."""
    from lepton_pipelines.spec.schema import json_schema

    typer.echo(json.dumps(json_schema(kind), indent=2))
