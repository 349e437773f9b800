"""Counts, intervals, densities, table and summary of a classification."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from classified import classification, honeycomb, posterior
from scipy.stats import beta

from contextem.classification import Classification
from contextem.columns import CLASSES

ARRAYS = set(Classification.__dataclass_fields__) - {"sampling", "lattice_constant", "provenance"}
LABELS = [0] * 40 + [1] * 10 + [2] * 45 + [3] * 4 + [4]


@pytest.fixture
def result():
    return classification(
        np.random.default_rng(0).uniform(5, 95, (100, 2)),
        posterior(LABELS),
        observed=np.arange(100) != 99,
        complete=np.arange(100) >= 2,
        familiarity=np.linspace(-1.0, 3.0, 100, dtype=np.float32),
        provenance={"context": {"host": "WSe2"}},
    )


def test_labels_counts_entropy(result):
    assert result.labels.tolist() == LABELS
    assert result.counts == dict(zip(CLASSES, (40, 10, 45, 4, 1), strict=True))
    assert result.entropy == pytest.approx(-0.8 * math.log2(0.8) - 4 * 0.05 * math.log2(0.05), rel=1e-5)


def test_contaminated_columns_are_not_counted(result):
    hidden = replace(result, contaminated=np.isin(np.arange(100), (0, 41)), unknown=np.isin(np.arange(100), (0, 1)))
    assert hidden.counts == dict(zip(CLASSES, (38, 9, 45, 4, 1), strict=True))
    assert hidden.summary()["contaminated"] == 2


def with_unknown(result):
    """The same with a metal, two dopants and the double vacancy unknown."""
    return replace(result, unknown=np.isin(np.arange(100), (5, 40, 41, 99)))


def test_unknown_columns_keep_their_class_but_are_not_counted(result):
    some = with_unknown(result)
    assert some.labels.tolist() == LABELS
    assert some.counts == dict(zip(CLASSES, (39, 8, 45, 4, 0), strict=True))
    assert sum(some.counts.values()) + some.unknown.sum() == len(some)
    summary = some.summary()
    assert summary["unknown"] == 4
    assert summary["columns"] == 100
    assert summary["dopant_fraction"]["count"] == 8
    assert summary["dopant_fraction"]["sites"] == 45  # of 47 counted, two are cut by the border
    assert summary["double_vacancy_density_per_cm2"]["sites"] == 49
    assert result.summary()["unknown"] == 0


def test_unknown_columns_are_told_in_the_table(result, tmp_path):
    with_unknown(result).to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [i for i, row in enumerate(rows) if row["unknown"] == "1"] == [5, 40, 41, 99]
    assert {row["unknown"] for row in rows} == {"0", "1"}
    assert [row["class"] for row in rows] == [CLASSES[i] for i in LABELS]
    assert np.array([row["familiarity"] for row in rows], float) == pytest.approx(result.familiarity, abs=6e-4)


def test_entropy_of_certainty_and_ignorance():
    probabilities = np.array([[1, 0, 0, 0, 0], [0.2] * 5], np.float32)
    both = classification(np.zeros((2, 2)), probabilities)
    assert both.entropy == pytest.approx([0.0, math.log2(5)], abs=1e-6)


def test_summary_fractions_and_densities_of_columns_told_for_sure(result):
    summary = replace(result, probabilities=posterior(LABELS, 1 - 1e-6)).summary()
    dopants = summary["dopant_fraction"]
    assert set(dopants) == {"value", "interval_95", "count", "expected_count", "sites", "detection_limit"}
    assert (dopants["count"], dopants["sites"]) == (10, 48)  # two of the 50 are cut by the border
    assert dopants["value"] == pytest.approx(10 / 48, rel=1e-3)
    assert dopants["expected_count"] == pytest.approx(10, rel=1e-3)
    assert dopants["interval_95"] == pytest.approx(beta.ppf((0.025, 0.975), 10.5, 38.5), rel=2e-3)
    assert dopants["detection_limit"] == pytest.approx(-math.log(0.05) / 48, rel=1e-3)
    # One X site a cell of sqrt(3)/2 (3.32 Å)^2 = 9.5457 Å^2 = 9.5457e-16 cm^2: 4 of 50 sites are 8.381e13 cm^-2.
    vacancies = summary["single_vacancy_density_per_cm2"]
    assert vacancies["value"] == pytest.approx(0.08 / 9.5457e-16, rel=1e-3)
    assert vacancies["interval_95"] == pytest.approx(beta.ppf((0.025, 0.975), 4.5, 46.5) / 9.5457e-16, rel=2e-3)
    assert vacancies["detection_limit"] == pytest.approx(-math.log(0.05) / 50 / 9.5457e-16, rel=1e-3)
    assert summary["not_observed"] == 1
    assert summary["not_complete"] == 2
    assert summary["context"] == {"host": "WSe2"}


def test_summary_holds_doubt(result):
    sure = replace(result, probabilities=posterior(LABELS, 1 - 1e-6)).summary()["dopant_fraction"]
    doubt = result.summary()["dopant_fraction"]
    assert doubt["count"] == sure["count"]
    low, high = sure["interval_95"]
    assert doubt["interval_95"][0] < doubt["value"] < doubt["interval_95"][1]
    assert doubt["interval_95"][1] - doubt["interval_95"][0] > 1.05 * (high - low)


def test_csv_has_the_promised_header_and_every_column(result, tmp_path):
    result.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == (
        "row,column,class,probability,metal,dopant,X2,single_vacancy,double_vacancy,entropy,familiarity,"
        "observed,complete,unknown,contaminated,sublattice,grain"
    )
    assert rows[0] == list(result.table())
    assert len(rows) == 101
    assert [row[2] for row in rows[1:]] == [CLASSES[i] for i in LABELS]
    assert np.array([row[:2] for row in rows[1:]], float) == pytest.approx(result.positions, abs=5e-4)
    assert rows[100][-6:] == ["0", "1", "0", "0", "1", "0"]
    assert rows[1][-6:] == ["1", "0", "0", "0", "0", "0"]


def test_json_is_the_summary(result, tmp_path):
    result.to_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == result.summary()


def test_nothing_is_overwritten_where_that_is_refused(result, tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        result.to_csv(tmp_path / "a.csv", overwrite=False)
    assert (tmp_path / "a.csv").read_text() == "mine"


def test_a_failed_write_leaves_nothing(result, tmp_path):
    broken = Classification(
        **{**{f: getattr(result, f) for f in result.__dataclass_fields__}, "provenance": {"bad": object()}}
    )
    with pytest.raises(TypeError):
        broken.to_json(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_empty_classification_has_a_summary(tmp_path):
    empty = classification(np.zeros((0, 2)), np.zeros((0, 5)))
    assert empty.summary()["dopant_fraction"] == {
        "value": None, "interval_95": None, "count": 0, "expected_count": 0.0, "sites": 0, "detection_limit": None
    }  # fmt: skip
    empty.to_csv(tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text() == ",".join(empty.table()) + "\n"


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_shapes_that_do_not_fit_are_named(result, name):
    values = {f: getattr(result, f) for f in result.__dataclass_fields__}
    values[name] = values[name][:-1]
    with pytest.raises(ValueError, match="expected shape"):
        Classification(**values)


def test_what_a_terminal_shows_is_short(result):
    assert repr(result) == (
        "<Classification of 100 columns: 40 metal, 10 dopant, 45 X2, 4 single_vacancy, 1 double_vacancy>"
    )


def test_spatial_statistics_tell_grains_strain_and_pairs():
    positions, host, _ = honeycomb(20)
    rng = np.random.default_rng(3)
    labels = np.where(host == 0, rng.random(len(host)) < 0.1, host)
    result = classification(positions, posterior(labels, 0.99))
    told = result.summary(spatial=True)
    assert [grain["columns"] for grain in told["grains"]] == [len(result)]
    assert told["strain_standard_deviation"]["exx"] == pytest.approx(0.0, abs=1e-6)
    assert set(told["pairs"]) == {"dopant"}
    assert told["pairs"]["dopant"]["defects"] == result.counts["dopant"]
    assert 0.0 < told["pairs"]["dopant"]["p_value"] <= 1.0
    assert told["pairs"]["dopant"]["nearest_distance_angstrom"] == pytest.approx(3.32, rel=1e-3)
    json.dumps(told)
    assert "grains" not in result.summary()
    empty = classification(np.zeros((0, 2)), np.zeros((0, 5)))
    assert empty.spatial_statistics()["pairs"] == {}
