"""What a user should know of a result that is there all the same: the kinds of warnings.

Every warning of this package is a `ContextemWarning`, so that filters tell it from those of others::

    warnings.filterwarnings("error", category=ctm.ContextWarning)      # a wrong host or detector stops the script
    warnings.filterwarnings("ignore", category=ctm.ExtrapolationWarning)

What ``classify`` warns of stands among the "warnings" of the summary too, whatever the filters are.
"""

from __future__ import annotations


class ContextemWarning(UserWarning):
    """Any warning of this package."""


class ContextWarning(ContextemWarning):
    """The image does not look like the stated context: another host or detector, or other collection angles."""


class SamplingWarning(ContextemWarning):
    """The stated sampling is far from that by the lattice."""


class ClassificationWarning(ContextemWarning):
    """Classes are doubtful: many columns are unknown, or the sublattices may be mistaken for each other."""


class ExtrapolationWarning(ContextemWarning):
    """The model was not trained on the host or a dopant."""


class RegistrationWarning(ContextemWarning):
    """Images of several detectors do not look like the same area."""


class DiffractionWarning(ContextemWarning):
    """Patterns of a 4D-STEM scan and its virtual detectors do not fit: descan, a cut annulus, a hot pixel."""


class ContextemDeprecationWarning(ContextemWarning):
    """A name or an argument will be gone in the next minor release; shown by default, unlike `DeprecationWarning`."""
