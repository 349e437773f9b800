"""Files and stores from strangers are data: nothing runs them, and they get no more memory and no other place."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import licences
import numpy as np
import pytest

import contextem
from contextem import _arrays
from contextem._bounds import check_fits, check_hdf5, open_npz, usable_memory
from contextem.attention import ModelConfig
from contextem.batch.store import Store
from contextem.context import Context
from contextem.labels.votes import VoteStore
from contextem.micrograph import check_number
from contextem.patches import antialias
from contextem.simulate.dataset import SimulatedMicrograph, manifest
from contextem.virtual_detectors import annulus

PACKAGE = Path(contextem.__file__).parent
ROOT = Path(__file__).resolve().parents[1]

# What runs what it reads
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("os.system", "os.popen", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "torch.load"),
    *("torch.jit.load", "torch.export.load", "pandas.read_pickle", "pd.read_pickle", "tempfile.mktemp"),
    *("numpy.fromstring", "shutil.unpack_archive"),
}


def dotted(node):
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def faults(text):
    """Yield what in a program runs what it reads, with its line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
        if name in CALLS or name in BUILT_IN or name.rpartition(".")[2] in ("extractall", "extract"):
            yield f"{node.lineno}: {name}"
        if name == "np.load" and options.get("allow_pickle") != "False":
            yield f"{node.lineno}: np.load without allow_pickle=False"
        if options.get("allow_pickle", "False") != "False" or options.get("shell", "False") != "False":
            yield f"{node.lineno}: {name} with {options}"


def test_nothing_in_the_package_runs_what_it_reads():
    found = {path: list(faults(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 100
    assert {str(path): each for path, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "fault",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "torch.load(path)",
        "subprocess.run('ls', shell=True)",
        "archive.extractall(folder)",
    ],
)
def test_faults_are_found(fault):
    assert next(faults(f"x = 1\n{fault}\n")).startswith("2: ")


# Bombs


@pytest.fixture(scope="module")
def became():
    """What became of every bomb, in a process that has 2 GiB."""
    pytest.importorskip("resource")
    folder = Path(__file__).parent
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(folder / "bombs.py")]
    done = subprocess.run(command, env=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


EXPECTED = {
    "npy": "a.npy cannot be read as .npy",
    "npy, overflow": "b.npy cannot be read as .npy",
    "npy, pickle": "c.npy cannot be read as .npy",
    "npy, lazily": "d.npy cannot be read as .npy",
    "scan": "e.npy ends after 0 of 1099511627776 patterns",
    "npz": "asks for 1024.0 GiB, more than 1.0 GiB",
    "npz of responses": "asks for 1024.0 GiB, more than 1.0 GiB",
    "png": "could be decompression bomb",
    "tif": "asks for 2048.0 GiB, more than 1.0 GiB",
    "tif of nothing": "bytes that stand for 763 MiB",
    "hspy": "asks for 4096.0 GiB, more than 1.0 GiB",
    "hspy, lazily": "b.hspy",
    "results": "asks for 4096.0 GiB, more than 1.0 GiB",
    "results of another file": "expected its own data, got /positions that lies in another file",
    "columns": "asks for 4096.0 GiB, more than 1.0 GiB",
    "zspy, pickle": "expected numbers and text, got pickled objects, which are code",
    "zarr, pickle": "expected numbers and text, got pickled objects, which are code",
    "zspy": "asks for 1024.0 GiB, more than 1.0 GiB",
    "safetensors": "model: expected the files `contextem train` writes",
    "safetensors, header": "header too large",
    "safetensors, pickle": "model: expected the files `contextem train` writes",
    "config, depth": "depth: expected an integer from 1 to 64, got 1000000000",
    "config, width": "width: expected an integer from 1 to 1024, got 1000000000",
    "config, hidden": "as F32 of shape",
    "yaml, aliases": "an alias such as *name, write out what it stands for",
    "yaml, brackets": "expected YAML, got what is none",
    "yaml, length": "expected at most 65536 bytes of text, got more",
    "store, tile": "its tile 0, 0, 0 of image 1 cannot be used (expected 16384 bytes of pixels)",
    "store, size": "cannot be used",
    "store, columns": "its image 1 cannot be used",
    "store, view": "expected the tables of a store of votes, got others beside or in their place",
}


@pytest.mark.parametrize("bomb", EXPECTED)
def test_a_bomb_ends_in_one_sentence(became, bomb):
    kind, told = became[bomb]
    assert kind in ("ValueError", "ReadError"), told
    assert EXPECTED[bomb] in told and len(told.splitlines()) == 1


def test_bombs_take_no_memory_and_run_no_code(became):
    assert set(became) == {*EXPECTED, "touched", "peak"}
    assert became["touched"] is False
    assert became["peak"] < 1024  # MiB, of which PyTorch takes a third


def test_the_limit_is_that_of_the_process():
    check_fits("a.npy:", usable_memory() // 2)
    with pytest.raises(ValueError, match=r"^a.npy: asks for .* GiB, more than .* half of the memory there is"):
        check_fits("a.npy:", usable_memory())


def test_numbers_that_no_float_holds():
    huge = 10**400
    with pytest.raises(ValueError, match=r"^sampling: expected Å/px, 0.001 to 5, got inf$"):
        check_number("sampling", huge, "Å/px", (0.001, 5.0))
    with pytest.raises(ValueError, match=r"^angle: expected a finite number"):
        _arrays.check_real("angle", huge)
    with pytest.raises(TypeError, match=r"^scale: expected a number"):
        _arrays.check_scale(huge)
    with pytest.raises(ValueError, match=r"^scale: expected a positive number, at most 4096"):
        antialias(np.ones((8, 8)), 1e300)
    assert annulus((5, 5), (2, 2), 0, 1e300).all() and annulus((5, 5), (2, 2), 0, huge).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "mystery"}, "^kind: expected one of lattice, paper"),
        ({"depth": 10**9}, "^depth: expected an integer from 1 to 64"),
        ({"n_max": 2.5}, "^n_max: expected an integer"),
        ({"heads": 3}, "^heads: expected a divisor of the width 32, got 3$"),
        ({"patch_radius": float("nan")}, "^patch_radius: expected a finite number"),
        ({"patch_radius": 0.0}, "^patch_radius: expected 0 to 10 lattice constants"),
        ({"dropout": 1.0}, "^dropout: expected a share from 0, below 1"),
    ],
)
def test_configs_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)


