"""Maps over views, in the pixels of images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitrail.tasks.placing import placed

SIDES = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(1, 9), w=st.integers(1, 9), stride=st.sampled_from([1, 2, 4, 14]), data=st.data()
)
def test_a_whole_view_is_interpolated(h: int, w: int, stride: int, data: st.DataObject) -> None:
    size = (data.draw(SIDES), data.draw(SIDES))
    maps = torch.randn(2, h, w)
    found = placed(maps, stride, size, (h * stride, w * stride))
    expected = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected)


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(1, 9), w=st.integers(1, 9), stride=st.sampled_from([1, 2, 4, 14]), data=st.data()
)
def test_both_ways_agree(h: int, w: int, stride: int, data: st.DataObject) -> None:
    """A view with as much again below and on the right, all of it like the edge."""
    size = (data.draw(SIDES), data.draw(SIDES))
    maps = torch.randn(2, h, w)
    wider = F.pad(maps, (0, w, 0, h), mode="replicate")
    extent = (h * stride, w * stride)
    torch.testing.assert_close(
        placed(wider, stride, size, extent),
        placed(maps, stride, size, extent),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("stride", "extent"), [(4, (30, 45)), (4, (32, 48)), (1, (20, 31))])
@pytest.mark.parametrize("size", [(60, 90), (15, 22), (37, 45)])
def test_values_stand_at_the_centres_of_pixels(
    stride: int, extent: tuple[int, int], size: tuple[int, int]
) -> None:
    """A map of the places of its own cells tells for each pixel where its centre lies."""
    rows, columns = 32 // stride, 48 // stride
    down, across = ((torch.arange(n) + 0.5) * stride for n in (rows, columns))
    maps = torch.stack(torch.meshgrid(down, across, indexing="ij"))
    found = placed(maps, stride, size, extent)
    for axis, (pixels, shown, cells) in enumerate(zip(size, extent, (rows, columns), strict=True)):
        centres = (torch.arange(pixels) + 0.5) / pixels * shown
        wanted = centres.clamp(stride / 2, cells * stride - stride / 2)
        line = found[axis].mean(1 - axis)
        torch.testing.assert_close(line, wanted, atol=1e-3, rtol=1e-4)


def test_a_map_of_pixels_stays_as_it_is() -> None:
    maps = torch.randn(3, 5, 7)
    assert placed(maps, 1, (5, 7), (5, 7)) is maps
    torch.testing.assert_close(placed(maps, 1, (4, 6), (4, 6)), maps[:, :4, :6])
