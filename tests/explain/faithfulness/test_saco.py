from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from linear import flat, linear_model, true_map
from vitrail.explain.faithfulness.pixels import ranks, stretch
from vitrail.explain.faithfulness.saco import coefficient, saco

FLOATS = st.floats(0, 1, width=32)


def test_by_hand() -> None:
    """Pairs of (s, drop): (6, 1), (3, 2), (1, 0): -3 + 5 + 2 of 10."""
    found = coefficient(torch.tensor([[6.0, 3.0, 1.0]]), torch.tensor([[1.0, 2.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([0.4]))


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=6))
def test_as_the_algorithm_of_the_paper_says(pairs: list[tuple[float, float]]) -> None:
    pairs = sorted(pairs, key=lambda pair: -pair[0])
    total = weighted = 0.0
    for (s_i, drop_i), (s_j, drop_j) in itertools.combinations(pairs, 2):
        weighted += (s_i - s_j) if drop_i >= drop_j else -(s_i - s_j)
        total += abs(s_i - s_j)
    salience, drops = torch.tensor(pairs, dtype=torch.float64).T[:, None]
    found = float(coefficient(salience, drops)[0])
    assert found == pytest.approx(weighted / total if total else 0.0, abs=1e-9)
    assert -1 - 1e-9 <= found <= 1 + 1e-9


def test_a_map_without_differences_says_nothing() -> None:
    assert float(coefficient(torch.ones(1, 4), torch.tensor([[3.0, 1.0, 2.0, 0.0]]))) == 0


def test_true_order_gives_one_and_the_reverse_minus_one() -> None:
    model = linear_model(torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, -0.7]]), scale=0.5)
    images = torch.stack([flat([[200, 90, 30], [160, 210, 20]]), flat([[9, 99, 80], [160, 3, 50]])])
    truth = true_map(model, images)
    truth = truth - truth.amin(dim=(1, 2), keepdim=True)
    worst = truth.amax(dim=(1, 2), keepdim=True) - truth
    for cells, expected in ((truth, 1.0), (worst, -1.0)):
        pixels = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
        order = ranks(pixels, images, (1, 1))
        found = saco(model, images, [1, 1], order, pixels, groups=6)
        torch.testing.assert_close(found, torch.full((2,), expected))


def test_groups_are_of_one_size_and_erased_one_at_a_time() -> None:
    seen: list[torch.Tensor] = []
    model = linear_model(torch.ones(2, 3))
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    image = torch.arange(96, dtype=torch.uint8).view(1, 1, 8, 12).expand(1, 3, -1, -1).clone()
    heat = torch.rand(1, 2, 3)
    order = ranks(heat, image, (4, 4))
    saco(model, image, [1], order, stretch(heat, (8, 12), (4, 4)), groups=10)
    assert torch.equal(seen[0][0], image[0])
    gone = torch.stack([(s != image[0]).any(dim=0) for s in seen[0][1:]]).sum(dim=0)
    assert int(gone.max()) == 1  # every pixel in one group, but those of the mean colour itself
    assert int(gone.sum()) >= 95
