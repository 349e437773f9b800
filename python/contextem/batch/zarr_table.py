"""The table of all columns of a batch as Zarr v3 arrays, for those who read stretches of rows, or from elsewhere.

    columns.zarr/
      row column class probability ...     (N,)   an array for each column of the Parquet tables, rows in their order
      micrograph                           (N,)   int32, index into the two below
      micrographs/name  micrographs/first_row     (M,)   of the micrographs that have rows, and the first of each

Classes are int8, their names among the attributes; a frame is -1 where the input is no series.  Rows lie in shards, one
file each, of chunks that are compressed apart.  A shard is written once, whole: parts of one that are written at a time
would overwrite each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem._extras import needs_extra
from contextem._output import replaced_folder
from contextem._schema import SCHEMAS
from contextem.columns import CLASSES

CHUNK = 1 << 16
"""Rows that are compressed together."""
SHARD = 1 << 20
"""Rows in a file, a multiple of `CHUNK`."""


def write_zarr(path: str | os.PathLike[str], tables: Sequence[Path], *, chunk: int = CHUNK, shard: int = SHARD) -> None:
    """Write the tables of a batch as one, whole or not at all; twice the same tables give twice the same bytes.

    Parameters
    ----------
    path : path-like
        Folder of the group; one that is there is replaced.
    tables : sequence of Path
        Parquet tables, in the order in which their rows follow; those that are not there are left out.
    chunk, shard : int
        Rows of a chunk and of a shard.  A shard of every column is held in memory, never more.

    Raises
    ------
    ModuleNotFoundError
        If zarr or pyarrow is not installed.
    ValueError
        If the tables have not all the same columns.
    """
    with needs_extra("batch"):
        import zarr
        from pyarrow import parquet

    found = [table for table in tables if table.exists()]
    rows = sum(parquet.read_metadata(table).num_rows for table in found)
    names: dict[str, int] = {}
    first_rows: list[int] = []
    with replaced_folder(path) as folder:
        group = zarr.create_group(folder, zarr_format=3)
        group.attrs.update({"schema": SCHEMAS["classification"], "rows": rows, "contextem_version": __version__})
        writer: _Writer | None = None
        for batch in _batches(found, chunk):
            if writer is None:
                writer = _Writer(group, batch.schema, rows, chunk, shard)
            values = {field.name: _numbers(field.name, batch.column(field.name), names) for field in batch.schema}
            _note_first(values["micrograph"], writer.row, first_rows)
            writer.write(values)
        _write_micrographs(group, list(names), first_rows)


def _batches(tables: Sequence[Path], rows: int) -> Iterator[Any]:
    """Yield the rows of all tables, at most some at a time, and see that they have the same columns."""
    with needs_extra("batch"):
        from pyarrow import parquet

    schema = None
    for table in tables:
        with parquet.ParquetFile(table) as file:
            schema = schema or file.schema_arrow
            if not schema.equals(file.schema_arrow):
                raise ValueError(
                    f"tables: expected those of one version of contextem, got {table} with other columns than "
                    f"{tables[0]}; run the batch again with --overwrite"
                )
            yield from file.iter_batches(batch_size=rows)


def _numbers(name: str, array: Any, names: dict[str, int]) -> NDArray[Any]:
    """Return the values of a column of a table as numbers; micrographs are numbered as they come."""
    if name == "frame":
        return np.asarray(array.fill_null(-1))
    if name not in ("micrograph", "class"):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    told = array.dictionary.to_pylist()
    indices = np.asarray(array.indices)
    if name == "class":
        return np.asarray(np.array([CLASSES.index(each) for each in told], np.int8)[indices])
    used, first = np.unique(indices, return_index=True)
    numbers = np.zeros(len(told), np.int32)
    for index in used[np.argsort(first)].tolist():
        numbers[index] = names.setdefault(told[index], len(names))
    return np.asarray(numbers[indices])


def _note_first(micrographs: NDArray[np.int32], row: int, first_rows: list[int]) -> None:
    """Append the first row of each micrograph that had none before; `row` is that of the first value."""
    numbers, where = np.unique(micrographs, return_index=True)
    first_rows.extend((row + where[numbers >= len(first_rows)]).tolist())


class _Writer:
    """Arrays of a group, filled from the first row on, a shard at a time.

    Attributes
    ----------
    row : int
        The next.
    """

    def __init__(self, group: Any, schema: Any, rows: int, chunk: int, shard: int) -> None:
        self.row, self._rows, self._shard = 0, rows, shard
        self._arrays: dict[str, Any] = {}
        for field in schema:
            kind = {"micrograph": "int32", "class": "int8"}.get(field.name) or field.type.to_pandas_dtype()
            self._arrays[field.name] = _array(
                group, field.name, rows, kind, chunk, shard, attributes=_attributes(field), dimension="columns"
            )
        self._held = {name: np.empty(min(shard, rows), array.dtype) for name, array in self._arrays.items()}

    def write(self, values: dict[str, NDArray[Any]]) -> None:
        """Append rows."""
        count, taken = len(values["micrograph"]), 0
        while taken < count:
            start = self.row % self._shard
            piece = min(count - taken, self._shard - start)
            for name, held in self._held.items():
                held[start : start + piece] = values[name][taken : taken + piece]
            taken, self.row = taken + piece, self.row + piece
            if self.row % self._shard == 0 or self.row == self._rows:
                first = self.row - start - piece
                for name, array in self._arrays.items():
                    array[first : self.row] = self._held[name][: self.row - first]


def _attributes(field: Any) -> dict[str, Any]:
    if field.name == "class":
        return {"classes": list(CLASSES)}
    if field.name == "micrograph":
        return {"index_into": "micrographs/name"}
    if field.name == "frame":
        return {"none": -1}
    told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {"units": told["unit"]} if "unit" in told else {}


def _write_micrographs(group: Any, names: list[str], first_rows: list[int]) -> None:
    micrographs = group.create_group("micrographs")
    count = max(1, len(names))
    for name, kind, values in (("name", str, np.array(names, object)), ("first_row", "int64", np.array(first_rows))):
        array = _array(micrographs, name, len(names), kind, count, count, attributes={}, dimension="micrographs")
        if names:
            array[:] = values


def _array(
    group: Any, name: str, length: int, kind: Any, chunk: int, shard: int, *, attributes: dict[str, Any], dimension: str
) -> Any:
    with needs_extra("batch"):
        from zarr.codecs import ZstdCodec

    return group.create_array(
        name,
        shape=(length,),
        dtype=kind,
        chunks=(chunk,),
        shards=(shard,) if shard > chunk else None,
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value="" if kind is str else False if kind is np.bool_ else 0,
        attributes=attributes,
        dimension_names=(dimension,),
    )
