"""What is said of micrographs in YAML files beside them: the specimen, the recording, and which image of a file.

`field.yaml` beside `field.dm4` speaks of this file, `contextem.yaml` of all files in its folder::

    host: WSe2
    dopants: [Cr]
    fractions: {Cr: 0.02}                             # of the metal sites; left out if unknown
    lattice_constant: 3.32                            # Å, for a host that is not known
    energy_kev: 80
    detector: {name: HAADF, inner: 70, outer: 200}    # mrad; or only the name
    sampling: 0.2                                     # Å/px, or estimate
    signal: HAADF                                     # name or number of the image, of several in a file
    frame: 0                                          # number of the image in a series

and of a scan of diffraction patterns, whose images are computed::

    scan_shape: [256, 256]                            # rows, columns; for files that hold patterns one after another
    angular_sampling: 1.5                             # mrad/px of a pattern
    centre: [127.5, 128]                              # row, column of the undiffracted beam, px; found if left out
    detectors:                                        # mrad; one image is computed for each
      - {name: HAADF, inner: 70, outer: 200}
      - {name: MAADF, inner: 40, outer: 70}

Every line may be left out.  What is nearer to the file comes first, and what is said on the command line before all.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from contextem._bounds import read_text
from contextem.context import Context
from contextem.diffraction import ANGULAR_SAMPLING_RANGE, check_scan_shape
from contextem.micrograph import (
    LATTICE_CONSTANT_RANGE,
    SAMPLING_RANGE,
    Detector,
    check_energy,
    check_number,
    in_figures,
)

__all__ = ["COMMAND_LINE", "FOLDER_SIDECAR", "KEYS", "Settings", "parse_settings", "read_settings", "settings_of"]

FOLDER_SIDECAR = "contextem.yaml"
"""Name of the file that speaks of all files in its folder."""

COMMAND_LINE = "command line"
"""Origin of what is given as options."""

_SUFFIXES = (".yaml", ".yml")
_LONGEST = 1 << 16  # bytes


@dataclass(frozen=True)
class Settings:
    """What is said of one micrograph; None where nothing is said.

    Attributes
    ----------
    host : str or None
        Formula MX2.
    dopants : tuple of str or None
        Elements on metal sites.
    fractions : mapping of str to float or None
        Fraction of the metal sites each dopant occupies.
    lattice_constant : float or None
        Å.
    energy : float or None
        Beam energy, eV.
    detector : Detector or None
        Name and, where they are given, collection angles in mrad.
    sampling : float, "estimate" or None
        Å/px.
    signal : int, str or None
        Index or name of the image in a file that holds several.
    frame : int or None
        Index of the image in a series.
    scan_shape : tuple of two ints or None
        Rows and columns of a scan of diffraction patterns.
    angular_sampling : float or None
        Of these patterns, mrad/px.
    centre : tuple of two floats or None
        (row, column) of the undiffracted beam in them, px.
    detectors : tuple of Detector or None
        Those whose images are computed of them, with collection angles in mrad.
    origin : dict of str to str
        Of each value that is given, by name: where it is given.

    Examples
    --------
    >>> folder = parse_settings({"host": "WSe2", "energy_kev": 80}, "sidecar contextem.yaml")
    >>> file = parse_settings({"energy_kev": 60}, "sidecar field.yaml").over(folder)
    >>> file.host, file.energy, file.origin["energy"]
    ('WSe2', 60000.0, 'sidecar field.yaml')
    """

    host: str | None = None
    dopants: tuple[str, ...] | None = None
    fractions: Mapping[str, float] | None = None
    lattice_constant: float | None = None
    energy: float | None = None
    detector: Detector | None = None
    sampling: float | Literal["estimate"] | None = None
    signal: int | str | None = None
    frame: int | None = None
    scan_shape: tuple[int, int] | None = None
    angular_sampling: float | None = None
    centre: tuple[float, float] | None = None
    detectors: tuple[Detector, ...] | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: Settings) -> Settings:
        """Return these settings, completed by others where they say nothing.

        Parameters
        ----------
        other : Settings
            What is said less near to the file.

        Returns
        -------
        Settings
            A detector counts as one value, so that no name is joined with the angles of another one; fractions of other
            dopants than those stated here are left out.
        """
        if self.dopants is not None and self.fractions is None and set(other.fractions or ()) != set(self.dopants):
            other = replace(other, fractions=None)
        taken = {name: value for name, value in _given(other).items() if name not in _given(self)}
        return replace(self, **taken, origin={name: other.origin[name] for name in taken} | dict(self.origin))

    def with_angles(self, inner: float, outer: float, origin: str) -> Settings:
        """Return these settings with other collection angles.

        Parameters
        ----------
        inner, outer : float
            mrad.
        origin : str
            Where they are given.

        Returns
        -------
        Settings

        Raises
        ------
        ValueError
            If no detector is named, or the angles are not possible ones.
        """
        if self.detector is None:
            raise ValueError(
                "inner: expected collection angles together with the name of their detector, got none, give it as "
                "--detector or as detector in a YAML file"
            )
        return replace(
            self, detector=Detector(self.detector.name, inner, outer), origin={**self.origin, "detector": origin}
        )

    def context(self) -> Context:
        """Return the context of the specimen; energy and detector are left to the micrograph read with these settings.

        Raises
        ------
        ValueError, TypeError
            If the host is missing, or as for `Context`.
        """
        if self.host is None:
            raise ValueError(
                "host: expected the formula of the host monolayer, such as WSe2, got none, give it as --host, or as "
                f"host in a YAML file beside the micrograph or in {FOLDER_SIDECAR}"
            )
        dopants = tuple(self.fractions or ()) if self.dopants is None else self.dopants
        named = ("host", "dopants", "fractions", "lattice_constant")
        try:
            return Context(
                self.host,
                dopants,
                fractions=self.fractions,
                lattice_constant=self.lattice_constant,
                provenance={name: self.origin[name] for name in named if name in self.origin},
            )
        except (TypeError, ValueError) as error:
            origin = self.origin.get(str(error).split(":")[0], COMMAND_LINE)
            raise error if origin == COMMAND_LINE else type(error)(f"{error} ({origin})") from None


def settings_of(file: Path, given: Settings = Settings(), context_file: Settings = Settings()) -> Settings:
    """Return what is said of one file, the nearest first.

    Parameters
    ----------
    file : Path
        A micrograph, which need not exist.
    given : Settings
        What is said on the command line; it stands before all.
    context_file : Settings
        What is said in a file named on the command line; it stands before the files beside the micrograph.

    Returns
    -------
    Settings

    Raises
    ------
    ValueError, TypeError, OSError
        As for `read_settings`, and if a micrograph has two files beside it that speak of it.
    """
    settings = given.over(context_file)
    for stem in dict.fromkeys((file.stem, Path(FOLDER_SIDECAR).stem)):
        found = [path for path in (file.with_name(f"{stem}{suffix}") for suffix in _SUFFIXES) if path.exists()]
        if len(found) > 1:
            raise ValueError(f"{found[0]}: expected one file of this name, got {found[1].name} too, join them")
        if found:
            settings = settings.over(read_settings(found[0]))
    return settings


def read_settings(path: Path, origin: str | None = None) -> Settings:
    """Read the settings in a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    origin : str, optional
        How the provenance names it; ``"sidecar NAME"`` by default.

    Returns
    -------
    Settings

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError, TypeError
        If it is no YAML mapping, has an unknown key, or a value that is not a possible one.
    """
    import yaml

    text = read_text(path, _LONGEST)
    try:
        # a few aliases of aliases stand for more text than there is memory
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("an alias such as *name, write out what it stands for")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        raise ValueError(f"{path}: expected YAML, got what is none ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict | None):
        raise ValueError(f"{path}: expected lines such as `host: WSe2`, got {type(values).__name__}")
    try:
        return parse_settings(values or {}, origin or f"sidecar {path.name}")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def parse_settings(values: Mapping[str, Any], origin: str) -> Settings:
    """Check values with their names and units as in the files.

    Parameters
    ----------
    values : mapping
        By names out of `KEYS`.
    origin : str
        Where they are given; from `COMMAND_LINE`, messages name options instead of keys.

    Returns
    -------
    Settings

    Raises
    ------
    ValueError, TypeError
        If a key is unknown, or a value not a possible one.

    Examples
    --------
    >>> parse_settings({"energy": 80}, "sidecar field.yaml")
    Traceback (most recent call last):
    ...
    ValueError: energy: unknown key, did you mean energy_kev? Known are host, dopants, fractions, lattice_constant, \
