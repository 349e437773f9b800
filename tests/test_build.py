"""The build: versions, instruction sets, what the extensions link, and the C++ tests."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from contextem import _core, _kernels

ROOT = Path(__file__).resolve().parents[1]


def test_the_extension_belongs_to_the_package():
    assert _core.version == version("contextem")
    facts = _kernels.describe()
    assert set(facts) == {
        "version",
        "compiler",
        "simd",
        "simd_available",
        "cuda",
        "cuda_architectures",
        "cuda_runtime",
        "cuda_driver",
        "cuda_devices",
    }
    assert facts["simd"] in facts["simd_available"] == _core.simd_available()
    assert facts["compiler"]


def test_the_baseline_comes_first_and_the_widest_is_used():
    names = {"x86_64": ["sse2", "avx2", "avx512"], "aarch64": ["neon"], "arm64": ["neon"]}
    expected = names.get(platform.machine(), ["generic"])
    available = _core.simd_available()
    assert available == expected[: len(available)]
    run = subprocess.run(
        [sys.executable, "-c", "from contextem import _core; print(_core.simd())"],
        env={key: value for key, value in os.environ.items() if key != "CONTEXTEM_SIMD"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == available[-1]


def test_the_loops_of_the_roofline_do_what_is_timed():
    values, target = np.arange(256, dtype=np.float32), np.zeros(256, np.float32)
    _core.copy_values(values, target, 2)
    np.testing.assert_array_equal(target, values)
    assert _core.read_values(values, 3) == 3 * values.sum()
    for dtype in (np.float32, np.float64):
        # 12 registers, every lane of which tends to 2
        lanes = _core.multiply_adds(192 * 64, np.dtype(dtype)) / 24
        assert lanes == pytest.approx(round(lanes), rel=1e-6)
        assert round(lanes) * np.dtype(dtype).itemsize in {16, 32, 64}
    with pytest.raises(ValueError, match="values: expected a multiple of 128, got 100"):
        _core.read_values(values[:100], 1)
    with pytest.raises(ValueError, match="target: expected as many values as source"):
        _core.copy_values(values, target[:128], 1)


@pytest.mark.parametrize("name", ["_core", "_cuda"])
def test_extensions_link_neither_torch_nor_the_cuda_runtime(name):
    found = importlib.util.find_spec(f"contextem.{name}")
    if found is None or found.origin is None:
        pytest.skip(f"{name} was not built")
    if shutil.which("ldd") is None:
        pytest.skip("no ldd on this system")
    linked = subprocess.run(["ldd", found.origin], capture_output=True, text=True, check=True).stdout
    assert "libpthread" in linked or "libc.so" in linked
    for library in ("torch", "cudart", "libcuda.so"):
        assert library not in linked


def test_importing_the_kernels_is_light():
    script = (
        "import sys, contextem.moments; print([m for m in ('torch', 'cupy', 'matplotlib', 'dask') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_cpp_library_builds_without_warnings_and_passes_its_tests(tmp_path):
    if shutil.which("cmake") is None or shutil.which("ctest") is None:
        pytest.skip("no cmake on PATH")
    options = {"PYTHON": "OFF", "CUDA": "OFF", "TESTS": "ON", "WERROR": "ON"}
    configure = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), *(f"-DCONTEXTEM_{k}={v}" for k, v in options.items())]
    for command in (
        configure,
        ["cmake", "--build", str(tmp_path), "--parallel", "2"],
        ["ctest", "--test-dir", str(tmp_path), "--output-on-failure"],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert "100% tests passed" in run.stdout


def test_cuda_on_without_nvcc_is_an_error(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH")
    run = subprocess.run(
        [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(tmp_path),
            "-DCONTEXTEM_PYTHON=OFF",
            "-DCONTEXTEM_CUDA=ON",
            "-DCMAKE_CUDA_COMPILER=NOTFOUND",
        ],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CUDACXX": "nowhere"},
    )
    assert run.returncode != 0
    assert "CONTEXTEM_CUDA=ON but no CUDA compiler was found" in " ".join(run.stderr.split())
