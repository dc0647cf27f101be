"""Sources: every file once, in pieces, whoever wrote it; what is wrong is said before a row is read."""

import gzip

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import read_all, refusal_of, travelled

from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.validation import check
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError

WRITERS = {
    "pandas.parquet": lambda f, p: f.to_parquet(p, index=False),
    "polars.parquet": lambda f, p: pl.from_pandas(f).write_parquet(p),
    "old-spark.parquet": lambda f, p: pq.write_table(
        pa.Table.from_pandas(f, preserve_index=False),
        p,
        version="1.0",
        use_deprecated_int96_timestamps=True,
        flavor="spark",
        compression="gzip",
        data_page_version="1.0",
    ),
    "plain.csv": lambda f, p: f.to_csv(p, index=False),
    "packed.csv.gz": lambda f, p: f.to_csv(p, index=False),
    "packed.csv.zst": lambda f, p: (
        pl.from_pandas(f).write_csv(p, compression="zstd")
        if "compression" in pl.DataFrame.write_csv.__annotations__
        else _write_zst(f, p)
    ),
}


def _write_zst(frame, path):
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(frame.to_csv(index=False).encode())


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_the_same_from_every_writer(tmp_path, organisation, contract, patients, name):
    from lepton_pipelines.data.encoding import encode

    frame = patients()
    WRITERS[name](frame, tmp_path / name)
    source = open_source(organisation(tmp_path / name), contract)
    read = read_all(source)
    assert check(read, contract).found == ()
    one, other = encode(read, contract), encode(frame, contract)
    assert one.X.tobytes() == other.X.tobytes()
    assert one.label.tobytes() == other.label.tobytes()
    assert one.row_id.tolist() == other.row_id.tolist()


def test_only_the_contracts_columns_are_read(tmp_path, organisation, contract, patients):
    patients().assign(secret=1).to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path), contract)
    assert list(read_all(source).columns) == ["patient_id", "radius", "visits", "stage", "smoker", "malignant"]


def test_folders_give_every_file_once_and_their_names_are_columns(tmp_path, organisation, contract, patients):
    frame = patients()
    for stage, rows in frame.groupby("stage"):
        folder = tmp_path / f"stage={stage}"
        folder.mkdir()
        rows.drop(columns="stage").to_parquet(folder / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "stage=I" / ".part-0.parquet.crc").write_bytes(b"x")
    source = open_source(organisation(tmp_path), contract)
    read = read_all(source)
    pd.testing.assert_frame_equal(
        read.sort_values("patient_id", ignore_index=True)[["patient_id", "stage"]],
        frame[["patient_id", "stage"]],
        check_dtype=False,
    )


def test_row_groups_are_pieces_that_are_every_row_once(tmp_path, organisation, contract, patients, monkeypatch):
    monkeypatch.setattr("lepton_pipelines.data.sources._PIECE_ROWS", 12)
    frame = patients(50)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "p.parquet", row_group_size=5)
    source = travelled(open_source(organisation(tmp_path), contract))
    pieces = source.pieces()
    assert [p.rows for p in pieces] == [10, 10, 10, 10, 10]
    assert [p.first_row for p in pieces] == [0, 10, 20, 30, 40]
    assert source.rows == 50
    assert read_all(source)["patient_id"].tolist() == frame["patient_id"].tolist()


def test_columns_may_have_other_names_at_home(tmp_path, organisation, contract, patients):
    patients().rename(columns={"radius": "Radius mm"}).to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path, columns={"radius": "Radius mm"}), contract)
    assert "radius" in read_all(source).columns


def test_a_csv_without_a_header_takes_the_contracts_order(tmp_path, organisation, contract, patients):
    patients().to_csv(tmp_path / "p.csv", index=False, header=False)
    source = open_source(organisation(tmp_path, csv={"header": False}), contract)
    assert read_all(source)["patient_id"].tolist() == patients()["patient_id"].tolist()


def test_decimal_commas_are_read_as_numbers(tmp_path, organisation, contract, patients):
    patients().to_csv(tmp_path / "p.csv", index=False, sep=";", decimal=",")
    source = open_source(organisation(tmp_path, csv={"delimiter": ";", "decimal": ","}), contract)
    assert read_all(source)["radius"].sum() == pytest.approx(patients()["radius"].sum())


