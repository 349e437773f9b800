"""Superposed responses against full multislice: column intensities, class by class.

    python benchmarks/agreement.py -o agreement.md

A script, since it takes most of an hour.  It prints a row of a Markdown table as soon as it has one, and appends it to
the file.  Differences are in % of the brightest column of the reference; what of them is the reference's own noise is
told by two halves of its frozen-phonon configurations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from contextem.columns import CLASSES
from contextem.simulate.dataset import column_groups
from contextem.simulate.render import superpose
from contextem.simulate.smatrix import scatter_beams
from contextem.simulate.structures import supercell

CASES = (
    ("WSe2", "Cr", 80e3), ("MoS2", "V", 80e3), ("WSe2", "Cr", 60e3), ("WSe2", "Cr", 200e3), ("NbTe2", "Cu", 80e3),
    ("WSe2", "Mn", 100e3), ("MoS2", "V", 200e3), ("WSe2", "Cr", 300e3), ("MoS2", "V", 60e3), ("TaS2", "Ni", 80e3),
    ("MoTe2", "Co", 100e3), ("NbTe2", "Cu", 200e3), ("MoS2", "V", 300e3), ("WTe2", "Ti", 60e3), ("NbSe2", "Fe", 100e3),
    ("TaTe2", "Ti", 300e3),
)  # fmt: skip
DETECTORS = ("HAADF", "MAADF")
DEFOCI = (0.0, 20.0)
HEAD = f"| case | keV | detector | defocus, Å | {' | '.join(CLASSES)} |"


def compare(host, dopant, energy, phonons):
    """Differences (defocus, column, detector) of superposition and reference, the halves' likewise, and the labels."""
    repeats = (5, 3) if energy < 150e3 else (4, 2)
    fractions = {"dopant_fraction": 0.15, "single_fraction": 0.15, "double_fraction": 0.12}
    atoms, layer = supercell(host, dopant, repeats, np.random.default_rng(3), **fractions)
    halves = [scatter_beams(atoms, energy, DETECTORS, phonons=phonons // 2, seed=seed) for seed in (1, 2)]
    errors, noises = [], []
    for defocus in DEFOCI:
        first, second = (beams.intensities(layer.sites, beams.probe(defocus)) for beams in halves)
        reference = (first + second) / 2
        superposed = np.empty_like(reference)
        for i, detector in enumerate(DETECTORS):
            groups = column_groups(layer, host, dopant, energy, detector, defocus=defocus)
            points, cell = layer.sites, halves[0].lengths
            superposed[:, i] = superpose(groups, (len(points), 1), 0.0, points, period=cell)[:, 0]
        peak = reference.max(axis=0)
        errors.append((superposed - reference) / peak)
        noises.append((first - second) / 2 / peak)
    return 100 * np.array(errors), 100 * np.array(noises), layer.labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="file to append the table to")
    parser.add_argument("--phonons", type=int, default=48, help="frozen-phonon configurations up to 100 keV")
    parser.add_argument("--phonons-fast", type=int, default=32, help="and above")
    options = parser.parse_args()

    def tell(line):
        print(line, flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    tell("Per class: max / rms / mean of superposed - reference, ± noise of a column / of the mean; % of the peak.\n")
    tell(f"{HEAD}\n|{'---|' * HEAD[1:].count('|')}")
    for host, dopant, energy in CASES:
        phonons = options.phonons if energy < 150e3 else options.phonons_fast
        errors, noises, labels = compare(host, dopant, energy, phonons)
        for (j, detector), (i, defocus) in ((d, f) for d in enumerate(DETECTORS) for f in enumerate(DEFOCI)):
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
