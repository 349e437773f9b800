"""Rendering of training micrographs: rate of whole images and of the superposition alone.

Over the range of sampling of the training images, 20,000 columns/s a core are to be rendered, from the lattice to noisy
counts: by processor time, with OMP_NUM_THREADS=1 lest idle threads count.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from contextem.simulate.conditions import WIDE
from contextem.simulate.dataset import CASES, CONDITIONS, column_groups, simulate_micrograph
from contextem.simulate.render import superpose
from contextem.simulate.structures import doped_monolayer


@pytest.mark.parametrize("sampling", [0.1, 0.2, 0.4])
def test_micrograph(benchmark, sampling):
    case = iter(range(10**6))

    def simulate():
        i = next(case)
        return simulate_micrograph(*CASES[i % 96], 80e3, "HAADF", i, sampling=sampling)

    simulated = benchmark(simulate)
    seconds = benchmark.stats["mean"]
    print(f"\n{1 / seconds:.1f} images/s, {len(simulated.labels) / seconds:,.0f} columns/s at {sampling} Å/px")
    assert simulated.micrograph.shape == (round(42 / sampling),) * 2
    assert simulated.micrograph.data.mean() > 0


def test_rate_over_the_range_of_sampling():
    """Images as they are drawn for training: every case, condition and sampling in turn."""
    samplings = np.linspace(*WIDE.sampling, 9)
    conditions = itertools.cycle(itertools.product(CONDITIONS, CASES))
    rates = []
    for sampling in samplings:
        seconds, columns = [], []
        for i, (condition, case) in enumerate(itertools.islice(conditions, 41)):
            start = time.process_time()
            simulated = simulate_micrograph(*case, *condition, i, sampling=sampling)
            seconds.append(time.process_time() - start)
            columns.append(len(simulated.labels))
        # the first image fills the caches
        rates.append(sum(columns[1:]) / sum(seconds[1:]))
        print(f"\n{rates[-1]:9,.0f} columns/s at {sampling:.2f} Å/px", end="")
    # as many images at each sampling: the harmonic mean
    mean = len(rates) / np.sum(1 / np.array(rates))
    print(f"\n{mean:9,.0f} columns/s on average")
    assert min(columns) > 200


def test_superposition_of_a_large_image(benchmark):
    """1024 x 1024 px with about 2,400 columns."""
    layer = doped_monolayer(3.32, (-6, -6), (109, 109), np.random.default_rng(0))
    groups = column_groups(layer, "WSe2", "Cr", 80e3, "HAADF", source_size=0.4)
    image = benchmark(superpose, groups, (1024, 1024), 0.1)
    print(f"\n{len(layer.labels) / benchmark.stats['mean']:,.0f} columns/s")
    # the same pixels one by one
    points = np.array([[3, 5], [500, 700], [1023, 0]]) * 0.1
    offsets = points - np.arange(3)[:, None] * [0.1, 0.0]
    alone = superpose(groups, (3, 1), 0.1, offsets, period=(1024 * 0.1 + 12, 1024 * 0.1 + 12))[:, 0]
    np.testing.assert_allclose(image[[3, 500, 1023], [5, 700, 0]], alone, atol=1e-9)
