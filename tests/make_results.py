"""Writes tests/data/results-SCHEMA: one of each file that this package reads again, as this version writes it.

    python tests/make_results.py

Run it when a number in `contextem._schema` grows, and keep the folders of the numbers before: `test_results.py` reads
them all.  The micrograph is small and the model has few weights, so that the folder stays below 300 kB.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

import contextem as ctm
from contextem._schema import SCHEMAS
from contextem.attention import ModelConfig, build_classifier
from contextem.cli import main
from contextem.columns import Columns
from contextem.export.images import write_image
from contextem.labels.actions import Vote
from contextem.labels.votes import VoteStore
from contextem.model import Model
from contextem.simulate.dataset import simulate_micrograph

CONFIG = ModelConfig(n_max=4, size=16, width=8, heads=2, depth=1, tokens=2, hidden=8)
VOTES = {"Ada": (0, 2, 2, 3, 0), "Ben": (0, 2, 3, 3, 1)}
"""Classes that two experts give the first five columns."""


def make(folder: Path) -> None:
    """Write all files into a folder that is not there."""
    folder.mkdir(parents=True)
    made = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 3, size=20.0, sampling=0.25, dose=5000.0)
    made.save(folder / "data" / "field.npz")
    manifest = {"schema": SCHEMAS["simulated data set"], "preset": "tmd96", "classes": [], "files": ["field.npz"]}
    (folder / "data" / "manifest.json").write_text(json.dumps(manifest) + "\n")

    result = ctm.classify(made.micrograph, made.context)
    result.to_csv(folder / "field.columns.csv")
    result.to_json(folder / "field.summary.json", spatial=True)
    result.to_hdf5(folder / "field.columns.h5")
    result.to_parquet(folder / "field.columns.parquet")

    torch.manual_seed(0)
    model = Model(build_classifier(CONFIG).eval(), {"name": "small", "unknown_below": -3.0})
    model.save(folder / "model", export=False)
    features = np.random.default_rng(0).normal(size=(5, model.network.mean.numel())).astype(np.float32)
    context = ctm.Context("WSe2", "Cr", energy=80e3, detector="HAADF")
    predicted = model.predict(features, model.context_features(context))
    np.savez(folder / "model" / "predicted.npz", features=features, probabilities=predicted.probabilities)

    write_image(folder / "batch" / "data" / "field.tif", made.micrograph)
    given = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", "80", "--detector", "HAADF", "--workers", "1")
    out = folder / "batch" / "out"
    done = CliRunner().invoke(main, ["batch", str(folder / "batch" / "data"), *given, "-o", str(out)])
    assert done.exit_code == 0, done.output
    plan = out / ".batch" / "plan.json"
    plan.write_text(plan.read_text().replace(str((folder / "batch" / "data").absolute()), "data"))
    for path in ("figures", "log", ".batch/locks"):
        shutil.rmtree(out / path, ignore_errors=True)
    (out / "report.html").unlink()
    shutil.rmtree(folder / "batch" / "data")

    with VoteStore(folder / "labels.db") as store:
        image = store.add_image(made.micrograph, Columns(made.columns.positions[:5]), name="field")
        for name, labels in VOTES.items():
            expert = store.expert_of(store.add_expert(name))
            ids = store.columns(image, expert).ids
            votes = [Vote((int(column),), label) for column, label in zip(ids, labels, strict=True)]
            store.cast(image, expert, "tablet", 1, votes)


if __name__ == "__main__":
    target = Path(__file__).parent / "data" / f"results-{max(SCHEMAS.values())}"
    if target.exists():
        sys.exit(f"{target}: exists already; files of a version are written once")
    make(target)
