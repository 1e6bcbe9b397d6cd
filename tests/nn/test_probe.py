"""Rows of attention weights: some heads, some queries, biases of every shape."""

from __future__ import annotations

import pytest
import torch

from vitrail.nn.probe import ALL, KernelWeights, Rows, SoftmaxWeights

HEADS: list[Rows] = [ALL, [1], [1, 0], slice(1)]
QUERIES: list[Rows] = [ALL, [4, 0], slice(1, 3), [2]]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("queries", QUERIES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize(
    "bias", [None, (5, 6), (2, 5, 6), (1, 5, 6), (3, 1, 1, 6), (3, 1, 5, 6), (3, 2, 5, 6), (1, 6)]
)
def test_some_rows_are_rows_of_all(
    bias: tuple[int, ...] | None, heads: Rows, queries: Rows
) -> None:
    added = None if bias is None else noise(*bias, seed=2)
    weights = SoftmaxWeights(noise(3, 2, 5, 4), noise(3, 2, 6, 4, seed=1), added, 0.7)
    scores = 0.7 * weights.q @ weights.k.mT
    whole = (scores if added is None else scores + added).softmax(dim=-1)
    assert weights.shape == whole.shape
    torch.testing.assert_close(weights.rows(), whole)
    torch.testing.assert_close(weights.rows(heads, queries), whole[:, heads][:, :, queries])


@pytest.mark.parametrize("queries", QUERIES, ids=str)
def test_windows_have_one_more_dimension(queries: Rows) -> None:
    mask = noise(7, 1, 5, 5, seed=2)
    weights = SoftmaxWeights(noise(3, 7, 2, 5, 4), noise(3, 7, 2, 5, 4, seed=1), mask, 1.0)
    whole = (weights.q @ weights.k.mT + mask).softmax(dim=-1)
    torch.testing.assert_close(weights.rows([1], queries), whole[:, :, [1]][:, :, :, queries])


def test_a_gradient_flows_through_the_rows_and_leaves_the_bias_alone() -> None:
    q, bias = noise(1, 2, 5, 4).requires_grad_(), noise(5, 6)
    before = bias.clone()
    SoftmaxWeights(q, noise(1, 2, 6, 4, seed=1), bias, 1.0).rows()[0, 0, 0, 0].backward()
    assert q.grad is not None
    assert q.grad.abs().sum() > 0
    assert torch.equal(bias, before)


def test_kernel_weights_are_shares_of_their_row() -> None:
    q, k = noise(3, 1, 5, 4).exp(), noise(3, 1, 6, 4, seed=1).exp()
    weights = KernelWeights(q, k, 0.0)
    products = q @ k.mT
    whole = products / products.sum(dim=-1, keepdim=True)
    assert weights.shape == whole.shape
    torch.testing.assert_close(weights.rows(), whole)
    torch.testing.assert_close(weights.rows([0], [4, 0]), whole[:, :, [4, 0]])


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-4, 1e-6])
def test_rows_of_kernel_weights_fall_short_of_one_by_what_epsilon_takes(size: float) -> None:
    """Their sum is total / (total + eps): 1, unless features are as small as its root."""
    q, k = size * noise(3, 1, 5, 4).exp(), size * noise(3, 1, 6, 4, seed=1).exp()
    rows = KernelWeights(q, k, 1e-8).rows()
    total = (q.double() @ k.double().mT).sum(dim=-1)
    torch.testing.assert_close(rows.double().sum(dim=-1), total / (total + 1e-8))
    assert (float((rows.sum(dim=-1) - 1).abs().max()) < 1e-6) == (size == 1)
    assert bool((rows >= 0).all())


def test_half_precision_gives_rows_in_float32() -> None:
    q = noise(1, 1, 5, 4).bfloat16()
    softmax = SoftmaxWeights(q, q, q[0, 0] @ q[0, 0].T, 1.0)
    for weights in (softmax, KernelWeights(q.exp(), q.exp(), 0.0)):
        rows = weights.rows()
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones(1, 1, 5))
