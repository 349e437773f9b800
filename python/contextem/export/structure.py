"""The atoms that a classification tells of, so that a defect found can be simulated again.

    (x, y) = (x0, y0) + s D^-1 (row, column)       s the sampling, D the distortion of the scan, (x0, y0) where pixel
                                                   (0, 0) lies in the cell
x runs along the rows' index and the beam along +z, as in abTEM and in `contextem.simulate`; the cell has the three
planes of `contextem.simulate.structures.supercell`, chalcogens at t/4 and 5t/4 and metals at 3t/4 of a cell 3t/2 high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from contextem._extras import needs_extra
from contextem.columns import CLASSES
from contextem.context import Context
from contextem.elements import SYMBOLS
from contextem.micrograph import check_number

if TYPE_CHECKING:
    from contextem.classification import Classification

Unknown = Literal["keep", "drop"]

THICKNESS_RANGE = (1.0, 10.0)
"""Distances of the chalcogen planes of a monolayer, Å."""

VACUUM_RANGE = (0.0, 1e4)
"""Å."""

METAL, DOPANT, X2, SINGLE_VACANCY, DOUBLE_VACANCY = range(len(CLASSES))


def to_atoms(
    result: Classification,
    *,
    dopant: str | None = None,
    chalcogen: str | None = None,
    thickness: float | None = None,
    unknown: Unknown = "keep",
    vacuum: float = 5.0,
) -> Any:
    """Make the atoms of a classification.

    Parameters
    ----------
    result : Classification
        Its provenance holds the context: host and dopants.
    dopant : str, optional
        Element of the dopant columns; by default the first dopant of the context.
    chalcogen : str, optional
        Element of the chalcogen columns; by default that of the host, and needed where that is an alloy.
    thickness : float, optional
        Distance t of the chalcogen planes, Å; by default that of the host, and needed where that is not known.
    unknown : {"keep", "drop"}
        Whether unknown and contaminated columns give the atoms of their most probable class, or none.
    vacuum : float
        Between the outermost columns and the borders of the cell along x and y, Å.

    Returns
    -------
    ase.Atoms
        Not periodic.  Arrays ``"column"``, the index of the column, and ``"class_probability"``; tags are indices into
        `contextem.columns.CLASSES`.  ``info["origin"]`` is (x0, y0), Å.

    Raises
    ------
    ModuleNotFoundError
        If ASE is not installed.
    ValueError
        If an element or the thickness is needed and not told, or there is no column.
    """
    with needs_extra("simulate"):
        from ase import Atoms

    if "context" not in result.provenance:
        raise ValueError("provenance: expected the context of the classification, got none; classify() puts it there")
    if unknown not in get_args(Unknown):
        raise ValueError(f"unknown: expected one of {', '.join(get_args(Unknown))}, got {unknown!r}")
    context = Context.from_dict(result.provenance["context"])
    kept = np.flatnonzero(result.counted | (unknown == "keep"))
    if len(kept) == 0:
        raise ValueError(f"columns: expected at least one to make atoms of, got none of {len(result)}")
    labels = result.labels[kept]
    dopant = dopant or next(iter(context.dopants), None)
    if dopant is None and (labels == DOPANT).any():
        raise ValueError(
            f"dopant: {np.sum(labels == DOPANT)} columns are dopants and the context names none, give its element"
        )
    elements = {"metal": context.metal, "dopant": dopant or context.metal, "chalcogen": chalcogen or context.chalcogen}
    for name, symbol in elements.items():
        if symbol not in SYMBOLS:
            raise ValueError(f"{name}: expected one element, got {symbol!r}, give it as {name}=...")
    thickness = context.thickness if thickness is None else thickness
    if thickness is None:
        raise ValueError(f"thickness: that of {context.host} is not known, give it in Å as thickness=...")
    t = check_number("thickness", thickness, "Å", THICKNESS_RANGE)
    margin = check_number("vacuum", vacuum, "Å", VACUUM_RANGE)

    planes = [  # the columns that have an atom there, its height
        (labels <= DOPANT, 0.75 * t),
        ((labels == X2) | (labels == SINGLE_VACANCY), 0.25 * t),
        (labels == X2, 1.25 * t),
    ]
    which = np.concatenate([np.flatnonzero(there) for there, _ in planes])
    z = np.concatenate([np.full(there.sum(), height) for there, height in planes])
    order = np.argsort(which, kind="stable")
    which, z = which[order], z[order]

    xy = result.sampling * result.positions[kept] @ np.linalg.inv(result.distortion).T
    origin = margin - xy.min(axis=0)
    metal, doped, x = elements.values()
    atoms: Any = Atoms(
        np.array([metal, doped, x, x, x])[labels[which]].tolist(),
        positions=np.column_stack([xy[which] + origin, z]),
        cell=[*(np.ptp(xy, axis=0) + 2.0 * margin), 1.5 * t],
        tags=labels[which],
        info={"origin": origin, "host": context.host, "dopants": dict(context.fractions)},
    )
    atoms.set_array("column", kept[which])
    atoms.set_array("class_probability", result.probabilities[kept[which], labels[which]])
    return atoms
