"""What the classifier does not know: simulated anomalies, and whether their columns are told from known ones."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial import cKDTree

from contextem.cli import main
from contextem.context import Context
from contextem.evaluate import familiarity_auroc, unknown_table
from contextem.model import load_model
from contextem.scores import auroc
from contextem.simulate.anomalies import AWAY, BOUNDARY, KINDS, anomaly_at, mistakable, simulate_anomaly
from contextem.typicality import Typicality

PHYSICALLY_ALIKE = ("bilayer AA", "similar host")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_known_and_anomalous_columns_and_repeats(kind):
    first, again = (simulate_anomaly(kind, "WSe2", "Cr", 80e3, "HAADF", seed=4, dose=5000.0) for _ in range(2))
    assert np.array_equal(first.simulated.micrograph.data, again.simulated.micrograph.data)
    assert len(first.anomalous) == len(first.simulated.columns)
    assert (first.anomalous == 1).any()
    assert (first.anomalous == 0).any() == (not kind.endswith("host"))
    assert (first.context == first.simulated.context) == (not kind.endswith("host"))


def test_adatoms_make_their_columns_brighter():
    anomaly = simulate_anomaly("adatom on metal", "WS2", None, 80e3, "HAADF", seed=2, dose=20000.0, haze=0.0)
    simulated = anomaly.simulated
    rows, columns = np.rint(simulated.columns.positions).astype(int).T
    brightness = simulated.micrograph.data[rows, columns]
    above = anomaly.anomalous == 1
    metals = (simulated.columns.sublattice == 0) & ~above
    assert np.median(brightness[above]) > 1.5 * np.median(brightness[metals])


@pytest.mark.parametrize("kind", ["mirror boundary", "rotated boundary"])
def test_grains_keep_their_distance(kind):
    anomaly = simulate_anomaly(kind, "WSe2", None, 80e3, "HAADF", seed=3, drift=0.0, disorder=0.0)
    positions = anomaly.simulated.columns.positions * anomaly.simulated.micrograph.sampling
    assert cKDTree(positions).query(positions, k=2)[0][:, 1].min() > 1.49
    a = anomaly.simulated.context.lattice_constant
    known, anomalous = positions[anomaly.anomalous == 0], positions[anomaly.anomalous == 1]
    assert cKDTree(known).query(anomalous)[0].min() > (AWAY - BOUNDARY) * a


def test_a_second_layer_in_2h_puts_metals_on_chalcogens():
    options = {"dose": 20000.0, "haze": 0.0, "vacancy_fraction": 0.0, "seed": 5}
    anomaly = simulate_anomaly("bilayer 2H", "WS2", None, 80e3, "HAADF", **options)
    rows, columns = np.rint(anomaly.simulated.columns.positions).astype(int).T
    brightness = anomaly.simulated.micrograph.data[rows, columns]
    metal = anomaly.simulated.columns.sublattice == 0
    ratio = [np.median(brightness[metal & part]) / np.median(brightness[~metal & part])
             for part in (anomaly.anomalous == 0, anomaly.anomalous == 1)]  # fmt: skip
    assert ratio[0] > 2.0
    assert 0.7 < ratio[1] < 1.4


def test_found_columns_share_the_fate_of_the_true_ones():
    anomaly = simulate_anomaly("bilayer 2H", "WSe2", None, 80e3, "HAADF", seed=1)
    positions = anomaly.simulated.columns.positions
    assert np.array_equal(anomaly_at(anomaly, positions[::-1]), anomaly.anomalous[::-1])
    assert anomaly_at(anomaly, np.array([[-100.0, -100.0]])).tolist() == [-1]


def test_hosts_are_alike_or_not():
    context = Context("MoS2", "Cr", 80e3, "HAADF")
    alike, unlike = ({c.host for c in mistakable(context, similar=similar)} for similar in (True, False))
    assert alike == {"NbS2"}
    assert "WS2" in unlike
    assert not alike & unlike


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind: expected one of adatom on metal"):
        simulate_anomaly("ghost", "WSe2", None, 80e3, "HAADF", seed=0)
    with pytest.raises(ValueError, match="no similar host to mistake WS2 for"):
        simulate_anomaly("similar host", "WS2", "Ta", 80e3, "HAADF", seed=0)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    known, anomalous = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    pairs = (known[:, None] > anomalous) + 0.5 * (known[:, None] == anomalous)
    assert auroc(known, anomalous) == pytest.approx(pairs.mean())
    assert np.isnan(auroc(known, anomalous[:0]))


def test_typicality_of_correlated_features():
    torch.manual_seed(0)
    typicality = Typicality(4, [range(2)], 1, 16)
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(2000, 4)).astype(np.float32))
    features[:, 1] = features[:, 0] + 0.1 * features[:, 1]
    given = torch.zeros(2000, 1)
    assert not typicality(features, given).any()  # nothing is learnt of known columns yet
    typicality.calibrate(features, given, features[:, 3])
    strange = torch.tensor([[1.0, -1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    unlikely, likely = typicality(strange, given[:2]).tolist()
    assert unlikely < likely - 1.0


def test_a_few_images_tell_adatoms_and_the_table_says_so():
    scores = familiarity_auroc(load_model(), kinds=["adatom on metal", "wrong host"], images=3, workers=1)
    assert min(each.auroc for each in scores.values()) > 0.93
    assert unknown_table(scores).splitlines()[1].startswith("adatom on metal")


@pytest.mark.slow
@pytest.mark.parametrize("found", [False, True])
def test_every_anomaly_that_physics_can_tell_is_told(found):
    kinds = [kind for kind in KINDS if kind not in PHYSICALLY_ALIKE]
    scores = familiarity_auroc(load_model(), kinds=kinds, images=24, found=found, seed=1000)
    assert {kind: each.auroc for kind, each in scores.items() if not each.auroc >= 0.95} == {}


@pytest.mark.slow
def test_the_command_prints_both_tables():
    result = CliRunner().invoke(main, ["evaluate", "--unknown", "--images", "1"])
    assert result.exit_code == 0, result.output
    assert result.output.count("AUROC") == 2
