"""The package as pip installs it, asked from outside the checkout: python -P tests/installed/installed_package.py.

Nothing but the package and what it requires is needed.  What an extra brings is asked for where it is not installed:
an error of one sentence has to name the extra.  With CONTEXTEM_CUDA=ON the CUDA kernels have to be there as well.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

import contextem as ctm

SCRIPT = Path(sysconfig.get_path("scripts"), "contextem")
JOB = str(files("contextem") / "examples" / "jobs" / "dask_slurm.py")
KNOWN = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", "80", "--detector", "HAADF")
WITHOUT_EXTRAS = (".csv", ".emd", ".h5", ".hspy", ".html", ".json", ".png")
"""Endings of what `contextem classify` writes without any extra."""
NAMED = r"not installed, it comes with pip install 'contextem\[{}\]'$"
"""End of the sentence that names an extra."""

LACKING: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("abtem", "simulate", ("simulate", "--engine", "abtem", "-o", "new")),
    ("abtem", "simulate", ("simulate", "--rebuild-responses", "new")),
    ("ase", "simulate", ("classify", "demo.tif", *KNOWN, "--export", "xyz", "-o", "new")),
    ("pyarrow", "parquet", ("classify", "demo.tif", *KNOWN, "--export", "parquet", "-o", "new")),
    ("pyarrow", "batch", ("batch", "demo.tif", *KNOWN, "-o", "new")),
    ("sklearn", "baselines", ("evaluate", "--baselines", "-o", "new")),
    ("uvicorn", "label", ("label", "serve", "demo.tif", *KNOWN, "--store", "new")),
)
"""A package, the extra that brings it, and a command that needs it and would write `new`."""

CALLS: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
    ("libertem", "libertem", lambda folder: ctm.read_scan(folder / "scan.xml")),
    ("zarr", "batch", lambda folder: ctm.read_scan(folder / "scan.zarr")),
    ("zarr", "batch", lambda folder: ctm.read(folder / "image.zspy")),
    ("skimage", "batch", lambda folder: ctm.read_scan(folder / "scan.blo")),
    ("zarr", "batch", lambda folder: _of("batch.zarr_table", "write_zarr")(folder / "new", [])),
    ("distributed", "batch", lambda folder: _of("batch.engines", "connected")("tcp://127.0.0.1:9").__enter__()),
    ("uvicorn", "label", lambda folder: _of("labels.server", "create_app")),
    ("abtem", "simulate", lambda folder: _of("simulate.coherences", "build")(folder / "new")),
    ("ase", "simulate", lambda folder: _of("simulate.structures", "supercell")("WSe2", None, (1, 1), None)),
    ("sklearn", "baselines", lambda folder: _of("baselines", "fit_logistic")(())),
    ("cupy", "cuda13", lambda folder: _of("simulate.smatrix", "array_module")("gpu")),
)
"""The same in Python, with a folder of files that need packages to be read."""


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"contextem.{module}"), name)


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without a terminal."""
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def commands(*above: str) -> Iterator[tuple[str, ...]]:
    """Yield every command and group, as its words."""
    import click

    from contextem.cli import main

    command: click.Command = main
    context = click.Context(main)
    for word in above:
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None
        command = found
    yield above
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            yield from commands(*above, word)


class Installed(unittest.TestCase):
    """Each test has an empty folder, with the packaged micrograph in it."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        shutil.copy(str(files("contextem") / "examples" / "demo.tif"), self.folder)

    def contextem(self, *arguments: str) -> str:
        done = run(SCRIPT, *arguments, folder=self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def test_it_is_the_installed_one(self) -> None:
        self.assertTrue(Path(ctm.__file__).is_relative_to(sys.prefix), ctm.__file__)
        self.assertEqual(ctm.__version__, version("contextem"))
        self.assertEqual(self.contextem("--version").split()[-1], ctm.__version__)

    def test_all_names_and_modules_are_there(self) -> None:
        for name in ctm.__all__:
            self.assertIsNotNone(getattr(ctm, name))
        modules = [module.name for module in pkgutil.walk_packages(ctm.__path__, "contextem.")]
        self.assertGreater(len(modules), 80)
        for module in modules:
            with self.subTest(module):
                try:
                    importlib.import_module(module)
                except ModuleNotFoundError as error:
                    self.assertRegex(str(error), NAMED.format(r"\w+"))

    def test_the_kernels_are_those_of_this_version(self) -> None:
        from contextem import _kernels

        facts = _kernels.describe()
        self.assertEqual(facts["version"], ctm.__version__)
        self.assertEqual(facts["cuda"], "built" if find_spec("contextem._cuda") else "not built")  # or does not load
        if os.environ.get("CONTEXTEM_CUDA") == "ON":
            self.assertEqual(facts["cuda"], "built")

    def test_moments_with_every_instruction_set(self) -> None:
        """Against the sum of Zernike polynomials over the pixels of a patch, which the kernels fold and reorder."""
        script = """
