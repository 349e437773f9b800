"""Arrays that go through a card piece by piece: the pieces, and that nothing is overwritten while it is needed."""

from __future__ import annotations

import types
from contextlib import nullcontext

import numpy as np
import pytest
import stand_in_card
import strategies
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import contextem as ctm
from contextem import _arrays, _core, _streaming


class Event:
    """Work of a stream up to which it has been recorded."""

    def __init__(self):
        self.stream, self.mark = None, 0

    def record(self, stream):
        self.stream, self.mark = stream, len(stream.queued)

    def synchronize(self):
        if self.stream is not None:
            self.stream.run(self.mark)


class Stream:
    def __init__(self):
        self.queued, self.done = [], 0

    def run(self, mark):
        while self.done < mark:
            self.done += 1
            self.queued[self.done - 1]()


class LazyCard:
    """Does nothing before somebody waits for it, which is the latest that a card may do it."""

    def __init__(self, locked=False):
        self.copying, self.computing, self.is_locked = Stream(), Stream(), lambda array: locked
        self.copied, self.held = 0, 0

    def locked(self, nbytes):
        return np.full(nbytes, 255, np.uint8)

    def fill(self, to, array):
        np.copyto(to, array)

    def memory(self, nbytes):
        self.held += nbytes
        return torch.full((nbytes,), 255, dtype=torch.uint8)

    def event(self):
        return Event()

    @staticmethod
    def _reached(event):
        # an event counts as it was recorded when it was waited for
        stream, mark = event.stream, event.mark
        return lambda: None if stream is None else stream.run(mark)

    def copy(self, to, host, after, done):
        reached = self._reached(after)
        self.copied += host.nbytes
        self.copying.queued.append(lambda: (reached(), to.copy_(torch.from_numpy(host))))
        done.record(self.copying)

    def compute(self, work, out, after, done):
        reached = [self._reached(event) for event in after]
        self.computing.queued.append(lambda: ([wait() for wait in reached], np.copyto(out, work().numpy())))
        for event in done:
            event.record(self.computing)

    def finish(self):
        self.copying.run(len(self.copying.queued))
        self.computing.run(len(self.computing.queued))


class EagerCard(LazyCard):
    """Does everything at once, which is the earliest."""

    def copy(self, *arguments):
        super().copy(*arguments)
        self.copying.run(len(self.copying.queued))

    def compute(self, *arguments):
        super().compute(*arguments)
        self.computing.run(len(self.computing.queued))


cards = st.sampled_from([LazyCard, EagerCard])
any_chunk = st.integers(1, 2**16)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.cases(), any_chunk, cards, st.booleans())
def test_any_chunk_gives_the_same_bits(case, chunk, card, locked):
    basis = ctm.ZernikeBasis(3, case.size)
    matrix = _arrays.check_scale(case.scale)
    image = np.ascontiguousarray(case.image)  # as it lies on the card; the C++ kernels round strided ones otherwise
    expected = ctm.column_moments(image, case.positions, basis, scale=case.scale, interpolation=case.interpolation)
    with pytest.MonkeyPatch.context() as patch:
        stand_in_card.install(patch)
        found = _streaming.column_moments(
            case.image, case.positions, basis.table, matrix, case.interpolation, card(locked and _plain(case)), chunk
        )
    np.testing.assert_array_equal(found, expected)


def _plain(case):
    return case.image.flags.c_contiguous


