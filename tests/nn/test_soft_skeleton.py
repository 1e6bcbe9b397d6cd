"""Skeletons by pooling, on shapes whose skeletons are known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.nn.soft_skeleton import soft_skeleton


def disc(side: int, radius: float) -> torch.Tensor:
    line = torch.arange(side) - (side - 1) / 2
    return ((line[:, None] ** 2 + line[None] ** 2) <= radius**2).float()[None, None]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_line_stays(transposed: bool) -> None:
    mask = torch.zeros(1, 1, 15, 21)
    mask[..., 7, 3:18] = 1
    mask = mask.transpose(2, 3) if transposed else mask
    assert torch.equal(soft_skeleton(mask, 5), mask)


def test_a_diagonal_stays() -> None:
    mask = torch.eye(12)[None, None]
    assert torch.equal(soft_skeleton(mask, 5), mask)


@pytest.mark.parametrize("width", [3, 5, 7])
def test_a_band_thins_to_its_middle(width: int) -> None:
    """A band as long as the image: its middle line, one pixel wide."""
    mask = torch.zeros(1, 1, 21, 32)
    mask[..., 10 - width // 2 : 11 + width // 2, :] = 1
    wanted = torch.zeros_like(mask)
    wanted[..., 10, :] = 1
    assert torch.equal(soft_skeleton(mask, width // 2), wanted)


def test_a_disc_thins_and_keeps_its_middle() -> None:
    mask = disc(25, 9)
    found = soft_skeleton(mask, 10)
    assert found[0, 0, 12, 12] == 1
    assert found.sum() < 0.25 * mask.sum()
    assert not (found * (1 - mask)).any(), "nothing beside the mask"


def test_too_few_erosions_leave_the_middle_out() -> None:
    assert soft_skeleton(disc(25, 9), 2)[0, 0, 12, 12] == 0


def test_images_and_classes_are_apart() -> None:
    masks = torch.cat([disc(15, 5), disc(15, 2)], dim=1).repeat(2, 1, 1, 1)
    found = soft_skeleton(masks, 5)
    torch.testing.assert_close(found[0, :1], soft_skeleton(masks[:1, :1], 5)[0])
    torch.testing.assert_close(found[1, 1:], soft_skeleton(masks[1:, 1:], 5)[0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_skeleton_is_a_part(seed: int) -> None:
    masks = torch.rand(1, 2, 9, 11, generator=torch.Generator().manual_seed(seed))
    found = soft_skeleton(masks, 3)
    assert (found >= 0).all()
    assert (found <= masks + 1e-6).all()


def test_it_has_a_gradient() -> None:
    """Where the line is weak, more of it makes more skeleton."""
    mask = torch.full((1, 1, 9, 9), 0.0)
    mask[..., 4, :] = 0.6
    mask.requires_grad_()
    soft_skeleton(mask, 3).sum().backward()
    assert mask.grad is not None
    assert (mask.grad[..., 4, 2:7] > 0).all()
