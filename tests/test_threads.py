"""A limit on threads holds for what is called from its thread, and for as long as the block lasts."""

import os
import threading
import time

import numpy as np
import pytest

import contextem as ctm
from contextem._threads import available_cores, thread_count, thread_limit


def test_all_cores_without_a_limit():
    assert thread_count() == available_cores() == len(os.sched_getaffinity(0))


def test_the_limit_ends_with_its_block_even_where_that_fails():
    with pytest.raises(KeyError), thread_limit(2):
        with thread_limit(1):
            assert thread_count() == 1
        assert thread_count() == 2
        raise KeyError
    assert thread_count() == available_cores()


def test_other_threads_are_not_limited():
    seen = []
    with thread_limit(available_cores() + 1):
        other = threading.Thread(target=lambda: seen.append(thread_count()))
        other.start()
        other.join()
    assert seen == [available_cores()]


def test_kernels_start_no_more_threads_than_allowed():
    rng = np.random.default_rng(0)
    image, positions = rng.normal(size=(600, 600)).astype("float32"), rng.uniform(20, 580, (20000, 2))
    basis = ctm.ZernikeBasis(n_max=10, size=32)
    free = ctm.column_moments(image, positions, basis)
    everyone, this = time.process_time(), time.thread_time()
    with thread_limit(1):
        alone = ctm.column_moments(image, positions, basis)
    everyone, this = time.process_time() - everyone, time.thread_time() - this
    np.testing.assert_array_equal(alone, free)
    assert everyone - this < 0.1 * this  # processor time that other threads of this process took


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="count: expected at least 1 thread, got 0"), thread_limit(0):
        pass
