"""From tokens back to pixels: sizes, places, and what joins."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitrail.nn.pixel_decoder import ImageSkip, PixelDecoder, doublings, magnified, width_at

SWIN = (4, 8, 16, 32)
WIDTHS = (3, 4, 5, 6)


def decoder(strides: tuple[int, ...], stride: int, *, skip: bool = True) -> PixelDecoder:
    torch.manual_seed(0)
    channels = [4 + i for i in range(len(strides))]
    return PixelDecoder(channels, strides, stride=stride, widths=WIDTHS, skip=skip)


def maps_of(strides: tuple[int, ...], size: tuple[int, int]) -> list[torch.Tensor]:
    return [
        torch.randn(2, 4 + i, -(-size[0] // stride), -(-size[1] // stride))
        for i, stride in enumerate(strides)
    ]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("strides", [(14,), (16,), (8,), (4,), (2,), (4, 8), SWIN], ids=str)
def test_a_cell_for_every_stride_of_pixels_begun(
    strides: tuple[int, ...], stride: int, skip: bool
) -> None:
    part = decoder(strides, stride, skip=skip)
    for size in ((32, 48), (33, 61), (35, 32)):
        images = torch.randn(2, 3, *size)
        found = part(maps_of(strides, size), images)
        assert found.shape == (2, part.width, -(-size[0] // stride), -(-size[1] // stride))
        assert found.isfinite().all()


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("strides", [(14,), (16,), (8,), (4,), (2,), SWIN], ids=str)
def test_every_part_is_used(strides: tuple[int, ...], stride: int, skip: bool) -> None:
    """No weight without a gradient, and maps that are coarse enough all join."""
    part = decoder(strides, stride, skip=skip)
    images = torch.randn(2, 3, 40, 48, requires_grad=True)
    maps = [m.requires_grad_() for m in maps_of(strides, (40, 48))]
    part(maps, images).square().sum().backward()
    assert [name for name, weight in part.named_parameters() if weight.grad is None] == []
    assert (images.grad is not None) == skip
    for own, each in zip(strides, maps, strict=True):
        assert (each.grad is not None) == (own >= stride or own == strides[-1])


def test_a_finer_image_reaches_the_embedding() -> None:
    """What a patch has averaged away is told by the skip, and by nothing else."""
    maps = maps_of((16,), (32, 32))
    flat, striped = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)
    striped[..., ::2] = 1.0
    with torch.no_grad():
        blind, seeing = decoder((16,), 2, skip=False).eval(), decoder((16,), 2).eval()
        assert torch.equal(blind(maps, flat), blind(maps, striped))
        assert not torch.allclose(seeing(maps, flat), seeing(maps, striped))


@pytest.mark.parametrize(("before", "after"), [(16, 4), (14, 8), (14, 4), (8, 1), (4, 4), (2, 8)])
def test_centres_of_cells_stay_where_they_are(before: int, after: int) -> None:
    """A map of the places of its cells' centres becomes one of the new centres."""
    side = 6 * before
    centres = (torch.arange(6) + 0.5) * before
    places = torch.stack(torch.meshgrid(centres, centres, indexing="ij"))[None]
    count = side // after
    found = magnified(places, before, after, (count, count))
    wanted = (torch.arange(count) + 0.5) * after
    # Beyond the outermost centres bilinear maps repeat the edge.
    wanted = wanted.clamp(before / 2, side - before / 2)
    torch.testing.assert_close(found[0, 0], wanted[:, None].expand(-1, count))
    torch.testing.assert_close(found[0, 1], wanted[None].expand(count, -1))


def test_what_a_map_does_not_cover_repeats_its_edge() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2)
    found = magnified(x, 8, 8, (3, 4))
    assert found[0, 0].tolist() == [[0, 1, 1, 1], [2, 3, 3, 3], [2, 3, 3, 3]]
    assert magnified(x, 8, 8, (1, 2))[0, 0].tolist() == [[0, 1]]


@pytest.mark.parametrize("strides", [(16,), SWIN], ids=str)
def test_what_moves_by_cells_moves_the_result(strides: tuple[int, ...]) -> None:
    """Image and maps one coarsest cell further: so is the embedding, away from the edges."""
    part = decoder(strides, 4).eval()
    far = strides[-1]
    side = 12 * far
    images, maps = torch.randn(1, 3, side, side), [m[:1] for m in maps_of(strides, (side, side))]
    moved = [m.roll((far // s, far // s), (2, 3)) for s, m in zip(strides, maps, strict=True)]
    with torch.no_grad():
        here, there = part(maps, images), part(moved, images.roll((far, far), (2, 3)))
    cells, rim = far // 4, 5 * far // 4
    back = there.roll((-cells, -cells), (2, 3))
    inner = (..., slice(rim, -rim), slice(rim, -rim))
    torch.testing.assert_close(back[inner], here[inner], atol=1e-4, rtol=1e-4)


def test_a_mirror_image_is_told_without_a_shift() -> None:
    """With mirrored filters only the doublings are left to be off their places: they are not."""
    part = decoder((16,), 2, skip=False).eval()
    with torch.no_grad():
        for conv in part.modules():
            if isinstance(conv, nn.Conv2d):
                conv.weight.copy_((conv.weight + conv.weight.flip(3)) / 2)
    images, (cells,) = torch.zeros(2, 3, 64, 96), maps_of((16,), (64, 96))
    with torch.no_grad():
        torch.testing.assert_close(
            part([cells.flip(3)], images), part([cells], images).flip(3), atol=1e-5, rtol=1e-5
        )


def test_maps_of_the_image_begin_where_they_are_wanted() -> None:
    maps = ImageSkip(WIDTHS, finest=4, coarsest=32)(torch.zeros(2, 3, 32, 64))
    assert {s: tuple(m.shape[1:]) for s, m in maps.items()} == {
        4: (5, 8, 16),
        8: (6, 4, 8),
        16: (6, 2, 4),
    }
    assert ImageSkip(WIDTHS, finest=1, coarsest=4).strides == (1, 2)


@settings(max_examples=50, deadline=None)
@given(first=st.sampled_from([1, 2, 4, 8]), end=st.integers(1, 200))
def test_doublings_and_widths(first: int, end: int) -> None:
    strides = doublings(first, end)
    assert all(s < end for s in strides)
    assert all(b == 2 * a for a, b in pairwise(strides))
    assert not strides or 2 * strides[-1] >= end
    assert [width_at(WIDTHS, s) for s in (1, 2, 4, 8, 14, 16, 32)] == [3, 4, 5, 6, 6, 6, 6]


def test_low_precision_and_two_programs_agree() -> None:
    """Under bfloat16 it runs and stays near; a compiled graph has no break."""
    part, size = decoder((14,), 4).eval(), (30, 45)
    maps, images = maps_of((14,), size), torch.randn(2, 3, *size)
    with torch.no_grad():
        exact = part(maps, images)
        with torch.autocast("cpu", torch.bfloat16):
            near = part(maps, images)
        whole = torch.compile(part, fullgraph=True, backend="aot_eager")(maps, images)
    torch.testing.assert_close(near.float(), exact, atol=0.1, rtol=0.1)
    torch.testing.assert_close(whole, exact, atol=1e-5, rtol=1e-5)
