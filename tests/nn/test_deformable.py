"""Reading a map at a few places: gradients, and the dense form that it amounts to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitrail.nn.deformable import (
    DeformableAttention,
    DenseAttention,
    FeatureMemory,
    feature_memory,
)
from vitrail.nn.probe import AttentionWeights, SampledWeights

GRIDS = ((5, 7), (3, 4))


def attention(levels: int = 1, *, points: int = 3) -> DeformableAttention:
    torch.manual_seed(0)
    module = DeformableAttention(8, 2, points=points, levels=levels)
    for linear in (module.offsets, module.shares):
        torch.nn.init.normal_(linear.weight, std=0.5)
    return module


def maps(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, *grid, generator=generator) for grid in GRIDS[:count]]


def queries() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(2, 6, 4, generator=generator) * 0.5 + 0.2
    return torch.randn(2, 6, 8, generator=generator), boxes


@pytest.mark.parametrize("levels", [1, 2])
def test_samples_are_a_matrix_times_the_values(levels: int) -> None:
    """The proof that its picture is true: rows @ v is what the fast path gives."""
    module, seen = attention(levels), list[tuple[AttentionWeights, Tensor, Tensor]]()
    module.probe = lambda weights, v, out: seen.append((weights, v, out))
    module(*queries(), feature_memory(maps(levels), None))
    ((weights, v, out),) = seen
    rows = weights.rows()
    assert rows.shape == weights.shape == (2, 2, 6, sum(a * b for a, b in GRIDS[:levels]))
    assert rows.min() >= 0
    assert rows.sum(-1).max() <= 1 + 1e-5
    torch.testing.assert_close(rows @ v, out, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.rows([1], [0, 4]), rows[:, [1]][:, :, [0, 4]])


def test_inside_the_map_a_row_sums_to_one() -> None:
    places = torch.rand(1, 2, 3, 1, 4, 2) * 0.6 + 0.2
    shares = torch.rand(1, 2, 3, 1, 4).flatten(3).softmax(-1).reshape(1, 2, 3, 1, 4)
    rows = SampledWeights(places, shares, ((5, 6),)).rows()
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, 2, 3))


def test_a_sample_in_the_middle_of_a_cell_is_that_cell() -> None:
    places = torch.tensor([[2.5 / 4, 1.5 / 3]]).reshape(1, 1, 1, 1, 1, 2)
    rows = SampledWeights(places, torch.ones(1, 1, 1, 1, 1), ((3, 4),)).rows()
    expected = torch.zeros(3, 4)
    expected[1, 2] = 1
    torch.testing.assert_close(rows.reshape(3, 4), expected)


@pytest.mark.parametrize("levels", [1, 2])
def test_gradients_are_those_of_finite_differences(levels: int) -> None:
    module = attention(levels, points=2).double()
    tokens = feature_memory([one.double() for one in maps(levels)], None)
    q, boxes = (x[:, :3].double().requires_grad_() for x in queries())

    def run(q: Tensor, boxes: Tensor, tokens_: Tensor, *parameters: Tensor) -> Tensor:
        memory = FeatureMemory(tokens_, tokens.grids)
        names = [name for name, _ in module.named_parameters()]
        pairs = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, pairs, (q, boxes, memory))

    inputs = (q, boxes, tokens.tokens.requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_gradients_are_those_of_the_dense_form() -> None:
    module, kept = attention(), list[tuple[SampledWeights, Tensor]]()

    def keep(weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del out
        assert isinstance(weights, SampledWeights)
        kept.append((weights, v))

    module.probe = keep
    module(*queries(), feature_memory(maps(1), None))
    ((weights, v),) = kept
    wanted = (v, weights.places, weights.shares)
    fast = torch.autograd.grad(weights.sample(v).square().sum(), wanted, retain_graph=True)
    dense = torch.autograd.grad((weights.rows() @ v).square().sum(), wanted)
    for a, b in zip(fast, dense, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_heads_start_by_looking_into_different_directions() -> None:
    module = DeformableAttention(8, 4, points=2)
    places = module.places(torch.zeros(1, 1, 8), torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), None)
    offsets = (places - 0.5).reshape(4, 2, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    # The last point lies on the edge of the box, the first half way there.
    torch.testing.assert_close(
        offsets[:, 1], expected * torch.tensor([0.1, 0.2]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(offsets[:, 0] * 2, offsets[:, 1])


@pytest.mark.parametrize("dense", [False, True])
def test_what_was_filled_up_is_not_read(dense: bool) -> None:
    """An image filled up gives what the image alone gives, whatever stands beside it."""
    module = DenseAttention(8, 2) if dense else attention()
    (whole,) = maps(1)
    alone = module(*queries(), feature_memory([whole[:, :, :4, :5].contiguous()], None))
    mask = torch.zeros(2, 20, 28, dtype=torch.bool)
    mask[:, :16, :20] = True
    memory = feature_memory([whole], mask)
    assert memory.grids == ((5, 7),)
    assert memory.mask is not None
    assert memory.mask.reshape(2, 5, 7)[:, :4, :5].all()
    assert int(memory.mask.sum()) == 2 * 20
    torch.testing.assert_close(memory.shares, torch.tensor([[[5 / 7, 4 / 5]]] * 2))
    torch.testing.assert_close(module(*queries(), memory), alone, atol=1e-5, rtol=1e-5)


def test_dense_attention_reads_what_its_weights_say() -> None:
    torch.manual_seed(0)
    module, seen = DenseAttention(8, 2), list[float]()
    module.probe = lambda weights, v, out: seen.append(
        float((weights.rows() @ v - out).detach().abs().max())
    )
    out = module(queries()[0], None, feature_memory(maps(1), None))
    assert out.shape == (2, 6, 8)
    assert seen[0] < 1e-6