energy_kev, detector, sampling, signal, frame, scan_shape, angular_sampling, centre, detectors
    """
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS:
            raise ValueError(_unknown(str(key), tuple(KEYS)))
        name = _option(key) if origin == COMMAND_LINE else key
        if value is None:
            raise ValueError(f"{name}: expected a value, got none, leave the line out")
        checked[key.removesuffix("_kev")] = KEYS[key](name, value)
    return Settings(**checked, origin=dict.fromkeys(checked, origin))


def _given(settings: Settings) -> dict[str, Any]:
    values = {entry.name: getattr(settings, entry.name) for entry in fields(Settings) if entry.name != "origin"}
    return {name: value for name, value in values.items() if value is not None}


def _option(key: str) -> str:
    return "--" + {"dopants": "dopant", "detectors": "annulus"}.get(key, key).replace("_", "-")


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    guess = f", did you mean {near[0]}?" if near else "."
    return f"{key}: unknown key{guess} Known are {', '.join(known)}"


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, got {value!r}")
    return value


def _check_elements(name: str, value: Any) -> tuple[str, ...]:
    elements = [value] if isinstance(value, str) else value
    if not isinstance(elements, list | tuple) or not all(isinstance(element, str) for element in elements):
        raise TypeError(f"{name}: expected an element or a list of elements such as [Cr, V], got {value!r}")
    return tuple(elements)


def _check_fractions(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not all(_is_number(fraction) for fraction in value.values()):
        raise TypeError(f"{name}: expected a fraction for each dopant such as {{Cr: 0.02}}, got {value!r}")
    return dict(value)


def _check_lattice_constant(name: str, value: Any) -> float:
    return check_number(name, value, "Å", LATTICE_CONSTANT_RANGE)


def _check_energy_kev(name: str, value: Any) -> float:
    if not _is_number(value):
        raise TypeError(f"{name}: expected a number in keV, got {value!r}")
    if value >= 1000:
        raise ValueError(f"{name}: expected keV (80 for 80 keV), got {in_figures(value)}; that would be eV")
    try:
        return check_energy(1e3 * value)
    except ValueError:
        raise ValueError(
            f"{name}: expected the beam energy of a microscope in keV, 10 or more, got {in_figures(value)}"
        ) from None


def _check_detector(name: str, value: Any) -> Detector:
    if isinstance(value, str):
        return Detector(value)
    if not isinstance(value, Mapping) or "name" not in value:
        raise TypeError(f"{name}: expected a name or {{name: HAADF, inner: 70, outer: 200}}, got {value!r}")
    for key in value:
        if key not in ("name", "inner", "outer"):
            raise ValueError(f"{name}.{_unknown(str(key), ('name', 'inner', 'outer'))}")
    if (value.get("inner") is None) != (value.get("outer") is None):
        raise ValueError(f"{name}: expected both inner and outer or none of them, got {value!r}")
    return Detector(**value)


def _check_sampling(name: str, value: Any) -> float | str:
    if value == "estimate":
        return "estimate"
    if not _is_number(value):
        raise TypeError(f"{name}: expected a number in Å/px or estimate, got {value!r}")
    return check_number(name, value, "Å/px", SAMPLING_RANGE)


def _check_signal(name: str, value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name}: expected the name or number of an image, got {value!r}")
    return value


def _check_frame(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected the number of an image, got {value!r}")
    return value


def _check_scan_shape(name: str, value: Any) -> tuple[int, int]:
    try:
        return check_scan_shape(value)
    except ValueError as error:
        raise ValueError(str(error).replace("scan_shape", name, 1)) from None


def _check_angular_sampling(name: str, value: Any) -> float:
    return check_number(name, value, "mrad/px", ANGULAR_SAMPLING_RANGE)


def _check_centre(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        raise TypeError(
            f"{name}: expected row and column of the undiffracted beam in px, such as [64, 64], got {value!r}"
        )
    return float(value[0]), float(value[1])


def _check_detectors(name: str, value: Any) -> tuple[Detector, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(f"{name}: expected a list such as [{{name: HAADF, inner: 70, outer: 200}}], got {value!r}")
    detectors = tuple(_check_detector(f"{name}[{i}]", entry) for i, entry in enumerate(value))
    for i, detector in enumerate(detectors):
        if detector.inner is None or detector.outer is None:
            raise ValueError(f"{name}[{i}]: expected both inner and outer in mrad, got {value[i]!r}")
    return detectors


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


KEYS: Mapping[str, Callable[[str, Any], Any]] = {
    "host": _check_text,
    "dopants": _check_elements,
    "fractions": _check_fractions,
    "lattice_constant": _check_lattice_constant,
    "energy_kev": _check_energy_kev,
    "detector": _check_detector,
    "sampling": _check_sampling,
    "signal": _check_signal,
    "frame": _check_frame,
    "scan_shape": _check_scan_shape,
    "angular_sampling": _check_angular_sampling,
    "centre": _check_centre,
    "detectors": _check_detectors,
}
"""Keys of the files, and what checks their values."""