import sys
import numpy as np
from contextem import ZernikeBasis, column_moments
image = np.random.default_rng(0).normal(size=(80, 90))
np.save(sys.argv[1], column_moments(image, np.array([[30.0, 40.0], [47.0, 61.0]]), ZernikeBasis(10, 33)))
"""
        from contextem import _core

        basis = ctm.ZernikeBasis(10, 33)
        image = np.random.default_rng(0).normal(size=(80, 90))
        patches = np.stack([image[r - 16 : r + 17, c - 16 : c + 17].ravel() for r, c in ((30, 40), (47, 61))])
        expected = patches @ basis.weights.T
        for simd in _core.simd_available():
            with self.subTest(simd):
                done = run(sys.executable, "-c", script, "moments.npy", folder=self.folder, CONTEXTEM_SIMD=simd)
                self.assertEqual(done.stderr, "")
                tolerance = 16 * np.finfo(np.float64).eps * abs(patches).max() * abs(basis.weights).sum(axis=1)
                self.assertTrue((abs(np.load(self.folder / "moments.npy") - expected) <= tolerance).all())

    def test_the_demo_is_classified_from_python(self) -> None:
        from contextem.examples import demo_micrograph

        micrograph, context, positions, labels = demo_micrograph()
        result = ctm.classify(micrograph, context)
        away, nearest = cKDTree(result.positions).query(positions)
        self.assertGreater((away < 2.0).mean(), 0.999)
        self.assertGreater((result.labels[nearest] == labels).mean(), 0.98)
        self.assertGreater((result.labels[nearest] == labels)[labels > 2].mean(), 0.9)  # vacancies

    def test_and_from_the_shell_with_all_that_needs_no_extra(self) -> None:
        exports = [word for kind in ("hdf5", "hspy", "emd") for word in ("--export", kind)]
        self.contextem("classify", "demo.tif", *KNOWN, *exports, "--report", "-o", "out")
        written = sorted(path.name for path in (self.folder / "out").iterdir())
        self.assertEqual(sorted(Path(name).suffix for name in written), list(WITHOUT_EXTRAS), written)
        with (self.folder / "out" / "demo.columns.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        summary = json.loads((self.folder / "out" / "demo.summary.json").read_text())
        self.assertEqual(len(rows), summary["columns"])
        again = ctm.Classification.load(self.folder / "out" / "demo.columns.h5")
        np.testing.assert_allclose(again.positions[:, 0], [float(row["row"]) for row in rows], atol=1e-3)

    def test_info_and_demo(self) -> None:
        told = dict(line.split(maxsplit=1) for line in self.contextem("info").splitlines() if not line.startswith(" "))
        self.assertEqual(told["contextem"].split(",")[0], ctm.__version__)
        self.assertIn("columns", self.contextem("demo"))
        self.assertTrue((self.folder / "contextem-demo" / "demo.report.html").stat().st_size > 100_000)

    def test_help_of_every_command(self) -> None:
        found = list(commands())
        self.assertGreater(len(found), 10)
        script = "import sys; from contextem.cli import main; main(prog_name='contextem')"
        for words in found:
            with self.subTest(words):
                done = run(sys.executable, "-c", script, *words, "--help", folder=self.folder)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertTrue(done.stdout.startswith(" ".join(("Usage: contextem", *words))), done.stdout)

    def lacks(self, package: str) -> None:
        if find_spec(package):
            self.skipTest(f"{package} is installed")

    def test_commands_name_the_extra_they_lack(self) -> None:
        for package, extra, arguments in LACKING:
            with self.subTest(" ".join(arguments)):
                self.lacks(package)
                done = run(SCRIPT, *arguments, folder=self.folder)
                sentence = f"Error: {package}: is not installed, it comes with pip install 'contextem[{extra}]'\n"
                self.assertEqual((done.returncode, done.stderr), (2, sentence))
                left = list((self.folder / "new").iterdir()) if (self.folder / "new").is_dir() else []
                self.assertEqual(left, [])

    def test_functions_name_the_extra_they_lack(self) -> None:
        for folder in ("scan.zarr", "image.zspy"):
            (self.folder / folder).mkdir()
        for file in ("scan.xml", "scan.blo"):
            (self.folder / file).write_bytes(b"\1" * 4096)
        for package, extra, call in CALLS:
            with self.subTest(f"{extra}, {package}"):
                self.lacks(package)
                with self.assertRaisesRegex(
                    (ModuleNotFoundError, ValueError),
                    NAMED.format(extra),
                ):
                    call(self.folder)
                self.assertFalse((self.folder / "new").exists())

    def test_the_job_of_dask_names_its_extra(self) -> None:
        self.lacks("dask_jobqueue")
        done = run(sys.executable, JOB, folder=self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.endswith("it comes with pip install 'contextem[jobqueue]'\n"), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="error")
