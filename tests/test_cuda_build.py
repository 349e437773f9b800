"""The CUDA kernels, compiled for every architecture of a release: no warnings, no spills where speed is promised."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of a kernel."""

    name: str
    architecture: int
    registers: int
    spilled: int
    shared: int

    def occupancy(self) -> float:
        """Part of the 64 warps of a multiprocessor of sm_90 that are resident."""
        warps = (128 if "moments" in self.name else 256) // 32
        by_registers = 65536 // (-(-self.registers * 32 // 256) * 256 * warps)
        by_shared = 233472 // (self.shared + 1024)
        return min(by_registers, by_shared, 32, 64 // warps) * warps / 64


def kernels(report: str) -> list[Kernel]:
    found = [match.groupdict() for match in REPORT.finditer(report)]
    mangled = "\n".join(kernel["kernel"] for kernel in found)
    names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    return [
        Kernel(
            re.sub(r"^void |contextem::cuda::|\(anonymous namespace\)::|\((?!anonymous).*", "", name),
            int(kernel["architecture"]),
            int(kernel["registers"]),
            int(kernel["stores"]) + int(kernel["loads"]),
            int(kernel["shared"] or 0),
        )
        for name, kernel in zip(names, found, strict=True)
    ]


def test_all_kernels_compile_for_all_architectures_and_the_main_ones_do_not_spill(tmp_path):
    if missing := [tool for tool in ("nvcc", "cmake", "c++filt") if shutil.which(tool) is None]:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    configure = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DCONTEXTEM_CUDA=ON", "-DCONTEXTEM_PYTHON=OFF"]
    options = [
        "-DCONTEXTEM_WERROR=ON",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        "-DCMAKE_CUDA_FLAGS=-Xptxas=-v --threads=2",
    ]
    run = subprocess.run([*configure, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    commands = json.loads((tmp_path / "compile_commands.json").read_text())
    sources = [command for command in commands if command["file"].endswith(".cu")]
    assert {Path(source["file"]).name for source in sources} == {p.name for p in (ROOT / "cuda/src").glob("*.cu")}
    found: list[Kernel] = []
    for source in sources:
        run = subprocess.run(source["command"], shell=True, cwd=source["directory"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found += kernels(run.stdout + run.stderr)
    assert {kernel.architecture for kernel in found} == {80, 86, 89, 90, 100, 120}
    print("\n| kernel, sm_90 | registers | spilled, bytes | shared memory, bytes | occupancy |\n|---|---|---|---|---|")
    for kernel in sorted((k for k in found if k.architecture == 90), key=lambda k: k.name):
        row = (kernel.name, kernel.registers, kernel.spilled, kernel.shared, f"{kernel.occupancy():.0%}")
        print("| " + " | ".join(map(str, row)) + " |")
    own = [kernel for kernel in found if not kernel.name.startswith("cub::")]
    assert {kernel.name.split("<")[0] for kernel in own} >= {"gather_kernel", "response_kernel", "mark_kernel"}
    assert [kernel for kernel in own if kernel.spilled and kernel.architecture == 90] == []  # the one tuned for
    for stage in ("VectorStage", "ColumnSamples<float>"):
        main = [kernel for kernel in found if kernel.name.startswith("moments_kernel<float") and stage in kernel.name]
        assert len(main) == 6
        assert [kernel for kernel in main if kernel.spilled] == []
        assert all(kernel.shared <= 48 * 1024 for kernel in main)  # without asking for more


def test_the_ladder_of_kernels_compiles_with_the_line_it_gives(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("not on PATH: nvcc")
    ladder = (ROOT / "benchmarks/kernels/moments.cu").read_text()
    (lines,) = re.findall(r"^//   (nvcc .*) && \./ladder$", ladder, re.MULTILINE | re.DOTALL)
    line = lines.replace("\n//  ", "")
    # where there is no device there is none to ask; the library is built by the tests of the C++ library
    line = line.replace("-arch=native", "-arch=sm_90").replace("cpp/src/*.cpp -o ladder", f"-dc -odir {tmp_path}")
    strict = f"{line} -Xcompiler=-Wall,-Wextra --Werror=all-warnings"
    run = subprocess.run(strict, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
