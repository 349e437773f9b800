"""Mutation check: does a test fail for each small change of a module?

    python tests/mutation.py consensus results.jsonl

Cosmic-ray makes the changes, one at a time, in a copy of the tree, and the tests of the module are run on each.  A
mutant that they pass is a survivor: it either does what the module does, or shows what no test asks for.  Mutants that
differ in annotations only, or are no Python, are left out.  Mutants that stand in the results already are not tried
again; with --again those that survived are, on the tests as they are now.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cosmic_ray.ast
import cosmic_ray.mutating
import cosmic_ray.plugins
import pytest

ROOT = Path(__file__).resolve().parents[1]

MODULES = {
    "consensus": ("python/contextem/labels/consensus.py", ["tests/test_consensus.py"]),
    "context": ("python/contextem/context.py", ["tests/test_context.py"]),
    "columns": ("python/contextem/columns.py", ["tests/test_columns.py", "tests/test_grains.py"]),
}

# one or two replacements for each operator: its opposite, and the comparison that differs at the bound
REPLACEMENTS = {
    "ReplaceBinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitOr_BitAnd BitAnd_BitOr",
    "ReplaceComparisonOperator": "Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt "
    "Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is",
    "ReplaceUnaryOperator": "Delete_USub Delete_Invert Delete_Not",
}
OTHERS = (
    "AddNot ExceptionReplacer NumberReplacer RemoveDecorator ReplaceAndWithOr ReplaceBreakWithContinue "
    "ReplaceContinueWithBreak ReplaceFalseWithTrue ReplaceOrWithAnd ReplaceTrueWithFalse ZeroIterationForLoop"
)
OPERATORS = [f"core/{kind}_{which}" for kind, names in REPLACEMENTS.items() for which in names.split()] + [
    f"core/{name}" for name in OTHERS.split()
]


def meaning(source: str) -> str | None:
    """Syntax tree without annotations; None of what is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, None)
    return ast.dump(tree)


def mutants(source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """What is changed where, and the whole module with the change."""
    original = meaning(source)
    for name in OPERATORS:
        operator = cosmic_ray.plugins.get_operator(name)()
        places = (
            place
            for node in cosmic_ray.ast.ast_nodes(cosmic_ray.ast.get_ast(source))
            for place in operator.mutation_positions(node)
        )
        for occurrence, ((line, column), _) in enumerate(places):
            changed = cosmic_ray.mutating.mutate_code(source, operator, occurrence)
            if changed is not None and meaning(changed) not in (None, original):
                old, new = (text.splitlines()[line - 1].strip() for text in (source, changed))
                what = {"operator": name.removeprefix("core/"), "line": line, "column": column, "old": old, "new": new}
                yield what, changed


def key(mutant: dict[str, Any]) -> tuple[Any, ...]:
    """Tell a mutant by its words, so that lines may be added above it."""
    return tuple(mutant[name] for name in ("operator", "column", "old", "new"))


class Notes:
    """Tests in the order of what they cost for each mutant they find; which failed, and how long each took."""

    def __init__(self, cost: dict[str, float]) -> None:
        self.cost = cost
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.cost.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = max(report.duration, self.seconds.get(report.nodeid, 0.0))
        if report.failed:
            self.failed.append(report.nodeid)


def tested(arguments: list[str], cost: dict[str, float], limit: float) -> dict[str, Any]:
    """Run pytest in a child, which need not import again what this process has imported."""
    with tempfile.TemporaryDirectory() as folder:
        told, said = Path(folder, "told.json"), Path(folder, "said.txt")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setsid()
                for stream in (1, 2):
                    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
                notes = Notes(cost)
                code = int(pytest.main(arguments, plugins=[notes]))
                told.write_text(json.dumps({**vars(notes), "modules": list(sys.modules)}))
            finally:
                os._exit(code)
        ends = time.monotonic() + limit
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > ends:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"outcome": "timed out", "by": ""}
            time.sleep(0.01)
        _, status = os.waitpid(child, 0)
        notes = json.loads(told.read_text()) if told.exists() else {"failed": ["the interpreter"]}
        by = (notes["failed"] or ["an import"])[0]
        outcome = {"outcome": "killed", "by": by} if status else {"outcome": "survived", "by": ""}
        return {**outcome, "said": said.read_text(), **notes}


def main() -> None:
    """Run the mutants of one module and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", choices=MODULES)
    parser.add_argument("results", type=Path, help="JSON lines, one a mutant; added to")
    parser.add_argument("--again", action="store_true", help="try those again that survived")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn with seed 0; all by default")
    chosen = parser.parse_args()
    path, tests = MODULES[chosen.module]
    log = chosen.results.resolve()
    known = {
        (*key(found), found["nth"]): found
        for found in map(json.loads, log.read_text().splitlines() if log.exists() else [])
    }

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("python", "tests"):
            shutil.copytree(ROOT / part, tree / part)
        shutil.copy2(ROOT / "pyproject.toml", tree)
        os.environ.setdefault("CONTEXTEM_DATA", str(ROOT.parent / "shared" / "data" / "experimental"))
        os.chdir(tree)
        sys.path[:] = [str(tree / "python"), *(entry for entry in sys.path if not entry.startswith(str(ROOT)))]
        sys.dont_write_bytecode = True  # which would outlive a mutant of the same second and size
        arguments = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "-W"]
        arguments += ["ignore::pytest.PytestAssertRewriteWarning", "--doctest-modules", *tests, path]
        whole = tested(arguments, {}, 1200.0)
        if whole["outcome"] != "survived":
            sys.exit(f"the tests fail without a mutant:\n{whole['said']}")
        seconds, found = whole["seconds"], Counter(each["by"] for each in known.values())
        ours = {"contextem", "conftest", *(each.stem for each in (tree / "tests").iterdir())}
        for name in whole["modules"]:
            if name.partition(".")[0] not in ours:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        source = Path(path).read_text()
        for node in ast.walk(ast.parse(source)):  # of the package what the module stands on, and nothing above it
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("contextem."):
                importlib.import_module(node.module)
        if not Path(importlib.import_module("contextem._kernels").__file__ or "").is_relative_to(tree):
            sys.exit("an installed contextem is imported, not the mutants: uninstall it and build the core in python/")
        gc.freeze()  # children then neither search nor copy what is imported
        results, rng = [], random.Random(0)
        seen: Counter[tuple[Any, ...]] = Counter()
        for mutant, changed in mutants(source):
            mutant["nth"] = seen[key(mutant)]  # the same line may stand in two places
            seen[key(mutant)] += 1
            if rng.random() >= chosen.share:
                continue
            result = known.get((*key(mutant), mutant["nth"]))
            if result is None or (chosen.again and result["outcome"] == "survived"):
                Path(path).write_text(changed)
                cost = {name: each / (1 + found[name]) for name, each in seconds.items()}
                result = tested(arguments, cost, 20.0 + 5.0 * sum(seconds.values()))
                found[result["by"]] += 1
                with log.open("a") as file:
                    file.write(json.dumps(mutant | {name: result[name] for name in ("outcome", "by")}) + "\n")
            results.append(mutant | {"outcome": result["outcome"]})

    for result in sorted(results, key=lambda each: each["line"]):
        if result["outcome"] == "survived":
            print(f"{path}:{result['line']}  {result['operator']}\n  - {result['old']}\n  + {result['new']}")
    print(len(results), "mutants:", dict(Counter(result["outcome"] for result in results)))


if __name__ == "__main__":
    main()
