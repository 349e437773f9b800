"""Warnings of this package have categories of their own, which a user filters or turns into errors."""

import pickle
import warnings

import numpy as np
import pytest

import contextem as ctm
from contextem import remarks
from contextem.simulate.dataset import simulate_micrograph

CATEGORIES = [each for each in vars(remarks).values() if isinstance(each, type) and each.__module__ == remarks.__name__]


def test_all_categories_are_one_kind_of_user_warning_and_public():
    assert len(CATEGORIES) == 8
    for each in CATEGORIES:
        assert issubclass(each, ctm.ContextemWarning) and issubclass(each, UserWarning)
        assert getattr(ctm, each.__name__) is each and each.__name__ in ctm.__all__
        assert pickle.loads(pickle.dumps(each("from a worker"))).args == ("from a worker",)


def test_deprecations_are_shown_where_python_hides_its_own():
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for action, category in (("ignore", DeprecationWarning), ("ignore", PendingDeprecationWarning)):
            warnings.simplefilter(action, category)  # as Python does
        warnings.warn("gone", ctm.ContextemDeprecationWarning, stacklevel=1)
        warnings.warn("gone", DeprecationWarning, stacklevel=1)
    assert [each.category for each in caught] == [ctm.ContextemDeprecationWarning]


@pytest.fixture(scope="module")
def image():
    made = simulate_micrograph("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200), 3, size=40.0, sampling=0.2)
    return made.micrograph


def test_one_category_becomes_an_error_and_another_is_ignored(image):
    unknown = ctm.Context("WSe2", "Pd", energy=80e3, detector="HAADF")  # no model was trained on Pd
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=ctm.ExtrapolationWarning)
        with pytest.raises(ctm.ExtrapolationWarning, match="not trained on Pd"):
            ctm.classify(image, unknown)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=ctm.ExtrapolationWarning)
        ctm.classify(image, unknown)
    assert not any(issubclass(each.category, ctm.ExtrapolationWarning) for each in caught)


def test_what_is_warned_of_stands_in_the_summary_though_nothing_is_shown(image):
    off = ctm.Micrograph(image.data, 0.216, image.energy, image.detector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ctm.ContextemWarning)
        result = ctm.classify(off, ctm.Context("WSe2", "Cr"))
    (told,) = [each for each in result.summary()["warnings"] if each.startswith("sampling: ")]
    assert "check sampling and host" in told
    with pytest.warns(ctm.SamplingWarning, match="check sampling and host") as caught:
        ctm.classify(off, ctm.Context("WSe2", "Cr"))
    assert [str(each.message) for each in caught] == result.summary()["warnings"]
    assert np.array_equal(off.data, image.data)
