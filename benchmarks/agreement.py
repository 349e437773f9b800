"""Superposed responses against full multislice: column intensities, class by class.

    python benchmarks/agreement.py -o agreement.md

A script, since it takes most of an hour.  It prints a row of a Markdown table as soon as it has one, and appends it to
the file.  Differences are in % of the brightest column of the reference; what of them is the reference's own noise is
told by two halves of its frozen-phonon configurations.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from contextem.columns import CLASSES
from contextem.simulate.dataset import column_groups
from contextem.simulate.render import superpose
from contextem.simulate.responses import THERMAL_CHALCOGEN, THERMAL_METAL
from contextem.simulate.smatrix import frozen_phonons, scatter_beams
from contextem.simulate.structures import SINGLE_VACANCY, X2, supercell

CASES = (
    ("WSe2", "Cr", 80e3), ("MoS2", "V", 80e3), ("WSe2", "Cr", 60e3), ("WSe2", "Cr", 200e3), ("NbTe2", "Cu", 80e3),
    ("WSe2", "Mn", 100e3), ("MoS2", "V", 200e3), ("WSe2", "Cr", 300e3), ("MoS2", "V", 60e3), ("TaS2", "Ni", 80e3),
    ("MoTe2", "Co", 100e3), ("NbTe2", "Cu", 200e3), ("MoS2", "V", 300e3), ("WTe2", "Ti", 60e3), ("NbSe2", "Fe", 100e3),
    ("TaTe2", "Ti", 300e3),
)  # fmt: skip
DETECTORS = ("HAADF", "MAADF")
DEFOCI = (0.0, 20.0)
HEAD = f"| case | keV | detector | defocus, Å | {' | '.join(CLASSES)} |"


def vibrating(layer, planes):
    """The columns of a layer at the places of one frozen-phonon configuration: atoms, or midpoints of pairs."""
    upper, metals, lower = (xy for _, xy in planes)
    label, first = layer.labels, layer.upper
    atoms = layer.sites.copy()
    atoms[label < X2] = metals
    # the atoms of a plane are in the order of the columns
    in_upper, in_lower = ((label == X2) | ((label == SINGLE_VACANCY) & chosen) for chosen in (first, ~first))
    atoms[in_upper], atoms[in_lower & (label != X2)] = upper, lower[label[in_lower] != X2]
    atoms[label == X2] = (upper[label[in_upper] == X2] + lower[label[in_lower] == X2]) / 2
    return replace(layer, displacements=atoms - layer.sites)


def superposed(layer, host, dopant, energy, period, configurations):
    """Column intensities (defocus, column, detector), the mean over configurations; separations of pairs stay averaged."""
    values = np.zeros((len(DEFOCI), len(layer.sites), len(DETECTORS)))
    for planes in configurations:
        moved = vibrating(layer, planes)
        for (i, defocus), (j, detector) in product(enumerate(DEFOCI), enumerate(DETECTORS)):
            groups = column_groups(moved, host, dopant, energy, detector, defocus=defocus)
            still = [replace(group, blur=0.0) for group in groups]
            values[i, :, j] += superpose(still, (len(values[i]), 1), 0.0, layer.sites, period=period)[:, 0]
    return values / len(configurations)


def compare(host, dopant, energy, phonons):
    """Differences (defocus, column, detector) of superposition and reference, the halves' likewise, and the labels.

    Both are taken of the same displaced atoms, so that the mean of their difference converges in a few configurations.
    """
    repeats = (5, 3) if energy < 150e3 else (4, 2)
    fractions = {"dopant_fraction": 0.15, "single_fraction": 0.15, "double_fraction": 0.12}
    atoms, layer = supercell(host, dopant, repeats, np.random.default_rng(3), **fractions)
    errors, peak = [], 0.0
    for seed in (1, 2):
        beams = scatter_beams(atoms, energy, DETECTORS, phonons=phonons // 2, seed=seed)
        reference = np.array([beams.intensities(layer.sites, beams.probe(defocus)) for defocus in DEFOCI])
        configurations = list(frozen_phonons(atoms, phonons // 2, (THERMAL_METAL, THERMAL_CHALCOGEN), seed))
        errors.append(superposed(layer, host, dopant, energy, beams.lengths, configurations) - reference)
        peak = peak + reference.max(axis=1, keepdims=True) / 2
    first, second = errors
    return 50 * (first + second) / peak, 50 * (first - second) / peak, layer.labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="file to append the table to")
    parser.add_argument("--phonons", type=int, default=24, help="frozen-phonon configurations")
    options = parser.parse_args()

    def tell(line):
        print(line, flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    tell("Per class: max / rms / mean of superposed - reference, ± noise of a column / of the mean; % of the peak.\n")
    tell(f"{HEAD}\n|{'---|' * HEAD[1:].count('|')}")
    for host, dopant, energy in CASES:
        errors, noises, labels = compare(host, dopant, energy, options.phonons)
        for (j, detector), (i, defocus) in product(enumerate(DETECTORS), enumerate(DEFOCI)):
            cells = []
            for label in range(len(CLASSES)):
                chosen = labels == label
                if not chosen.any():
                    cells.append("")
                    continue
                error, noise = errors[i, chosen, j], noises[i, chosen, j]
                rms = np.sqrt((error**2).mean())
                cells.append(
                    f"{np.abs(error).max():.1f} / {rms:.1f} / {error.mean():+.1f} "
                    f"± {np.sqrt((noise**2).mean()):.1f} / {abs(noise.mean()):.1f}"
                )
            tell(f"| {dopant}:{host} | {energy / 1e3:g} | {detector} | {defocus:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
