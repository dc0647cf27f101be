"""An organisation as a process that trains a boosted model with the others, at a hub.

python training_program.py HOME PORT RUN
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from deadly_sums import die_after

import lepton_pipelines as lp
from lepton_pipelines.federation.runs import connect
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.organisation import Policy

PARAMETERS = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3}
ROUNDS = 12


def part_of(member: str) -> Any:
    """A third of scikit-learn's breast-cancer rows."""
    from sklearn.datasets import load_breast_cancer

    features, label = load_breast_cancer(return_X_y=True)
    mine = slice(("harbour", "north", "valley").index(member), None, 3)
    return lp.Dataset(features[mine].astype("float32"), label[mine].astype("float32"))


def model_of(member: str, sums: Any, **settings: Any) -> str:
    """Train, and return the digest of the model file."""
    booster = lp.train(PARAMETERS, part_of(member), ROUNDS, sums=sums, verbose_eval=False, **settings)
    return hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()


def main() -> int:
    home = OrganisationHome(Path(sys.argv[1]))
    with connect(sys.argv[3], home, policy=Policy(), address=f"localhost:{sys.argv[2]}") as sums:
        sums.wait_until_ready(200)
        if "--die" in sys.argv:
            die_after(sums, int(sys.argv[sys.argv.index("--die") + 1]))
        model = model_of(sums.member, sums)
        sums.finish(bytes.fromhex(model))
    print(json.dumps({"event": "model", "model": model, "sums": sums.traffic.sums}), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
