"""Superposed responses against full multislice: column intensities, class by class.

    python benchmarks/agreement.py -o agreement.md

A script, since it takes most of an hour.  It prints a row of a Markdown table as soon as it has one, and appends it to
the file.  Differences are in % of the brightest column of the reference; what of them is the reference's own noise is
told by two halves of its frozen-phonon configurations.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from contextem.columns import CLASSES
from contextem.simulate.agreement import agreement

CASES = (
    ("WSe2", "Cr", 80e3), ("MoS2", "V", 80e3), ("WSe2", "Cr", 60e3), ("WSe2", "Cr", 200e3), ("NbTe2", "Cu", 80e3),
    ("WSe2", "Mn", 100e3), ("MoS2", "V", 200e3), ("WSe2", "Cr", 300e3), ("MoS2", "V", 60e3), ("TaS2", "Ni", 80e3),
    ("MoTe2", "Co", 100e3), ("NbTe2", "Cu", 200e3), ("MoS2", "V", 300e3), ("WTe2", "Ti", 60e3), ("NbSe2", "Fe", 100e3),
    ("TaTe2", "Ti", 300e3),
)  # fmt: skip
DETECTORS = ("HAADF", "MAADF")
DEFOCI = (0.0, 20.0)
HEAD = f"| case | keV | detector | defocus, Å | {' | '.join(CLASSES)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="file to append the table to")
    parser.add_argument("--phonons", type=int, default=24, help="frozen-phonon configurations")
    parser.add_argument("--device", default="cpu", help="cpu or gpu")
    options = parser.parse_args()

    def tell(line):
        print(line, flush=True)
        if options.output:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    tell("Per class: max / rms / mean of superposed - reference, ± noise of a column / of the mean; % of the peak.\n")
    tell(f"{HEAD}\n|{'---|' * HEAD[1:].count('|')}")
    for host, dopant, energy in CASES:
        repeats = (5, 3) if energy < 150e3 else (4, 2)
        found = agreement(
            host,
            dopant,
            energy,
            DETECTORS,
            defoci=DEFOCI,
            repeats=repeats,
            phonons=options.phonons,
            device=options.device,
        )
        for (j, detector), (i, defocus) in product(enumerate(DETECTORS), enumerate(DEFOCI)):
            cells = []
            for label in range(len(CLASSES)):
                chosen = found.labels == label
                if not chosen.any():
                    cells.append("")
                    continue
                error, noise = 100 * found.errors[i, chosen, j], 100 * found.noises[i, chosen, j]
                rms = np.sqrt((error**2).mean())
                cells.append(
                    f"{np.abs(error).max():.1f} / {rms:.1f} / {error.mean():+.1f} "
                    f"± {np.sqrt((noise**2).mean()):.1f} / {abs(noise.mean()):.1f}"
                )
            tell(f"| {dopant}:{host} | {energy / 1e3:g} | {detector} | {defocus:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
