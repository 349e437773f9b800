"""A classification as an HDF5 file, and back.

Every array is a dataset by its name, every number an attribute of the file, every mapping a dataset with its JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from contextem._bounds import check_hdf5
from contextem._files import ReadError
from contextem._output import whole_file
from contextem.columns import CLASSES

if TYPE_CHECKING:
    from contextem.classification import Classification

    T = TypeVar("T", bound=Classification)

# Kinds of the numbers in arrays, and the types of all else.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("positions", "probabilities", "patch_probabilities", "familiarity"), "f"),
    **dict.fromkeys(("sublattice", "grain"), "i"),
    **dict.fromkeys(("observed", "complete", "unknown", "contaminated"), "b"),
}
_TYPES: Mapping[str, type] = {"sampling": float, "lattice_constant": float, "provenance": dict}

_HEADER = {"format": "contextem classification", "classes": list(CLASSES)}


def write_hdf5(result: Classification, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write everything that a classification holds.

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
    TypeError
        If the provenance holds what JSON cannot.
    """
    import h5py

    with whole_file(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(_HEADER)
        for each in fields(result):
            value = getattr(result, each.name)
            if isinstance(value, np.ndarray):
                file[each.name] = value
            elif isinstance(value, Mapping):
                file[each.name] = json.dumps(dict(value), ensure_ascii=False)
            elif value is not None:
                file.attrs[each.name] = value


def read_hdf5(kind: type[T], path: str | os.PathLike[str]) -> T:
    """Read what `write_hdf5` wrote.

    Parameters
    ----------
    kind : type
        The class to make.
    path : path-like
        The file.

    Returns
    -------
    Classification

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ReadError
        If it is none that `write_hdf5` wrote.
    """
    import h5py

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        with h5py.File(path) as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            header = {name: attributes.pop(name, None) for name in _HEADER}
            stored = {}
            if header == _HEADER:
                check_hdf5(file, path.name)
                stored = {name: _value(item) for name, item in file.items()}
    except PermissionError:
        raise
    except Exception as error:
        raise ReadError(
            f"path: {path.name} cannot be read as HDF5, it may be damaged ({' '.join(str(error).split())})"
        ) from error
    if header != _HEADER:
        raise ReadError(f"path: expected a {_HEADER['format']} of {', '.join(CLASSES)}, got {path.name} with {header}")
    stored |= attributes
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    odd = (needed - set(stored)) | (set(stored) - {each.name for each in fields(kind)})
    if odd:
        raise ReadError(
            f"path: {path.name} was written by another version of contextem, they differ in {sorted(map(str, odd))}"
        )
    for name, value in stored.items():
        _check_stored(path, name, value)
    try:
        return kind(**stored)
    except ValueError as error:
        raise ReadError(f"path: {path.name} is damaged ({error})") from error


def _check_stored(path: Path, name: str, value: Any) -> None:
    """Raise ReadError unless a value is of the type that is written under its name."""
    fits = isinstance(value, _TYPES.get(name, object))
    if name in _KINDS:
        fits = isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind == _KINDS[name]
    if not fits:
        raise ReadError(f"path: {path.name} is damaged, its {name} is none ({type(value).__name__})")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _value(item: Any) -> Any:
    value = item[()]
    return json.loads(value) if isinstance(value, bytes) else value
