"""What became of every column: class, probability, entropy; counts, densities, table and picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from contextem._output import whole_file
from contextem._schema import SCHEMAS
from contextem.columns import CLASSES
from contextem.densities import Densities, densities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from contextem.grain_lattices import GrainLattice
    from contextem.micrograph import Micrograph
    from contextem.pairs import PairCorrelation
    from contextem.strain import StrainMap


UNITS = {"energy": "eV", "inner": "mrad", "outer": "mrad", "lattice_constant": "Å"}
"""Of the numbers in a summary whose names do not say it."""


@dataclass(frozen=True)
class Classification:
    """The classified columns of one micrograph.

    Attributes
    ----------
    positions : (N, 2) float64
        (row, column) in px.
    sublattice : (N,) int8
        0 or 1 for the two atomic sublattices of a grain; -1 where it is not known, as between grains.
    grain : (N,) int32
        Number of the lattice the column stands on; -1 for none.
    probabilities : (N, 5) float32
        Posterior of the classes, in the order of `contextem.columns.CLASSES`, from the column, its neighbourhood and
        the whole micrograph.
    patch_probabilities : (N, 5) float32
        Posterior of each column by itself, before the sublattices and the micrograph are heard.
    observed : (N,) bool
        False where the lattice demands a site at which no peak stands.
    complete : (N,) bool
        False where the patch leaves the image.
    familiarity : (N,) float32
        Log of the odds that the column, its neighbours and the stated context belong together, lowered where they look
        unusual.
    unknown : (N,) bool
        True where they do not: an adatom, a grain boundary, a second layer, or a context that is not that of the image.
        Such columns keep their class, but are not counted.
    contaminated : (N,) bool
        True under so much carbon that the class cannot be told; such columns are not counted either.
    sampling : float
        Å/px.
    lattice_constant : float
        Å, of the host.
    provenance : mapping
        Context, model and version, and where each value came from; goes into the summary.
    """

    positions: NDArray[np.float64]
    sublattice: NDArray[np.int8]
    grain: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    patch_probabilities: NDArray[np.float32]
    observed: NDArray[np.bool_]
    complete: NDArray[np.bool_]
    familiarity: NDArray[np.float32]
    unknown: NDArray[np.bool_]
    contaminated: NDArray[np.bool_]
    sampling: float
    lattice_constant: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.positions)
        shapes = {
            "positions": (n, 2),
            "sublattice": (n,),
            "grain": (n,),
            "probabilities": (n, len(CLASSES)),
            "patch_probabilities": (n, len(CLASSES)),
            "observed": (n,),
            "complete": (n,),
            "familiarity": (n,),
            "unknown": (n,),
            "contaminated": (n,),
        }
        for name, shape in shapes.items():
            if (got := np.shape(getattr(self, name))) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {got}")

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"<Classification of {len(self)} columns: {counts}>"

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) index of the most probable class."""
        labels: NDArray[np.int64] = np.argmax(self.probabilities, axis=1)
        return labels

    @property
    def entropy(self) -> NDArray[np.float32]:
        """(N,) entropy of the posterior in bits, 0 to log2(5) = 2.32."""
        p = self.probabilities
        entropy: NDArray[np.float32] = -np.sum(p * np.log2(np.maximum(p, np.finfo(np.float32).tiny)), axis=1)
        return entropy

    @property
    def stated_sampling(self) -> float:
        """Sampling stated by file or user, Å/px: that of the lattice takes its place where the two disagree."""
        return float(self.provenance.get("calibration", {}).get("stated_angstrom_per_px", self.sampling))

    @property
    def distortion(self) -> NDArray[np.float64]:
        """(2, 2) what the scan did to (row, column) apart from its sampling; see `contextem.calibration`."""
        return np.array(self.provenance.get("calibration", {}).get("distortion", np.eye(2)), np.float64)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N,) whether a column enters counts and densities: it is neither unknown nor contaminated."""
        return ~(self.unknown | self.contaminated)

    @property
    def counts(self) -> dict[str, int]:
        """Number of columns of each class among those counted."""
        return dict(zip(CLASSES, np.bincount(self.labels[self.counted], minlength=len(CLASSES)).tolist(), strict=True))

    def summary(self, *, spatial: bool = False) -> dict[str, Any]:
        """Return counts, dopant fraction and vacancy densities (cm^-2) with 95 % intervals, provenance, and units.

        See `contextem.densities` for what the intervals hold, why the expected count may differ from that of labels,
        and why incomplete columns, which "counts" tells too, are no sites of it.

        Parameters
        ----------
        spatial : bool
            Whether lattices of the grains, strain and pairs of defects are told too; seconds for 100,000 columns.
        """
        where = self.spatial_statistics() if spatial else {}
        return {
            "schema": SCHEMAS["classification"],
            "columns": len(self),
            "counts": self.counts,
            **densities(self).summary(),
            "unknown": int(np.sum(self.unknown)),
            "contaminated": int(np.sum(self.contaminated)),
            "not_observed": int(np.sum(~self.observed)),
            "not_complete": int(np.sum(~self.complete)),
            "mean_entropy_bits": float(self.entropy.mean()) if len(self) else None,
            "sampling_angstrom_per_px": self.sampling,
            "lattice_constant_angstrom": self.lattice_constant,
            **where,
            **self.provenance,
            "units": UNITS,
        }

    def spatial_statistics(self) -> dict[str, Any]:
        """Return lattices of the grains, strain, and whether defects stand at random, as values that JSON can hold.

        "grains" as `contextem.grain_lattices.grain_summary`; "strain" the standard deviation of each component; "pairs"
        for dopants and vacancies, where there are `contextem.pairs.ENOUGH`, p value and short-range order against
        random placement.
        """
        from contextem.grain_lattices import grain_summary
        from contextem.pairs import ENOUGH, KINDS, pair_correlation
        from contextem.strain import strain_map

        pairs = {}
        for kind in ("dopant", "vacancy"):
            if sum(self.counts[name] for name in KINDS[kind]) >= ENOUGH:
                found = pair_correlation(self, kind)
                order = found.short_range_order[0]
                pairs[kind] = {
                    "defects": found.defects[0],
                    "p_value": found.p_value,
                    "nearest_distance_angstrom": float(found.distance[0]),
                    "nearest_short_range_order": float(order) if np.isfinite(order) else None,
                }
        strain = strain_map(self)
        spread = {name: getattr(strain, name) for name in ("exx", "eyy", "exy", "rotation")}
        return {
            "grains": grain_summary(self),
            "strain_standard_deviation": {
                name: float(np.nanstd(values)) if np.isfinite(values).any() else None for name, values in spread.items()
            },
            "pairs": pairs,
        }

    def table(self) -> dict[str, NDArray[Any]]:
        """Return what is told of each column, as (N,) arrays by name: ``pandas.DataFrame(result.table())``.

        Row and column (px), class, its probability and those of all five, entropy (bit), familiarity, flags, sublattice
        and grain: what `to_csv` and `to_parquet` write.
        """
        from contextem.export.tables import table

        return table(self)

    def densities(self, **options: Any) -> Densities:
        """Return the shares of defects with intervals and detection limits, see `contextem.densities.densities`."""
        return densities(self, **options)

    def grain_lattices(self) -> tuple[GrainLattice, ...]:
        """Return the mean lattice of every grain, see `contextem.grain_lattices.grain_lattices`."""
        from contextem.grain_lattices import grain_lattices

        return grain_lattices(self)

    def pair_correlation(self, kind: str = "dopant", other: str | None = None, **options: Any) -> PairCorrelation:
        """Compare pairs of defects with random placement, see `contextem.pairs.pair_correlation`."""
        from contextem.pairs import pair_correlation

        return pair_correlation(self, kind, other, **options)

    def strain(self, **options: Any) -> StrainMap:
        """Return strain and rotation at every column, see `contextem.strain.strain_map`."""
        from contextem.strain import strain_map

        return strain_map(self, **options)

    def to_csv(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write `table()` as text."""
        from contextem.export.tables import write_csv

        write_csv(self, path, overwrite=overwrite)

    def to_parquet(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write `table()` as Parquet, with units and `summary()` in its metadata; needs the extra ``parquet``."""
        from contextem.export.tables import write_parquet

        write_parquet(self, path, overwrite=overwrite)

    def to_hdf5(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write everything, for `load`."""
        from contextem.export.hdf5 import write_hdf5

        write_hdf5(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classification:
        """Read what `to_hdf5` wrote: the same arrays to the bit, and the same provenance as far as JSON tells."""
        from contextem.export.hdf5 import read_hdf5

        return read_hdf5(cls, path)

    def to_json(self, path: str | os.PathLike[str], *, spatial: bool = False, overwrite: bool = True) -> None:
        """Write `summary()`, with or without what takes longer."""
        text = json.dumps(self.summary(spatial=spatial), indent=2, ensure_ascii=False) + "\n"
        with whole_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def to_hspy(self, path: str | os.PathLike[str], micrograph: Micrograph, *, overwrite: bool = True) -> None:
        """Write the micrograph for HyperSpy, in nm, with permanent markers for each class and what is unknown.

        Parameters
        ----------
        path : path-like
            A name that ends with ``.hspy``.
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
        from contextem.export.images import write_hspy

        write_hspy(self, path, micrograph, overwrite=overwrite)

    def to_emd(self, path: str | os.PathLike[str], micrograph: Micrograph, *, overwrite: bool = True) -> None:
        """Write the micrograph (Å), `table()` (px) and `summary()` as EMD 1.0, the format of py4DSTEM.

        Parameters
        ----------
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
        from contextem.export.images import write_emd

        write_emd(self, path, micrograph, overwrite=overwrite)

    def to_ase(
        self,
        *,
        dopant: str | None = None,
        chalcogen: str | None = None,
        thickness: float | None = None,
        unknown: Literal["keep", "drop"] = "keep",
        vacuum: float = 5.0,
    ) -> Any:
        """Return the atoms as `ase.Atoms`, so that what was found can be simulated again; needs the extra ``simulate``.

        x runs along the rows' index, y along the columns', the beam along +z, as in abTEM.  One projection does not
        tell which of its two atoms a single vacancy lacks, nor which of several dopants stands where: the chalcogen
        that the beam meets first is kept, and every dopant is the same one.

        Parameters
        ----------
        dopant : str, optional
            Element of the dopant columns; by default the first dopant of the context.
        chalcogen : str, optional
            Element of the chalcogen columns; by default that of the host, and needed where that is an alloy.
        thickness : float, optional
            Distance of the chalcogen planes, Å; by default that of the host, and needed where that is not known.
        unknown : {"keep", "drop"}
            Whether unknown and contaminated columns give the atoms of their most probable class, or none.
        vacuum : float
            Between the outermost columns and the borders of the cell along x and y, Å.

        Returns
        -------
        ase.Atoms
            Not periodic.  Arrays ``"column"``, the index of the column, and ``"class_probability"``; tags are indices
            into `contextem.columns.CLASSES`.  Pixel (0, 0) lies at ``info["origin"]``, Å.

        Raises
        ------
        ModuleNotFoundError
            If ASE is not installed.
        ValueError
            If an element or the thickness is needed and not told, or there is no column.
        """
        from contextem.export.structure import to_atoms

        return to_atoms(self, dopant=dopant, chalcogen=chalcogen, thickness=thickness, unknown=unknown, vacuum=vacuum)

    def plot(self, micrograph: Micrograph, title: str | None = None) -> Figure:
        """Draw the micrograph with its columns coloured by class, a scale bar and a legend with counts.

        Parameters
        ----------
        micrograph : Micrograph
            The image the columns were found in.
        title : str, optional
            A line above the image.

        Returns
        -------
        matplotlib.figure.Figure
            Save it with ``figure.savefig(path, dpi=200)``.

        Raises
        ------
        ValueError
            If the columns were not found in this micrograph.
        """
        from contextem.views import draw_overlay

        return draw_overlay(self, micrograph, title)

    def to_html(self, path: str | os.PathLike[str], micrograph: Micrograph, *, overwrite: bool = True) -> None:
        """Write a report of one page: what was found, figures, numbers, and where every value comes from.

        Parameters
        ----------
        path : path-like
            The file, an ``.html``; it opens in any browser and prints on A4.
        micrograph : Micrograph
            The image the columns were found in.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        FileExistsError
            If the file exists and may not be replaced.
        """
        from contextem.page import write_report

        write_report(path, self, micrograph, overwrite=overwrite)

    def _repr_html_(self) -> str:
        from contextem.page import classification_html

        return classification_html(self)
