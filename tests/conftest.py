"""What every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the public data sets: LEPTON_DATA_MIRROR, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("LEPTON_DATA_MIRROR") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "heart-disease").is_dir():
        pytest.skip(f"no public data sets at {folder}: set LEPTON_DATA_MIRROR to a folder that holds them")
    return folder
