"""The micrograph with its classified columns, as HyperSpy and as py4DSTEM (EMD 1.0) take it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem._output import whole_file
from contextem.columns import CLASSES
from contextem.export.tables import UNITS, table
from contextem.views import COLOURS, check_micrograph

if TYPE_CHECKING:
    from contextem.classification import Classification
    from contextem.micrograph import Micrograph

_COLOUR_OF = dict(zip((*CLASSES, "unknown", "contaminated"), (*COLOURS, "#FFFFFF", "#999999"), strict=True))
_RING = 0.8  # bonds, diameter of a marker: it frames its column and leaves the next one free


def write_image(path: str | os.PathLike[str], micrograph: Micrograph) -> None:
    """Write the pixels as float32 tif with their sampling, which ImageJ, HyperSpy and `contextem.read` understand.

    Parameters
    ----------
    path : str or path-like
        The file.
    micrograph : Micrograph
        What to write.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.micrograph import Micrograph, read
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "image.tif"
    ...     write_image(path, Micrograph(np.eye(64, dtype=np.float32), sampling=0.21))
    ...     round(read(path).sampling, 6)
    0.21
    """
    import tifffile

    per_nm = 10.0 / micrograph.sampling
    with whole_file(path) as temporary:
        tifffile.imwrite(
            temporary, micrograph.as_float("float32"), imagej=True, resolution=(per_nm, per_nm), metadata={"unit": "nm"}
        )


def write_hspy(
    result: Classification,
    path: str | os.PathLike[str],
    micrograph: Micrograph,
    *,
    overwrite: bool = True,
) -> None:
    """Write a file that HyperSpy opens as a calibrated image with markers.

    Parameters
    ----------
    result : Classification
        What to write.
    path : path-like
        The file; HyperSpy wants its name to end with ``.hspy``.
    micrograph : Micrograph
        The image the columns were found in.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        If the columns were not found in this micrograph, or the name ends otherwise.
    FileExistsError
        If the file exists and may not be replaced.
    """
    from rsciio.hspy import file_writer

    check_micrograph(result, micrograph)
    if Path(path).suffix != ".hspy":
        raise ValueError(f"path: expected a name that ends with .hspy, got {os.fspath(path)!r}")
    scale = result.sampling / 10.0  # nm/px
    chosen = {name: (result.labels == index) & result.counted for index, name in enumerate(CLASSES)}
    chosen |= {"unknown": result.unknown, "contaminated": result.contaminated & ~result.unknown}
    markers = {
        name: {
            "class": "Circles",
            "name": name,
            "plot_on_signal": True,
            "offset_transform": "data",
            "transform": "display",
            "ScalarMappable_array": None,
            "kwargs": {
                "offsets": scale * result.positions[mask, ::-1],  # (x, y)
                "sizes": (_RING * result.lattice_constant / np.sqrt(3.0) / 10.0,),
                "units": "x",
                "facecolors": "none",
                "edgecolors": _COLOUR_OF[name],
                "linewidths": 1.5,
            },
        }
        for name, mask in chosen.items()
        if mask.any()
    }
    recording = _recording(result, micrograph)
    microscope: dict[str, Any] = {"acquisition_mode": "STEM"}
    if recording["energy"] is not None:
        microscope["beam_energy"] = recording["energy"] / 1e3  # keV
    if recording["detector"] is not None:
        microscope["Detector"] = recording["detector"]
    signal = {
        "data": micrograph.data,
        "axes": [
            {
                "_type": "UniformDataAxis",
                "name": name,
                "size": size,
                "scale": scale,
                "offset": 0.0,
                "units": "nm",
                "navigate": False,
                "is_binned": False,
            }
            for name, size in zip("yx", micrograph.shape, strict=True)
        ],
        "metadata": {
            "General": {"title": micrograph.source or "micrograph"},
            "Signal": {"signal_type": ""},
            "Acquisition_instrument": {"TEM": microscope},
            "Markers": markers,
        },
        "original_metadata": {"contextem": result.summary()},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "", "package_version": ""},
        "learning_results": {},
        "models": {},
        "tmp_parameters": {},
    }
    with whole_file(path, overwrite=overwrite) as temporary:
        file_writer(str(temporary), signal, show_progressbar=False)


def write_emd(
    result: Classification, path: str | os.PathLike[str], micrograph: Micrograph, *, overwrite: bool = True
) -> None:
    """Write an EMD 1.0 file: the image as an Array in Å, the columns as a PointList in px, the summary as Metadata.

    Parameters
    ----------
    result : Classification
        What to write.
    path : path-like
        The file.
    micrograph : Micrograph
        The image the columns were found in.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        If the columns were not found in this micrograph.
    FileExistsError
        If the file exists and may not be replaced.
    """
    import h5py

    check_micrograph(result, micrograph)
    with whole_file(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            {
                "emd_group_type": "file",
                "version_major": 1,
                "version_minor": 0,
                "UUID": str(uuid.uuid4()),
                "authoring_program": "contextem",
                "authoring_user": "",
            }
        )
        root = _emd_group(file, "contextem", "Root", summary=result.summary())

        array = _emd_group(root, "micrograph", "Array", recording=_recording(result, micrograph))
        array["data"] = micrograph.data
        array["data"].attrs["units"] = ""
        for axis, name in enumerate(("row", "column")):
            array[f"dim{axis}"] = np.array([0.0, result.sampling])  # the first two of evenly spaced ones
            array[f"dim{axis}"].attrs.update({"name": name, "units": "A"})

        points = _emd_group(root, "columns", "PointList", meaning={"units": dict(UNITS), "classes": list(CLASSES)})
        for name, values in (table(result) | {"class": result.labels.astype(np.int8)}).items():
            points[name] = values
            points[name].attrs["dtype"] = np.bytes_(values.dtype)


def _recording(result: Classification, micrograph: Micrograph) -> dict[str, Any]:
    """Return source, energy (eV) and detector: as the classification took them, else as the micrograph has them."""
    own = {
        "energy": micrograph.energy,
        "detector": None if micrograph.detector is None else micrograph.detector.to_dict(),
    }
    stated = result.provenance.get("context", {})
    return {"source": micrograph.source} | {name: stated.get(name) or value for name, value in own.items()}


def _emd_group(parent: Any, name: str, kind: str, **metadata: Mapping[str, Any]) -> Any:
    """Make a node of the EMD tree with its metadata, by name; it keeps the order of what is put into it."""
    group = parent.create_group(name, track_order=True)
    group.attrs.update({"emd_group_type": kind.lower(), "python_class": kind})
    if metadata:
        bundle = group.create_group("metadatabundle")
        bundle.attrs["emd_group_type"] = "metadatabundle"
        for title, values in metadata.items():
            _emd_group(bundle, title, "Metadata")
            for key, value in values.items():
                _emd_item(bundle[title], key, value)
    return group


def _emd_item(group: Any, key: str, value: Any) -> None:
    """Put one value of the metadata into a group; what EMD has no type for goes as JSON."""
    if isinstance(value, Mapping):
        group.create_group(key).attrs["type"] = "dict"
        for name, each in value.items():
            _emd_item(group[key], name, each)
        return
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        group.create_group(key).attrs.update({"type": "list_of_strings", "length": len(value)})
        for i, each in enumerate(value):
            group[key][str(i)] = each.encode()
        return
    if value is None:
        kind, value = "None", b"_None"
    elif isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, int | float):
        kind = "number"
    elif isinstance(value, list) and all(isinstance(each, int | float) for each in value):
        kind = "list"
    else:
        kind, value = "string", (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    group[key] = value
    group[key].attrs["type"] = kind.encode()
