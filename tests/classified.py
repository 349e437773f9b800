"""Classifications made by hand."""

import numpy as np

from contextem.classification import Classification
from contextem.columns import CLASSES


def posterior(labels, certainty=0.8):
    """(N, 5) float32: `certainty`, of all or of each, for the class of each label, the rest shared evenly."""
    rest = (1.0 - np.asarray(certainty)[..., None]) / (len(CLASSES) - 1)
    p = np.broadcast_to(rest, (len(labels), len(CLASSES))).astype(np.float32)
    p[np.arange(len(labels)), np.asarray(labels, np.int64)] = certainty
    return p


def classification(positions, probabilities, **values):
    """A classification of one grain, in which nothing is unknown unless `values` say otherwise."""
    positions, probabilities = np.asarray(positions, np.float64), np.asarray(probabilities, np.float32)
    n = len(positions)
    metal = np.isin(probabilities.argmax(axis=1), (0, 1)) if n else np.zeros(0, bool)
    plain = {
        "sublattice": np.where(metal, 0, 1).astype(np.int8),
        "grain": np.zeros(n, np.int32),
        "patch_probabilities": probabilities,
        "observed": np.ones(n, bool),
        "complete": np.ones(n, bool),
        "familiarity": np.zeros(n, np.float32),
        "unknown": np.zeros(n, bool),
        "contaminated": np.zeros(n, bool),
        "sampling": 0.2,
        "lattice_constant": 3.32,
    }
    return Classification(positions=positions, probabilities=probabilities, **plain | values)


def honeycomb(cells, a=16.6, turn=0.0):
    """Ideal positions (2 n^2, 2), px, labels (metal or X2) and lattice indices of n by n cells, turned by degrees."""
    h, k = np.mgrid[:cells, :cells].reshape(2, -1)
    z = a * (h + k * np.exp(1j * np.pi / 3)) * np.exp(1j * np.deg2rad(turn))
    bond = a / np.sqrt(3) * np.exp(1j * (np.pi / 6 + np.deg2rad(turn)))
    z = np.concatenate([z, z + bond])
    labels = np.repeat([0, 2], cells**2)
    return np.column_stack([z.imag, z.real]), labels, np.tile(np.column_stack([h, k]), (2, 1))
