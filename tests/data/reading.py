"""What tests of sources do with one: read all of it, send it away, have it refused."""

import pickle

import pandas as pd
import pytest

from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.errors import UserError


def read_all(source):
    return pd.concat([source.read(piece) for piece in source.pieces()], ignore_index=True)


def travelled(source):
    return pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes, as Dask sends them


def refusal_of(organisation, contract):
    with pytest.raises(UserError) as refused:
        read_all(open_source(organisation, contract))
    assert str(refused.value).startswith("harbour: ")
    return str(refused.value)