def test_archives_that_are_none(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="expected an NPZ archive, got something else"), open_npz(tmp_path / "a.npz"):
        pass


def test_links_to_other_files_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["b"] = h5py.ExternalLink("other.h5", "/a")
        with pytest.raises(ValueError, match=r"^a\.h5: expected its own data, got b that lies in another file$"):
            check_hdf5(file, "a.h5")


def test_simulated_micrographs_that_are_none(tmp_path):
    path = tmp_path / "a.npz"

    def save(absent=None, labels=(0, 4), **others):
        context = Context("WSe2", energy=80e3, detector="HAADF").to_dict()
        about = {"sampling": 0.2, "source": None, "context": context, "conditions": {}} | others
        text = np.array(json.dumps({name: value for name, value in about.items() if name != absent}))
        positions, sublattice = np.ones((2, 2)), np.zeros(2, int)
        np.savez(path, about=text, data=np.eye(8), positions=positions, sublattice=sublattice, labels=np.array(labels))

    save()
    assert SimulatedMicrograph.load(path).labels.tolist() == [0, 4]
    for others in ({"absent": "conditions"}, {"absent": "context"}, {"sampling": 1e9}, {"conditions": 3}):
        save(**others)
        with pytest.raises(ValueError, match="expected a simulated micrograph, got another file"):
            SimulatedMicrograph.load(path)
    for labels in ([0], [0, 5], [0.0, 1.0]):
        save(labels=labels)
        with pytest.raises(ValueError, match="expected a class for each of 2 columns, got other labels"):
            SimulatedMicrograph.load(path)


# Places


@pytest.mark.parametrize("name", ["../../a", "/etc/a", "a/../../b", "a\0b"])
@pytest.mark.parametrize("key", ["name", "table"])
def test_a_batch_of_a_stranger_writes_and_removes_nothing_outside(tmp_path, name, key):
    part = {"name": "a", "input": "a", "path": "/a", "table": "a.parquet", key: name}
    (tmp_path / ".batch").mkdir()
    (tmp_path / ".batch" / "plan.json").write_text(json.dumps({"schema": 1, "parts": [part]}))
    with pytest.raises(ValueError, match=r"^output: expected the plan of a batch"):
        Store(tmp_path).plan()


def test_a_record_of_a_stranger_is_told(tmp_path):
    record = {"schema": 1, "part": "a", "fingerprint": "", "micrographs": [], "failures": [], "table_bytes": 0}
    folder = tmp_path / ".batch" / "records"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(record))
    assert Store(tmp_path).record("a").finished
    for other in ({"failures": [{}]}, {"micrographs": [{"columns": "many"}]}, {"part": 3}, {"more": 1}):
        (folder / "a.json").write_text(json.dumps(record | other))
        with pytest.raises(ValueError, match=r"^output: expected what became of a part"):
            Store(tmp_path).record("a")


def test_a_data_set_of_a_stranger_names_its_own_files(tmp_path):
    for files in (["../a.npz"], ["/a.npz"], "a.npz", [3]):
        (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
        with pytest.raises(ValueError, match=r"^folder: expected names of files"):
            manifest(tmp_path)


def test_labels_are_written_into_their_folder(tmp_path):
    from click.testing import CliRunner

    from contextem.cli import main
    from contextem.columns import Columns
    from contextem.micrograph import Micrograph

    with VoteStore(tmp_path / "labels.db") as store:
        store.add_image(Micrograph(np.eye(64), 0.2), Columns([[5.0, 5.0]]), name="../../outside")
    out = tmp_path / "deep" / "out"
    done = CliRunner().invoke(main, ["label", "export", "--store", str(tmp_path / "labels.db"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.csv")] == [Path("deep/out/outside.labels.csv")]


# Licences


def test_the_table_of_licences_is_current():
    page = (ROOT / "python" / "docs" / "security.md").read_text(encoding="utf-8")
    between = page.partition("<!-- licences -->\n")[2].partition("<!-- /licences -->")[0]
    assert between.strip() == licences.table()


def test_only_one_package_that_is_always_needed_is_under_the_gpl():
    always = [name for name, needed in licences.packages().items() if needed == "always"]
    assert [name for name in always if licences.is_copyleft(licences.licence(name))] == ["rosettasciio"]
