"""The files of a model: its JSON, the header of its safetensors, and what is done with them afterwards."""

from __future__ import annotations

import atexit
import json
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from contextem.attention import ModelConfig, build_classifier
from contextem.context import Context
from contextem.contrast import contrast_blocks
from contextem.model import Model, load_model
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = ("contextem.model", "contextem.attention", "contextem.contrast", "contextem._bounds", "json")

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

CONFIG = ModelConfig(n_max=2, size=8, width=4, heads=2, depth=1, tokens=2, hidden=4)
CONTEXT = Context("WSe2", "Cr", energy=80e3, detector="HAADF")
TRAINING = {"hosts": ["WSe2"], "dopants": ["Cr"], "conditions": ["80 keV HAADF"]}
Model(build_classifier(CONFIG), {"unknown_below": -1.0, "site_strength": 0.5, "training": TRAINING}).save(
    FOLDER, export=False
)
FACTS = (FOLDER / "model.json").read_bytes()
WEIGHTS = (FOLDER / "model.safetensors").read_bytes()
HEADER = json.loads(WEIGHTS[8 : 8 + struct.unpack("<Q", WEIGHTS[:8])[0]])


def _changed(draw: Draw, tree: object) -> object:
    """Return JSON with something else in one place."""
    if not isinstance(tree, dict) or not tree or draw.chance(4):
        return draw.value()
    key = draw.choice(sorted(tree))
    if draw.chance(8):
        return {name: value for name, value in tree.items() if name != key}
    return {**tree, draw.choice((key, key, key, draw.text())): _changed(draw, tree[key])}


def target(data: bytes) -> None:
    draw = Draw(data)
    facts, weights = FACTS, WEIGHTS
    kind = draw.below(5)
    if kind == 0:
        facts = draw.rest()
    elif kind == 1:
        weights = draw.rest()
    elif kind == 2:  # the file with bytes that are others
        where, part = draw.below(len(weights)), draw.rest()
        weights = weights[:where] + part + weights[where + len(part) :]
    elif kind == 3:
        facts = json.dumps(_changed(draw, json.loads(FACTS))).encode("utf-8", "surrogatepass")
    else:
        header = json.dumps(_changed(draw, HEADER)).encode("utf-8", "surrogatepass")
        body = WEIGHTS[8 + struct.unpack("<Q", WEIGHTS[:8])[0] :]
        weights = struct.pack("<Q", len(header)) + header + body
    (FOLDER / "model.json").write_bytes(facts)
    (FOLDER / "model.safetensors").write_bytes(weights)
    with expected(ValueError), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model = load_model(FOLDER)
        contrast = np.ones((3, sum(contrast_blocks(model.config.basis).values())), np.float32)
        features = model.context_features(CONTEXT)
        prediction = model.predict(contrast, features)
        model.unknown(prediction.familiarity, np.ones(3, bool))
        if prediction.probabilities.shape != (3, 5) or not isinstance(model.misfit_below, float):
            raise Broken(f"expected probabilities of three columns, got {prediction}")


def seeds() -> Iterator[bytes]:
    yield b"\0" + FACTS
    yield b"\1" + WEIGHTS
    yield b"\0" + json.dumps({"classes": [], "config": asdict(CONFIG)}).encode()
    yield b"\0" + b"[" * 3000
    for kind in (2, 3, 4):
        for length in (4, 20, 60):
            for start in range(6):
                yield bytes([kind]) + bytes((11 * i + start * 37) % 256 for i in range(length))
