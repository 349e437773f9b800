"""Context-aware classification of atomic columns in annular-dark-field STEM images of 1H MX2 monolayers.

The public names, in the order the data flow: micrograph -> columns -> patches -> moments (+ context) -> classifier ->
classification.  Each is loaded on first use, so that ``import contextem`` stays light.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextem.autograd as autograd
    from contextem.adjoint import column_moments_adjoint, patch_moments_adjoint
    from contextem.classification import Classification
    from contextem.columns import Columns, find_columns
    from contextem.context import Context
    from contextem.dense import dense_moments
    from contextem.diffraction import DiffractionScan, read_scan
    from contextem.micrograph import Detector, Micrograph, estimate_sampling, read, read_series
    from contextem.model import load_model
    from contextem.moments import column_moments, patch_moments
    from contextem.patches import extract_patches
    from contextem.pipeline import classify
    from contextem.remarks import (
        ClassificationWarning,
        ContextemDeprecationWarning,
        ContextemWarning,
        ContextWarning,
        DiffractionWarning,
        ExtrapolationWarning,
        RegistrationWarning,
        SamplingWarning,
    )
    from contextem.scan import correct_scan
    from contextem.series import average
    from contextem.virtual import scan_geometry, virtual_images
    from contextem.zernike import ZernikeBasis, rotation_invariants

_MODULE_OF = {
    "read": "micrograph",
    "read_series": "micrograph",
    "Micrograph": "micrograph",
    "Detector": "micrograph",
    "estimate_sampling": "micrograph",
    "read_scan": "diffraction",
    "DiffractionScan": "diffraction",
    "scan_geometry": "virtual",
    "virtual_images": "virtual",
    "find_columns": "columns",
    "Columns": "columns",
    "extract_patches": "patches",
    "ZernikeBasis": "zernike",
    "rotation_invariants": "zernike",
    "patch_moments": "moments",
    "column_moments": "moments",
    "dense_moments": "dense",
    "patch_moments_adjoint": "adjoint",
    "column_moments_adjoint": "adjoint",
    "Context": "context",
    "load_model": "model",
    "Classification": "classification",
    "classify": "pipeline",
    "average": "series",
    "correct_scan": "scan",
    "ContextemWarning": "remarks",
    "ContextWarning": "remarks",
    "SamplingWarning": "remarks",
    "ClassificationWarning": "remarks",
    "ExtrapolationWarning": "remarks",
    "RegistrationWarning": "remarks",
    "DiffractionWarning": "remarks",
    "ContextemDeprecationWarning": "remarks",
}
_MODULES = ("autograd",)

__version__ = "0.1.0"
__all__ = [
    "Classification",
    "ClassificationWarning",
    "Columns",
    "Context",
    "ContextWarning",
    "ContextemDeprecationWarning",
    "ContextemWarning",
    "Detector",
    "DiffractionScan",
    "DiffractionWarning",
    "ExtrapolationWarning",
    "Micrograph",
    "RegistrationWarning",
    "SamplingWarning",
    "ZernikeBasis",
    "autograd",
    "average",
    "classify",
    "column_moments",
    "column_moments_adjoint",
    "correct_scan",
    "dense_moments",
    "estimate_sampling",
    "extract_patches",
    "find_columns",
    "load_model",
    "patch_moments",
    "patch_moments_adjoint",
    "read",
    "read_scan",
    "read_series",
    "rotation_invariants",
    "scan_geometry",
    "virtual_images",
]

# What is logged is the caller's to show: quiet until a handler is there.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"contextem.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'contextem' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"contextem.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