@given(st.integers(0, 40), st.integers(1, 5000), cards, st.booleans(), strategies.dtypes)
def test_any_chunk_of_patches_gives_the_same_bits(count, chunk, card, locked, dtype):
    basis = ctm.ZernikeBasis(3, 7)
    patches = np.random.default_rng(count).normal(size=(count, 7, 7)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        stand_in_card.install(patch)
        found = _streaming.patch_moments(patches, basis.table, card(locked), chunk)
    np.testing.assert_array_equal(found, ctm.patch_moments(patches, basis))


@given(strategies.cases(max_positions=60), any_chunk)
def test_pieces_hold_every_column_once_and_its_rows(case, chunk):
    height, width = case.image.shape
    reach = (case.size - 1) / 2 * abs(_arrays.check_scale(case.scale)[0]).sum() + 1
    pieces = _streaming.column_pieces((height, width), case.positions, reach, case.image.itemsize, chunk)
    columns = np.concatenate([piece.columns for piece in pieces]) if pieces else []
    assert sorted(columns) == list(range(len(case.positions)))
    row_bytes = width * case.image.itemsize
    for piece in pieces:
        assert 0 <= piece.first < piece.last <= height
        assert len(piece.columns) * 512 <= max(chunk, 512)
        rows = case.positions[piece.columns, 0]
        seen = rows[(rows + reach >= 0) & (rows - reach <= height - 1)]
        assert (np.maximum(seen - reach, 0) >= piece.first).all()
        assert (np.minimum(seen + reach, height - 1) <= piece.last - 1).all()
        tallest = min(height, int(2 * reach) + 3)
        assert (piece.last - piece.first) * row_bytes <= max(chunk, tallest * row_bytes)
    if height * row_bytes <= chunk:
        assert {(piece.first, piece.last) for piece in pieces} <= {(0, height)}


@given(st.integers(0, 1000), st.integers(1, 100), st.integers(1, 3000))
@example(0, 1, 1)
def test_patches_are_divided_in_order(count, patch_bytes, chunk):
    pieces = _streaming.patch_pieces(count, patch_bytes, chunk)
    assert [number for piece in pieces for number in range(count)[piece]] == list(range(count))
    assert all((piece.stop - piece.start) * patch_bytes <= max(chunk, patch_bytes) for piece in pieces)


def test_an_image_that_fits_goes_up_once_and_others_little_more(monkeypatch):
    stand_in_card.install(monkeypatch)
    rng = np.random.default_rng(0)
    image, positions = rng.random((2000, 50)), rng.uniform(0, 2000, (3000, 2)) * [1, 0.025]
    basis = ctm.ZernikeBasis(2, 9)
    for chunk, most in [(image.nbytes, 1.0), (image.nbytes // 10, 1.12)]:
        card = LazyCard()
        _streaming.column_moments(image, positions, basis.table, np.eye(2), "linear", card, chunk)
        assert card.copied <= most * image.nbytes + positions.nbytes
        assert card.held <= 4 * chunk


def test_the_lazy_card_catches_what_is_overwritten_too_early(monkeypatch):
    # the test of the test: without waiting for the copy that left, pieces come out wrong
    stand_in_card.install(monkeypatch)
    patches = np.random.default_rng(0).normal(size=(40, 7, 7))
    basis = ctm.ZernikeBasis(3, 7)
    monkeypatch.setattr(Event, "synchronize", lambda self: None)
    card = LazyCard()
    found = _streaming.patch_moments(patches, basis.table, card, 1000)
    assert not np.array_equal(found, _core.patch_moments(patches, basis.table.packed(patches.dtype), 1))


def queue(log):
    """Stand in for a stream of torch, which does everything at once and tells what it waited for."""
    return types.SimpleNamespace(
        wait_event=lambda event: log.append("wait"),
        wait_stream=lambda other: log.append("wait for the stream before"),
        synchronize=lambda: log.append("finish"),
    )


@pytest.mark.parametrize("chunk", [1000, 2**20])
def test_the_card_of_torch_on_a_stand_in(monkeypatch, chunk):
    stand_in_card.install(monkeypatch)
    log = []
    event = types.SimpleNamespace(record=lambda stream: log.append("record"), synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: queue(log))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(_arrays, "device_memory", lambda nbytes, device: torch.empty(nbytes, dtype=torch.uint8))
    monkeypatch.setattr(_arrays, "check_card", lambda device: device)
    monkeypatch.setattr(_streaming.TorchCard, "locked", lambda self, nbytes: np.empty(nbytes, np.uint8))
    rng = np.random.default_rng(0)
    image, positions, basis = rng.normal(size=(60, 50)), rng.uniform(-3, 60, (100, 2)), ctm.ZernikeBasis(4, 9)
    found = ctm.column_moments(image, positions, basis, scale=0.5, device="cuda:0", chunk=chunk)
    np.testing.assert_array_equal(found, ctm.column_moments(image, positions, basis, scale=0.5))
    patches = rng.normal(size=(30, 9, 9)).astype(np.float32)
    found = ctm.patch_moments(patches, basis, device="cuda:0", chunk=chunk)
    np.testing.assert_array_equal(found, ctm.patch_moments(patches, basis))
    assert log.count("finish") == 4 and "wait for the stream before" in log
    assert ctm.patch_moments(patches[:0], basis, device="cuda:0").shape == (0, 15)


def test_a_failure_leaves_no_copy_under_way(monkeypatch):
    extension = stand_in_card.install(monkeypatch)
    basis, card, finished = ctm.ZernikeBasis(3, 7), EagerCard(), []
    monkeypatch.setattr(extension, "patch_moments", lambda *_: 1 / 0)
    monkeypatch.setattr(card, "finish", lambda: finished.append(True))
    with pytest.raises(ZeroDivisionError):
        _streaming.patch_moments(np.zeros((9, 7, 7)), basis.table, card, 1000)
    assert finished == [True]


def test_bad_input_gets_one_sentence(monkeypatch):
    image, positions, basis = np.zeros((20, 20)), np.zeros((3, 2)), ctm.ZernikeBasis(2, 9)
    with pytest.raises(ValueError, match="chunk: expected a device beside it, such as 'cuda:0', got 100 alone"):
        ctm.column_moments(image, positions, basis, chunk=100)
    for device in ("cpu", "card", 1.5):
        with pytest.raises(ValueError, match="device: expected a CUDA device such as 'cuda:0', or none for the CPU"):
            ctm.column_moments(image, positions, basis, device=device)
    with pytest.raises(ValueError, match="backend: expected None or 'cuda' with device='cuda:0', got 'cpp'"):
        ctm.patch_moments(np.zeros((1, 9, 9)), basis, device="cuda:0", backend="cpp")
    with pytest.raises(ValueError, match=r"chunk: expected an integer from 1 to \d+, got 0"):
        ctm.column_moments(image, positions, basis, device="cuda:0", chunk=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"device: torch sees no CUDA device .*; leave it out for the CPU"):
        ctm.column_moments(image, positions, basis, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="device: expected one of 2 CUDA devices, got 'cuda:2'"):
        ctm.column_moments(image, positions, basis, device="cuda:2")
    stand_in_card.install(monkeypatch)
    with pytest.raises(TypeError, match="image: expected a NumPy array with device='cuda:0', got Tensor, which"):
        ctm.column_moments(torch.zeros(20, 20), positions, basis, device="cuda:0")


@pytest.mark.gpu
@pytest.mark.parametrize("page_locked", [False, True])
def test_streams_on_a_card(cuda_arrays, page_locked):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(700, 300)).astype(np.float32))
    image = (image.pin_memory() if page_locked else image).numpy()
    positions, basis = rng.uniform(-5, 700, (4000, 2)), ctm.ZernikeBasis(8, 24)
    whole = ctm.column_moments(cuda_arrays(image), cuda_arrays(positions), basis).cpu().numpy()
    for chunk in (20_000, 100_000, 2**30):
        found = ctm.column_moments(image, positions, basis, device="cuda:0", chunk=chunk)
        np.testing.assert_array_equal(found, whole)
    patches = ctm.extract_patches(image, positions, 24)
    expected = ctm.patch_moments(cuda_arrays(patches), basis).cpu().numpy()
    np.testing.assert_array_equal(ctm.patch_moments(patches, basis, device="cuda:0", chunk=500_000), expected)
