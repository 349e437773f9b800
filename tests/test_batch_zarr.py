"""The table of a batch as Zarr: the rows of the Parquet tables, read back by zarr, whole or not at all."""

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr
from classified import classification, posterior
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contextem.batch.zarr_table import write_zarr
from contextem.columns import CLASSES
from contextem.export.tables import arrow_table


def written(path, micrographs, seed=0):
    """A table as a batch writes it: (name, frame, number of columns) of each micrograph, a row group each."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for name, frame, count in micrographs:
        labels = rng.integers(0, len(CLASSES), count)
        rows = arrow_table(classification(rng.uniform(0, 500, (count, 2)), posterior(labels, rng.uniform(0.5, 1))))
        names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [name])
        rows = rows.add_column(0, "micrograph", names).add_column(1, "frame", pa.array([frame] * count, pa.int32()))
        writer = writer or parquet.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    writer.close()
    return path


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def frame_of(path):
    """All that is in a group, as pandas would read it from the Parquet tables."""
    group = zarr.open_group(path, mode="r")
    table = pd.DataFrame({name: array[:] for name, array in group.arrays()})
    table["class"] = np.array(group["class"].attrs["classes"])[table["class"]]
    table["micrograph"] = group["micrographs/name"][:][table["micrograph"]]
    return table


def expected(tables):
    table = pd.concat([pd.read_parquet(path) for path in tables], ignore_index=True)
    table["frame"] = table["frame"].fillna(-1).astype(np.int32)
    return table.astype({"class": str, "micrograph": str})


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two files, a series in two stretches, and an input of which nothing could be classified."""
    out = tmp_path_factory.mktemp("out") / "columns"
    return [
        written(out / "a" / "field.tif.parquet", [("a/field.tif", None, 37)], 1),
        written(out / "b" / "field.tif.parquet", [("b/field.tif", None, 61)], 2),
        out / "blank.tif.parquet",
        written(out / "s.tif.parquet" / "frames-000000.parquet", [("s.tif[0]", 0, 40), ("s.tif[1]", 1, 5)], 3),
        written(out / "s.tif.parquet" / "frames-000002.parquet", [("s.tif[2]", 2, 0), ("s.tif[3]", 3, 70)], 4),
    ]


@pytest.mark.parametrize(("chunk", "shard"), [(16, 32), (8, 8), (64, 64), (1 << 16, 1 << 20), (100, 200)])
def test_it_holds_the_rows_of_all_tables_in_their_order(tables, tmp_path, chunk, shard):
    write_zarr(tmp_path / "columns.zarr", tables, chunk=chunk, shard=shard)
    told, truth = frame_of(tmp_path / "columns.zarr"), expected([path for path in tables if path.exists()])
    assert len(told) == 37 + 61 + 45 + 70
    pd.testing.assert_frame_equal(told[list(truth)], truth, check_dtype=False, check_exact=True)
    assert set(told) == set(truth)
    group = zarr.open_group(tmp_path / "columns.zarr", mode="r")
    for name, array in group.arrays():
        assert (array.metadata.zarr_format, array.chunks) == (3, (chunk,))
        if name in truth and truth[name].dtype.kind in "fb":
            assert array.dtype == truth[name].dtype
    assert (group["class"].dtype, group["micrograph"].dtype, group["frame"].dtype) == ("int8", "int32", "int32")
    assert group["row"].attrs["units"] == group["column"].attrs["units"] == "px"
    assert group["entropy"].attrs["units"] == "bit"
    assert group.attrs["rows"] == len(truth)


def test_every_micrograph_is_found_by_its_first_row(tables, tmp_path):
    write_zarr(tmp_path / "columns.zarr", tables, chunk=16, shard=32)
    group = zarr.open_group(tmp_path / "columns.zarr", mode="r")
    names, first = group["micrographs/name"][:], group["micrographs/first_row"][:]
    assert dict(zip(names, first.tolist(), strict=True)) == {
        "a/field.tif": 0, "b/field.tif": 37, "s.tif[0]": 98, "s.tif[1]": 138, "s.tif[3]": 143,
    }  # fmt: skip
    stop = group["row"][first[3] : first[4]]
    np.testing.assert_array_equal(stop, pd.read_parquet(tables[3]).query("frame == 1")["row"])


def test_a_shard_is_one_file_and_is_read_without_the_others(tables, tmp_path):
    write_zarr(tmp_path / "columns.zarr", tables, chunk=16, shard=32)
    shards = sorted((tmp_path / "columns.zarr" / "row" / "c").iterdir(), key=lambda path: int(path.name))
    assert len(shards) == -(-213 // 32)
    for path in shards[1:]:
        path.unlink()
    truth = expected([path for path in tables if path.exists()])["row"]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "columns.zarr" / "row")[:32], truth[:32])


def test_it_is_the_same_twice(tables, tmp_path):
    for name in ("one.zarr", "two.zarr"):
        write_zarr(tmp_path / name, tables, chunk=16, shard=32)
    assert digest(tmp_path / "one.zarr") == digest(tmp_path / "two.zarr") != {}


@settings(max_examples=12)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    chunk=st.integers(1, 20),
    chunks=st.integers(1, 4),
)
def test_rows_do_not_depend_on_where_shards_end(tmp_path_factory, counts, chunk, chunks):
    folder = tmp_path_factory.mktemp("any")
    tables = [written(folder / f"{i}.parquet", [(f"{i}.tif", None, n)], i) for i, n in enumerate(counts)]
    write_zarr(folder / "z", tables, chunk=chunk, shard=chunk * chunks)
    if sum(counts):
        pd.testing.assert_frame_equal(
            frame_of(folder / "z")[list(expected(tables))], expected(tables), check_dtype=False, check_exact=True
        )
    else:
        assert not list(zarr.open_group(folder / "z", mode="r").arrays())


def test_a_batch_without_columns_has_an_empty_one(tmp_path):
    write_zarr(tmp_path / "columns.zarr", [tmp_path / "none.parquet"])
    group = zarr.open_group(tmp_path / "columns.zarr", mode="r")
    assert group.attrs["rows"] == 0
    assert group["micrographs/name"].shape == group["micrographs/first_row"].shape == (0,)


def test_it_takes_the_place_of_one_that_is_there_whole_or_not_at_all(tables, tmp_path):
    path = tmp_path / "columns.zarr"
    write_zarr(path, tables)
    before = digest(path)
    broken = tmp_path / "broken.parquet"
    content = tables[0].read_bytes()
    middle = len(content) // 4
    broken.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises((OSError, ValueError)):
        write_zarr(path, [tables[1], broken])
    assert digest(path) == before
    assert {each.name for each in tmp_path.iterdir()} == {"columns.zarr", "broken.parquet"}
    write_zarr(path, tables[:1])
    assert len(frame_of(path)) == 37
    assert {each.name for each in tmp_path.iterdir()} == {"columns.zarr", "broken.parquet"}


def test_tables_of_two_versions_are_refused(tables, tmp_path):
    other = tmp_path / "other.parquet"
    parquet.write_table(parquet.read_table(tables[1]).drop_columns(["entropy"]), other)
    with pytest.raises(ValueError, match=r"other\.parquet with other columns than .*field\.tif\.parquet"):
        write_zarr(tmp_path / "columns.zarr", [tables[0], other])
    assert not (tmp_path / "columns.zarr").exists()
