"""Data order is a function."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from vitrail.data.order import Order, Sequential, Shuffled, sample_rng

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
    for order in (Sequential(), Shuffled(), Shuffled(3)):
        assert adapter.validate_json(adapter.dump_json(order)) == order
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "shuffled", "repeats": 0})
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "shuffled", "repeat": 2})
