"""The labelled experimental fields: images of two detectors, positions and classes."""

import csv
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

import contextem as ctm
from contextem.columns import CLASSES

NAMES = ("Ti:WSe2 field 2", "Ti:WSe2 field 11", "Cr:WSe2 field 9")


class Field(NamedTuple):
    """Both images, with energy and detector, and the labels; the few doubtful dopants of the Ti fields are left out."""

    haadf: ctm.Micrograph
    adf: ctm.Micrograph
    positions: np.ndarray
    labels: np.ndarray
    context: ctm.Context


def read_field(folder, name):
    if name.startswith("Cr"):
        positions, labels = read_labels(folder / "cr_wse2_field9_columns.csv")
        haadf, adf = rebuilt_image(folder, positions), np.load(folder / "cr_wse2_field9_adf2.npy")
        images = [ctm.Micrograph(data, 0.257, 80e3, each) for data, each in ((haadf, "HAADF"), (adf, "ADF"))]
        return Field(*images, positions, labels, ctm.Context("WSe2", "Cr"))
    stem = f"ti_wse2_field{name.split()[-1]}"
    positions, labels = read_labels(folder / f"{stem}_columns.csv")
    kept = labels != CLASSES.index("dopant")
    images = [
        ctm.read(folder / f"{stem}_{image}.dm4", energy=80e3, detector=each)
        for image, each in (("haadf", "HAADF"), ("adf2", "ADF"))
    ]
    return Field(*images, positions[kept], labels[kept], ctm.Context("WSe2", "Ti"))


def read_labels(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    positions = np.array([[float(row["row"]), float(row["column"])] for row in rows])
    return positions, np.array([CLASSES.index(row["class"]) for row in rows])


def rebuilt_image(folder, positions):
    """The HAADF image of which only patches are there, 23 x 23 px round each column: their mean where they overlap."""
    with np.load(folder / "cr_wse2_field9_haadf_patches.npz") as stored:
        (patches,) = (stored[key] for key in stored)
    reach = np.arange(-11, 12)
    disk = np.hypot(*np.meshgrid(reach, reach)) <= 10.5
    total, count = np.zeros((2, 552, 552))
    for patch, (row, column) in zip(patches, positions.astype(int), strict=True):
        near = np.s_[row + 9 : row + 32, column + 9 : column + 32]
        total[near] += patch * disk
        count[near] += disk
    mean = np.where(count > 0, total / np.maximum(count, 1.0), np.median((total / np.maximum(count, 1.0))[count > 0]))
    return mean[20:-20, 20:-20].astype(np.float32)


def agreement(positions, labelled, labels, tolerance):
    """Share of the labels found, of the single vacancies found, and of columns without a label among the labels."""
    gap, _ = cKDTree(positions).query(labelled)
    hit = gap <= tolerance
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    within = ((positions >= low) & (positions <= high)).all(axis=1)
    away, _ = cKDTree(labelled).query(positions[within])
    return hit.mean(), hit[labels == CLASSES.index("single_vacancy")].mean(), np.mean(away > tolerance)
