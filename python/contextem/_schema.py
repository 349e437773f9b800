"""The schemas of the files that this package writes, and one sentence for those that it cannot read.

Every kind of file has a number, which is written into it. It grows when a reader of the number before would misread the
file or fail; keys, columns and arrays that are only added to a table, a summary or a record leave it as it is. A reader
takes every number from `OLDEST` on, and a file without a number is of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from contextem import __version__

SCHEMAS: Mapping[str, int] = MappingProxyType(
    {
        "classification": 1,
        "model": 1,
        "batch": 1,
        "store of votes": 1,
        "simulated data set": 1,
        "set of scores": 1,
        "record of trials": 1,
    }
)
"""Number of each kind of file, as this version writes it."""

OLDEST: Mapping[str, int] = MappingProxyType(dict.fromkeys(SCHEMAS, 1))
"""The least number of each kind that this version reads."""

_REMEDIES = {
    "classification": "classify the micrograph again",
    "model": "train it again with `contextem train`",
    "batch": "choose another folder with -o",
    "store of votes": "export its labels with the version that wrote it",
    "simulated data set": "simulate it again with `contextem simulate`",
    "record of trials": "choose another folder with -o",
}


class SchemaError(ValueError):
    """A file is of another version of contextem, and cannot be read by this one."""


def check_schema(kind: str, schema: Any, source: str, writer: Any = None) -> None:
    """See that this version reads a file.

    Parameters
    ----------
    kind : str
        One of `SCHEMAS`.
    schema : int
        What the file tells; 1 where it tells none.
    source : str
        What is read, with the name of the argument in front.
    writer : str, optional
        Version of contextem that wrote it, where the file tells it.

    Raises
    ------
    SchemaError
        If not.

    Examples
    --------
    >>> check_schema("model", 1, "model: folder")
    >>> check_schema("model", 7, "model: folder", "3.2.0")
    Traceback (most recent call last):
    ...
    contextem._schema.SchemaError: model: folder holds a model of schema 7, written by contextem 3.2.0, and contextem \
0.1.0 reads schema 1; install contextem 3.2.0 or newer
    """
    newest, oldest = SCHEMAS[kind], OLDEST[kind]
    number = schema if isinstance(schema, int) and not isinstance(schema, bool) else 0
    if oldest <= number <= newest:
        return
    by = f"contextem {writer}" if writer else "another contextem"
    remedy = _REMEDIES[kind]
    if number > newest:
        remedy = f"install {by} or newer" if writer else "install a newer one"
    read = f"schema {newest}" if oldest == newest else f"schemas {oldest} to {newest}"
    raise SchemaError(
        f"{source} holds a {kind} of schema {schema!r}, written by {by}, and contextem {__version__} reads {read}; "
        f"{remedy}"
    )
