"""`lepton demo`: the healthcare example, as `make demo` runs it."""

from pathlib import Path

import typer

from lepton_pipelines.cli import run as command
from lepton_pipelines.spec.errors import UserError

EXAMPLE = Path(__file__).parents[2] / "examples" / "healthcare"


def demo(*, var: Path) -> None:
    """Train one model over three hospitals' patients. Writes their rows first, if that was not done yet."""
    example = hospitals()
    typer.echo("  healthcare demo   three hospitals, 569 patients, none leaves its hospital\n")
    command.run(example / "pipeline.yaml", resume=None, var=var, noun="hospital", plural="patients")


def hospitals() -> Path:
    """Return the example's folder, with the hospitals' rows written. Raises UserError if it is not installed."""
    if not (EXAMPLE / "pipeline.yaml").is_file():
        raise UserError("The examples are not installed with the package: clone the repository and run it there.")
    if not all((EXAMPLE / "data" / name / "patients.parquet").is_file() for name in ("north", "harbour", "valley")):
        write_hospitals()
    return EXAMPLE


def write_hospitals() -> None:
    """Deal scikit-learn's breast cancer rows out to the hospitals, as the example's script does."""
    import runpy

    make = runpy.run_path(str(EXAMPLE / "make_hospitals.py"))
    make["write"](EXAMPLE / "data")
