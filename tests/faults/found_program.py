"""An organisation as a process that trains at a hub by a contract whose wards are found.

python found_program.py HOME PORT RUN --example FOLDER [--die SUM]
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from deadly_sums import die_after

from lepton_pipelines.federation.runs import connect
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import Policy, read_organisation
from lepton_pipelines.spec.pipeline import read_pipeline

WARDS = {"harbour": ("b", "10", "9"), "north": ("a", "b", "c"), "valley": ("c", "10")}


def ward(hospital: str, rows: pd.DataFrame) -> pd.Series:
    """A ward for every patient, which tells something of the label; five of north's are in a ward of their own."""
    draw = np.random.default_rng(len(hospital))
    known = np.array(WARDS[hospital], dtype=object)
    noisy = np.where(draw.random(len(rows)) < 0.85, rows["malignant"].astype(int), draw.integers(0, 2, len(rows)))
    place = np.where(noisy == 1, 0, 1 + draw.integers(0, len(known) - 1, len(rows)))
    found = known[place]
    if hospital == "north":
        found[:5] = "attic"
    return pd.Series(found, index=rows.index)


def train(part: OrganisationRun) -> dict[str, Any]:
    """Do a part's steps up to the model."""
    try:
        ingested = part.ingest()
        part.validate()
        part.bin()
        return {"categories": ingested.categories, "model": part.train().digest}
    finally:
        part.close()


def main() -> int:
    home, folder = OrganisationHome(Path(sys.argv[1])), Path(sys.argv[sys.argv.index("--example") + 1])
    name = home.organisation
    with connect(sys.argv[3], home, policy=Policy(), address=f"localhost:{sys.argv[2]}") as sums:
        sums.wait_until_ready(200)
        if "--die" in sys.argv:
            die_after(sums, int(sys.argv[sys.argv.index("--die") + 1]))
        run_folder = RunFolder(folder / "var" / name, sys.argv[3])
        pipeline, own = read_pipeline(folder / "pipeline.yaml"), read_organisation(folder / f"{name}.yaml")
        said = train(OrganisationRun(pipeline, own, sums, run_folder, share=3, repeats=True))
        sums.finish(bytes.fromhex(said["model"]))
    print(json.dumps({"event": "model", **said}), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
