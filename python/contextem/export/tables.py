"""One row a column, as text and as Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contextem._extras import needs_extra
from contextem._output import whole_file
from contextem._schema import SCHEMAS
from contextem.columns import CLASSES

if TYPE_CHECKING:
    from contextem.classification import Classification

UNITS: Mapping[str, str] = MappingProxyType({"row": "px", "column": "px", "entropy": "bit"})
"""Unit of each entry that has one."""

# The arrays of a classification in the order of the table; others follow.
_OWN = ("familiarity", "observed", "complete", "unknown", "contaminated", "sublattice", "grain")
_DECIMALS = {"row": 3, "column": 3, "familiarity": 3}
_ROWS = 1 << 16  # formatted at a time


def table(result: Classification) -> dict[str, NDArray[Any]]:
    """Return what is told of each column, by name.

    Parameters
    ----------
    result : Classification
        N columns.

    Returns
    -------
    dict of str to ndarray, shape (N,)
        Row and column (px), class, its probability and those of all five, entropy (bit), then every (N,) array that the
        classification holds.
    """
    positions, p = result.positions, result.probabilities
    own = {f.name: getattr(result, f.name) for f in fields(result)}
    own = {name: own[name] for name in dict.fromkeys((*_OWN, *own)) if isinstance(own[name], np.ndarray)}
    return {
        "row": positions[:, 0],
        "column": positions[:, 1],
        "class": np.array(CLASSES)[result.labels],
        "probability": p.max(axis=1, initial=0.0),
        **dict(zip(CLASSES, p.T, strict=True)),
        "entropy": result.entropy,
        **{name: values for name, values in own.items() if values.ndim == 1},
    }


def write_csv(result: Classification, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write the table as text: numbers with a fixed number of decimals, truth as 1 and 0.

    Parameters
    ----------
    result : Classification
        What to write.
    path : path-like
        The file.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and may not be replaced.
    """
    columns = table(result)
    line = ",".join(_text_format(name, values) for name, values in columns.items()) + "\n"
    with (
        whole_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        file.write(",".join(columns) + "\n")
        for start in range(0, len(result), _ROWS):
            rows = zip(*(values[start : start + _ROWS].tolist() for values in columns.values()), strict=True)
            file.writelines(map(line.__mod__, rows))


def _text_format(name: str, values: NDArray[Any]) -> str:
    kinds = {"f": f"%.{_DECIMALS.get(name, 5)}f", "b": "%d", "i": "%d", "u": "%d"}
    return kinds.get(values.dtype.kind, "%s")


def write_parquet(result: Classification, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write the table as Parquet: typed, units in the metadata of the fields, the summary as JSON in that of the file.

    Parameters
    ----------
    result : Classification
        What to write.
    path : path-like
        The file.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is not installed.
    FileExistsError
        If the file exists and may not be replaced.
    """
    with needs_extra("parquet"):
        from pyarrow import parquet

    told = arrow_table(result)
    summary = json.dumps(result.summary(), ensure_ascii=False)
    told = told.replace_schema_metadata({**told.schema.metadata, "contextem_summary": summary})
    with whole_file(path, overwrite=overwrite) as temporary:
        parquet.write_table(told, temporary)


def arrow_table(result: Classification) -> Any:
    """Return the table as `pyarrow.Table`: classes as a dictionary, units and schema in the metadata.

    Parameters
    ----------
    result : Classification
        N columns.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is not installed.
    """
    with needs_extra("parquet"):
        import pyarrow as pa

    columns: dict[str, Any] = table(result)
    columns["class"] = pa.DictionaryArray.from_arrays(result.labels.astype(np.int8), list(CLASSES))
    arrays = [pa.array(values) for values in columns.values()]
    fields_ = [
        pa.field(name, array.type, metadata={"unit": UNITS[name]} if name in UNITS else None)
        for name, array in zip(columns, arrays, strict=True)
    ]
    about = {"contextem_schema": str(SCHEMAS["classification"])}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields_, metadata=about))