def test_large_keys_of_a_csv_stay_exact(tmp_path, organisation, contract, patients):
    frame = patients(first=2**60 + 1)
    frame.to_csv(tmp_path / "p.csv", index=False)
    read = read_all(open_source(organisation(tmp_path), contract))
    assert read["patient_id"].tolist() == frame["patient_id"].tolist()


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_a_large_csv_is_prepared_in_blocks_with_the_same_rows(
    tmp_path, organisation, contract, patients, split, monkeypatch, name
):
    frame = patients(3000)
    frame.loc[2500, "radius"] = -1
    frame.to_csv(tmp_path / name, index=False)
    source = open_source(organisation(tmp_path), contract)
    (piece,) = source.pieces()
    whole = prepare(source, piece, split)
    monkeypatch.setattr("lepton_pipelines.data.csv_file._BLOCK_BYTES", 7_001)
    sizes = [len(block) for block in source.blocks(piece)]
    assert len(sizes) > 5
    assert sum(sizes) == 3000
    blocks = prepare(source, piece, split, quarantine=tmp_path / "aside")
    assert {n: s.X.tobytes() for n, s in blocks.sets.items()} == {n: s.X.tobytes() for n, s in whole.sets.items()}
    assert blocks.violations.found == whole.violations.found
    (file,) = (tmp_path / "aside").iterdir()
    assert pd.read_parquet(file)["row"].tolist() == [2501]


def test_a_text_among_numbers_costs_no_other_block_its_numbers(tmp_path, organisation, contract, patients, monkeypatch):
    frame = patients(500).astype({"visits": object})
    frame.loc[400, "visits"] = "many"
    frame.to_csv(tmp_path / "p.csv", index=False)
    monkeypatch.setattr("lepton_pipelines.data.csv_file._BLOCK_BYTES", 5_000)
    source = open_source(organisation(tmp_path), contract)
    blocks = list(source.blocks(source.pieces()[0]))
    assert sum(block["visits"].dtype == "float64" for block in blocks) == len(blocks) - 1
    (violation,) = sum((check(block, contract) for block in blocks[1:]), check(blocks[0], contract)).found
    assert (violation.column, violation.values) == ("visits", ("'many'",))


