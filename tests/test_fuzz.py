"""The fuzzers, each for a moment, with the same inputs every time; nightly runs are told of in docs/security.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.__main__ import TARGETS
from fuzz.draw import Broken, expected
from hypothesis import given
from hypothesis import strategies as st

from contextem._bounds import read_json
from contextem.context import HOSTS, Context, parse_formula
from contextem.elements import SYMBOLS, atomic_shares
from contextem.sidecar import KEYS, Settings, parse_settings

EXECUTIONS = {
    "formula": 5000,
    "sidecar": 2000,
    "tables": 3000,
    "kernels": 400,
    "core": 3000,
    "model": 90,
    "results": 200,
    "api": 800,
    "store": 110,
    "images": 190,
    "scans": 400,
}


def run(*options):
    folder = Path(__file__).parent
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "fuzz", *options]
    return subprocess.run(command, cwd=folder, env=place, capture_output=True, text=True, errors="replace", timeout=300)


@pytest.mark.parametrize("target", TARGETS)
def test_what_comes_from_outside_ends_in_a_result_or_one_sentence(target):
    if target == "api":
        pytest.importorskip("fastapi")
    done = run(target, "--plain", f"--executions={EXECUTIONS[target]}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(f"{EXECUTIONS[target]} executions")


def test_branches_guide_the_way_where_atheris_is_installed():
    pytest.importorskip("atheris")
    done = run("formula", "--executions=3000", "--seconds=20")
    assert done.returncode == 0, done.stderr[-4000:]
    told = done.stdout.split()
    assert int(told[1]) >= 3000 and int(told[told.index("edges,") - 1]) > 50


def test_more_than_a_sentence_breaks_the_contract():
    with expected(ValueError):
        raise ValueError("host: expected a formula")
    for told in ("", "first line\nsecond line"):
        with pytest.raises(Broken), expected(ValueError):
            raise ValueError(told)
    with pytest.raises(KeyError), expected(ValueError, TypeError):
        raise KeyError("host")


@given(
    st.one_of(st.text(max_size=12), st.from_regex(r"[A-Z][a-z]?\(?([A-Z][a-z]?(0?\.\d+)?){1,3}\)?2", fullmatch=True))
)
def test_a_formula_is_what_it_was_read_as(text):
    try:
        metal, chalcogen = parse_formula(text)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert text in (f"{metal}{chalcogen}2", f"{metal}({chalcogen})2")
    assert metal in SYMBOLS and sum(atomic_shares(chalcogen).values()) == pytest.approx(1.0, abs=1e-5)


@given(st.sampled_from(sorted(HOSTS)), st.permutations(["Cr", "V", "Fe"]), st.floats(0.001, 0.3))
def test_a_context_is_what_it_was_written_as(host, dopants, fraction):
    dopants = [each for each in dopants if each != parse_formula(host)[0]]
    context = Context(host, dopants, fractions=dict.fromkeys(dopants, fraction))
    assert Context.from_dict(json.loads(json.dumps(context.to_dict()))) == context


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "colour"]), anything, max_size=3))
def test_settings_are_checked_whatever_they_are(values):
    try:
        assert isinstance(parse_settings(values, "sidecar field.yaml"), Settings)
    except (TypeError, ValueError) as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON, got something else"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"a":' * 100_000, "expected JSON, got too many brackets in each other"),
        (b"\xff", "expected text in UTF-8, got something else"),
        (b" " * ((1 << 24) + 1), "expected at most 16777216 bytes of text, got more"),
    ],
)
def test_json_that_is_none(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json")
