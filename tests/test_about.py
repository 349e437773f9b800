"""What `contextem info` tells: what is there, and nothing that names a person or a place."""

import getpass
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import contextem as ctm
from contextem import _kernels, about
from contextem.about import info, info_text


@pytest.fixture(scope="module")
def facts():
    return info()


def test_facts_are_those_of_the_machine(facts):
    assert facts["contextem"] == {"version": ctm.__version__, "installed in": about._place()}
    assert facts["python"]["version"] == platform.python_version()
    assert facts["build"]["simd"] == _kernels.describe()["simd"]
    assert facts["threads"]["cores_usable"] == len(os.sched_getaffinity(0))
    assert facts["model"]["written_by"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{64}", facts["model"]["sha256"])
    assert facts["model"]["trained_on"] == {"images": 10109, "columns": 1129064, "hosts": 12, "dopants": 8}
    for name in ("numpy", "scipy"):
        assert facts["libraries"][name] == importlib.metadata.version(name)
    assert json.loads(json.dumps(facts)) == facts


def test_the_text_has_a_line_for_each_and_fits_an_issue(facts):
    lines = info_text(facts).splitlines()
    assert max(map(len, lines)) <= 110
    names = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert names[:3] == ["contextem", "Python", "processor"]
    assert {"kernels", "instruction sets", "compiler", "CUDA", "threads", "model", "libraries"} < set(names)
    joined = " ".join(" ".join(lines).split())
    for word in (f"numpy {facts['libraries']['numpy']}", facts["model"]["sha256"][:12], "1,129,064 columns"):
        assert word in joined


def test_neither_paths_nor_names_are_told(tmp_path):
    place = tmp_path / "marie" / "secret project"
    place.mkdir(parents=True)
    environment = {
        **os.environ,
        "CONTEXTEM_DATA": str(place),
        "CONTEXTEM_SIMD": "/home/marie/simd",
        "HOME": str(place),
        "CUDA_VISIBLE_DEVICES": "",
    }
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "contextem.cli", "info", *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=place)
        assert done.returncode == 0, done.stderr
        for word in ("marie", "secret", str(Path(ctm.__file__).parent), str(tmp_path), platform.node()):
            assert word not in done.stdout, word
        assert "CONTEXTEM_DATA" in done.stdout
        if len(getpass.getuser()) > 4:
            assert getpass.getuser() not in done.stdout
    told = json.loads(done.stdout)
    assert told["environment"]["CONTEXTEM_DATA"] == "set"
    assert told["environment"]["CONTEXTEM_SIMD"] == "set"
    assert "got '.../simd'" in told["build"]["simd"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("does not load: /home/marie/v/lib/_cuda.so: no symbol", "does not load: .../_cuda.so: no symbol"),
        (r"C:\Users\marie\v\_cuda.pyd is not there", ".../_cuda.pyd is not there"),
        ("X2/M and 3/4 stay, so does 1.0/2", "X2/M and 3/4 stay, so does 1.0/2"),
        ("~/x and /tmp", "~/x and /tmp"),
    ],
)
def test_paths_lose_what_names_a_place(text, told):
    assert about._without_paths({"a": [text]}) == {"a": [told]}


def test_missing_extras_are_named_by_extra(monkeypatch):
    needs = ["numpy>=2", "nothing-here>=1; extra == 'parquet'", "contextem[x]; extra == 'all'", "ruff; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
    assert about._libraries() == ({"numpy": importlib.metadata.version("numpy")}, {"parquet": ["nothing-here"]})
    text = info_text(info())
    assert re.search(r"^not installed +nothing-here \(parquet\)$", text, re.MULTILINE)


def test_a_torch_that_is_missing_or_broken_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert about._torch()[0] is None
    real = __import__

    def broken(name, *arguments, **options):
        if name == "torch":
            raise OSError("libcudart.so.12: cannot open shared object file")
        return real(name, *arguments, **options)

    monkeypatch.setattr("builtins.__import__", broken)
    assert about._torch()[0] == "does not load (OSError: libcudart.so.12: cannot open shared object file)"


def test_cuda_is_told_as_far_as_it_is_there(facts):
    words = about._cuda_words(
        {
            "extension": "built",
            "architectures": ["80-real", "120"],
            "runtime": "13.0",
            "driver": None,
            "devices": 0,
            "device_names": [],
        }
    )
    assert ", ".join(words) == "built, for 80-real 120, runtime 13.0, no driver, 0 devices"
    assert about._cuda_version(12080) == "12.8" and about._cuda_version(0) is None


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)])
def test_the_limit_of_a_control_group_is_read(text, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(text)
    assert about._group_cores(tmp_path / "cpu.max") == cores
    assert about._group_cores(tmp_path / "none") is None