class TestRefusals:
    """Each bad input has one message, with the organisation, the file or column, and the next step."""

    def test_a_missing_file(self, tmp_path, organisation, contract):
        assert "does not exist. Correct data.url" in refusal_of(organisation(tmp_path / "no.parquet"), contract)

    def test_an_empty_folder(self, tmp_path, organisation, contract):
        assert "no file is at" in refusal_of(organisation(tmp_path), contract)

    @pytest.mark.parametrize(
        ("log", "kind"),
        [
            ("below/_delta_log/00000000000000000000.json", "holds a Delta table"),
            ("metadata/v1.metadata.json", "holds an Iceberg table"),
            (".hoodie/hoodie.properties", "holds a Hudi table"),
        ],
    )
    def test_a_table_whose_log_says_which_files_count(self, tmp_path, organisation, contract, patients, log, kind):
        patients().to_parquet(tmp_path / "deleted.parquet")
        (tmp_path / log).parent.mkdir(parents=True)
        (tmp_path / log).write_text("{}")
        assert kind in refusal_of(organisation(tmp_path), contract)

    def test_files_of_another_kind(self, tmp_path, organisation, contract):
        (tmp_path / "p.xlsx").write_bytes(b"x")
        assert "found p.xlsx" in refusal_of(organisation(tmp_path), contract)

    def test_an_unknown_scheme(self, organisation, contract):
        assert "cannot be opened" in refusal_of(organisation("nosuch://bucket/x"), contract)

    def test_a_wrong_column_name_with_the_nearest(self, tmp_path, organisation, document, patients):
        document["schema"][0]["properties"][1]["name"] = "mean_radius"
        patients().rename(columns={"radius": "radius_mean"}).to_parquet(tmp_path / "p.parquet")
        told = refusal_of(organisation(tmp_path), parse_contract(document))
        assert 'column "mean_radius" is missing from' in told
        assert '(found "radius_mean")' in told
        assert "schema.properties" in told

    def test_an_empty_file(self, tmp_path, organisation, contract):
        for name in ("p.csv", "p.parquet"):
            (tmp_path / name).touch()
            assert f"{name} is empty" in refusal_of(organisation(tmp_path / name), contract)

    def test_a_header_without_rows(self, tmp_path, organisation, contract, patients):
        patients().head(0).to_csv(tmp_path / "p.csv", index=False)
        assert "holds a header and no rows" in refusal_of(organisation(tmp_path), contract)

    def test_a_parquet_without_rows(self, tmp_path, organisation, contract, patients):
        patients().head(0).to_parquet(tmp_path / "p.parquet")
        assert "holds no rows" in refusal_of(organisation(tmp_path), contract)

    def test_a_wrong_delimiter(self, tmp_path, organisation, contract, patients):
        patients().to_csv(tmp_path / "p.csv", index=False, sep=";")
        assert 'Set data.csv.delimiter: ";"' in refusal_of(organisation(tmp_path), contract)

    def test_mixed_encodings(self, tmp_path, organisation, contract, document, patients):
        document["schema"][0]["properties"][5]["customProperties"][0]["value"] = {"role": "group", "categories": ["a"]}
        frame = patients().assign(city="Zürich")
        (tmp_path / "p.csv").write_bytes(
            frame.to_csv(index=False).encode() + frame.to_csv(index=False, header=False).encode("latin-1")
        )
        told = refusal_of(organisation(tmp_path), parse_contract(document))
        assert "is not utf-8 throughout. Set data.csv.encoding" in told

    def test_an_unknown_encoding(self, tmp_path, organisation, contract, patients):
        patients().to_csv(tmp_path / "p.csv", index=False)
        told = refusal_of(organisation(tmp_path, csv={"encoding": "utf-9"}), contract)
        assert "data.csv.encoding utf-9 is not known" in told

    def test_duplicate_columns(self, tmp_path, organisation, contract, patients):
        text = patients().to_csv(index=False).replace("visits", "radius", 1)
        (tmp_path / "p.csv").write_text(text)
        assert 'column "radius" stands twice' in refusal_of(organisation(tmp_path), contract)

    def test_a_truncated_gz(self, tmp_path, organisation, contract, patients):
        packed = gzip.compress(patients(2000).to_csv(index=False).encode())
        (tmp_path / "p.csv.gz").write_bytes(packed[: len(packed) // 2])
        assert "ends too early or is damaged" in refusal_of(organisation(tmp_path), contract)

    def test_a_truncated_parquet(self, tmp_path, organisation, contract, patients):
        patients(2000).to_parquet(tmp_path / "p.parquet")
        whole = (tmp_path / "p.parquet").read_bytes()
        (tmp_path / "p.parquet").write_bytes(whole[: len(whole) // 2])
        assert "is not a parquet file" in refusal_of(organisation(tmp_path), contract)

    def test_a_ragged_csv(self, tmp_path, organisation, contract, patients):
        text = patients().to_csv(index=False) + "1,2,3\n"
        (tmp_path / "p.csv").write_text(text)
        assert "Check data.csv.delimiter" in refusal_of(organisation(tmp_path), contract)

    def test_a_file_that_changes_while_it_is_read(self, tmp_path, organisation, contract, patients):
        patients().to_parquet(tmp_path / "p.parquet")
        source = open_source(organisation(tmp_path), contract)
        patients(41).to_parquet(tmp_path / "p.parquet")
        with pytest.raises(UserError, match="changed while it was read"):
            source.read(source.pieces()[0])

    def test_another_unit(self, tmp_path, organisation, contract, patients):
        table = pa.Table.from_pandas(patients(), preserve_index=False)
        place = table.schema.get_field_index("radius")
        field = table.schema.field("radius").with_metadata({"unit": "cm"})
        pq.write_table(table.cast(table.schema.set(place, field)), tmp_path / "p.parquet")
        assert 'column "radius" is in cm, the contract wants mm' in refusal_of(organisation(tmp_path), contract)

    def test_nested_values(self, tmp_path, organisation, contract, patients):
        patients().assign(radius=[[1.0, 2.0]] * 40).to_parquet(tmp_path / "p.parquet")
        assert 'column "radius" is list' in refusal_of(organisation(tmp_path), contract)

    def test_an_unreadable_file(self, tmp_path, organisation, contract, patients, monkeypatch):
        import fsspec.implementations.local as local

        patients().to_parquet(tmp_path / "p.parquet")
        (tmp_path / "p.parquet").chmod(0)
        try:
            (tmp_path / "p.parquet").read_bytes()
        except PermissionError:
            pass
        else:
            # The superuser reads everything; only here is the refusal of the system stood in for.
            def denied(*_args: object, **_options: object) -> None:
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(local.LocalFileSystem, "_open", denied)
        assert "may not be read by this user" in refusal_of(organisation(tmp_path), contract)

    def test_storage_options_for_a_local_path(self, tmp_path, organisation, contract, patients):
        patients().to_parquet(tmp_path / "p.parquet")
        told = refusal_of(organisation(tmp_path, storage={"region": "eu-west-1"}), contract)
        assert "Take data.storage out" in told

    def test_all_missing_columns_are_told_at_once(self, tmp_path, organisation, contract, patients):
        patients().drop(columns=["radius", "visits"]).to_parquet(tmp_path / "p.parquet")
        told = refusal_of(organisation(tmp_path), contract)
        assert '"radius" is missing' in told
        assert '"visits" is missing' in told
