"""Descriptions that MLCommons' own library reads."""

import json

import pytest

from lepton_pipelines.market.croissant import describe
from lepton_pipelines.market.product import read_product


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("shareable", [False, True])
def test_mlcroissant_accepts_a_description_and_finds_the_columns(market, tmp_path, shareable):
    mlcroissant = pytest.importorskip("mlcroissant")
    more = (
        f"shareable: {{url: 's3://open/rows.parquet', digest: {'ab' * 32}, licence: CC-BY-4.0}}\n" if shareable else ""
    )
    product, _, contract = read_product(market.write(more=more))
    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(describe(product, contract)))
    dataset = mlcroissant.Dataset(path)
    (records,) = dataset.metadata.record_sets
    assert [field.name for field in records.fields] == [c.name for c in contract.columns if c.role != "unused"]
    (rows,) = dataset.metadata.distribution
    assert (getattr(rows, "content_url", None) is not None) == shareable
    assert not dataset.metadata.ctx.issues.errors
