"""Every code block of the README and of the pages for users runs as it stands, in the order of its page."""

import csv
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from batches import scan_images, scan_patterns
from documentation import blocks, run_python, run_shell
from microscope_files import write_dm, write_signal
from scipy.spatial import cKDTree

from contextem.columns import CLASSES
from contextem.labels.actions import Vote
from contextem.labels.votes import VoteStore

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "python/docs"
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if blocks(page)]
INSTALL = re.compile(r"^python3 -m venv \.venv && \.venv/bin/python -m pip install -c constraints\.txt \S+ && \S+/")


def bring_fields(folder):
    """A field by two detectors, at 80 keV and 0.2 Å/px."""
    images = scan_images("Ti", 60.0)
    for detector, name in {"HAADF": "field", "MAADF": "field_adf"}.items():
        data = images[detector].astype(np.float32)
        image = {"data": data, "name": detector, "tags": {"Microscope Info": {"Voltage": 80e3}}}
        write_dm(folder / f"{name}.dm4", [image], 4)


def bring_campaign(folder):
    """Two folders of fields and one of scans, with a context."""
    for place in ("data/first.dm4", "more/second.dm4"):
        (folder / place).parent.mkdir()
        (folder / place).write_bytes((folder / "field.dm4").read_bytes())
    (folder / "context.yaml").write_text("host: WSe2\ndopants: [Ti]\nenergy_kev: 80\ndetector: HAADF\n")
    (folder / "scans").mkdir()
    axes = {"scale": (0.02, 0.02, 6.0, 6.0), "units": ("nm", "nm", "mrad", "mrad")}
    write_signal(folder / "scans/scan.hspy", scan_patterns(scan_images("Ti")), **axes)


def bring_votes(folder):
    """Two experts, who vote as the model does."""
    with (folder / "results/field.columns.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classified = cKDTree([(float(row["row"]), float(row["column"])) for row in rows])
    with VoteStore(folder / "labels.db") as store:
        (image,) = store.images()
        nearest = classified.query(store.positions(image.id)[0])[1]
        labels = np.array([CLASSES.index(rows[i]["class"]) for i in nearest])
        for name in ("Ada", "Bob"):
            expert = store.expert_of(store.add_expert(name))
            votes = [Vote(tuple(np.flatnonzero(labels == each).tolist()), each) for each in np.unique(labels).tolist()]
            store.cast(image.id, expert, "page", 1, votes)


BROUGHT = {
    "contextem classify": bring_fields,
    "contextem batch": bring_campaign,
    "contextem label export": bring_votes,
}
"""What the README takes for granted where the block that begins so is reached."""

NAMES = {
    "basis =": "image = micrograph.data.astype('float32'); positions = result.positions",
    "moments = ctm.autograd": "import torch; image, positions = torch.from_numpy(image), torch.from_numpy(positions)",
}
"""What a block that begins so takes for granted as names."""


def run_blocks(page, folder, *, seldom):
    """Run the blocks of a page in a folder; with `seldom` those that take long, too.  Return how many were run."""
    namespace, done = {}, 0
    for block in blocks(page):
        if block.reason is not None and not (seldom and block.reason.startswith("slow")):
            continue
        for begins, bring in BROUGHT.items() if page.name == "README.md" else ():
            if block.code.startswith(begins):
                bring(folder)
        for begins, code in NAMES.items() if page.name == "README.md" else ():
            if block.code.startswith(begins):
                exec(code, namespace)
        if block.language == "python":
            run_python(block, page, namespace)
        elif INSTALL.match(block.code):
            command = INSTALL.sub("", block.code)
            if "pytest" not in command:  # which is what runs
                run_shell(command, folder)
        else:
            run_shell(block.code, folder)
        done += 1
    plt.close("all")
    return done


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    assert run_blocks(page, tmp_path, seldom=False) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.reason for block in blocks(page))], ids=str)
def test_blocks_that_take_long_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(page, tmp_path, seldom=True) >= 1


def test_the_two_commands_of_the_readme_differ_in_their_last_step_only():
    first, second = (block.code for block in blocks(ROOT / "README.md")[:2])
    assert INSTALL.sub("", first) == "contextem demo\n"
    assert INSTALL.sub("", second) == "python -m pytest\n"
