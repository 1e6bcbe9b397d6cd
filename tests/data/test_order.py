"""Data order is a function."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from vitrail.data.order import Bucketed, Order, Sequential, Shuffled, sample_rng

SMALL = st.integers(0, 2**32)


@given(count=st.integers(0, 200), seed=SMALL, epoch=SMALL)
def test_shuffled_is_a_permutation_and_a_function(count: int, seed: int, epoch: int) -> None:
    order = Shuffled().indices(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert (order == Shuffled().indices(count, seed, epoch)).all()


def test_order_differs_by_epoch_and_seed() -> None:
    orders = {
        tuple(Shuffled().indices(50, seed, epoch).tolist()) for seed in (0, 1) for epoch in range(5)
    }
    assert len(orders) == 10


def test_order_is_pinned() -> None:
    # A resumed run of another day must see the same order: these values never change.
    assert Shuffled().indices(8, 0, 0).tolist() == [7, 1, 5, 6, 0, 3, 4, 2]
    assert sample_rng(1, 2, 3).integers(0, 1000, 3).tolist() == [613, 718, 203]


@given(count=st.integers(1, 100), repeats=st.integers(1, 5))
def test_repeats_keep_the_length(count: int, repeats: int) -> None:
    order = Shuffled(repeats).indices(count, 0, 0)
    assert len(order) == count
    for start in range(0, count, repeats):
        assert len(set(order[start : start + repeats].tolist())) == 1
    assert len(set(order.tolist())) == -(-count // repeats)


def test_sequential() -> None:
    assert Sequential().indices(4, 7, 9).tolist() == [0, 1, 2, 3]


SIZES = st.lists(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 3)]), max_size=60).map(tuple)


@given(sizes=SIZES, batch_size=st.integers(1, 9), seed=SMALL, epoch=SMALL)
def test_bucketed_is_a_permutation_in_batches_of_one_size(
    sizes: tuple[tuple[int, int], ...], batch_size: int, seed: int, epoch: int
) -> None:
    order = Bucketed(sizes, batch_size)
    indices = order.indices(len(sizes), seed, epoch)
    assert sorted(indices.tolist()) == list(range(len(sizes)))
    assert (indices == order.indices(len(sizes), seed, epoch)).all()
    body = indices[: len(sizes) - len(sizes) % batch_size].reshape(-1, batch_size)
    kinds = [{sizes[index] for index in batch} for batch in body.tolist()]
    counts = Counter(sizes[index] for index in body.ravel().tolist())
    whole = sum(count // batch_size for count in counts.values())
    assert sum(len(kind) == 1 for kind in kinds) >= whole


def test_no_size_is_always_left_out() -> None:
    sizes = ((1, 1),) * 20 + ((1, 2),) * 20 + ((2, 1),) * 3
    epochs = np.stack([Bucketed(sizes, 4).indices(43, 0, epoch) for epoch in range(400)])
    last = np.bincount(epochs[:, 40:].ravel(), minlength=43)
    assert last.min() > 10, "each sample is expected 28 times"
    assert last.max() < 50
    first = [sizes[index] for index in epochs[:, 0].tolist()]
    assert 130 < first.count((1, 1)) < 260, "batches are in random order"
    assert (epochs[0] != epochs[1]).any()


def test_bucketed_is_pinned() -> None:
    order = Bucketed(((1, 1), (1, 2)) * 4, 2)
    assert order.indices(8, 0, 0).tolist() == [4, 2, 6, 0, 5, 3, 7, 1]


def test_every_part_of_the_name_makes_another_stream() -> None:
    names = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1)]
    draws = np.stack([sample_rng(*name).random(100) for name in names])
    assert len(np.unique(draws)) == draws.size
    assert np.abs(np.corrcoef(draws) - np.eye(len(names))).max() < 0.4


def test_stream_is_uniform_across_samples() -> None:
    first = np.array([sample_rng(0, 0, index).random() for index in range(2000)])
    assert abs(first.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.08


def test_round_trip() -> None:
    adapter: TypeAdapter[Order] = TypeAdapter(Order)
    for order in (Sequential(), Shuffled(), Shuffled(3), Bucketed(((3, 4), (5, 6)), 2)):
        assert adapter.validate_json(adapter.dump_json(order)) == order
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "shuffled", "repeats": 0})
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "shuffled", "repeat": 2})
