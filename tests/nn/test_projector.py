"""From a backbone's maps to those that a decoder reads."""

from __future__ import annotations

import pytest
import torch

from vitrail.nn.projector import C2fProjector, LinearProjector, Rescale


def pyramid() -> list[torch.Tensor]:
    return [torch.randn(2, c, 32 // s, 48 // s) for c, s in ((4, 1), (8, 2), (16, 4))]


def test_the_coarsest_map_alone() -> None:
    (out,) = LinearProjector((4, 8, 16), 6)(pyramid())
    assert out.shape == (2, 6, 8, 12)


@pytest.mark.parametrize(
    ("scales", "sizes"), [((1.0,), [(16, 24)]), ((2.0, 0.5), [(32, 48), (8, 12)])]
)
def test_maps_of_a_pyramid_are_joined_at_the_middle_one(
    scales: tuple[float, ...], sizes: list[tuple[int, int]]
) -> None:
    out = C2fProjector((4, 8, 16), 6, scales=scales, blocks=2)(pyramid())
    assert [tuple(one.shape) for one in out] == [(2, 6, *size) for size in sizes]


def test_every_map_counts() -> None:
    torch.manual_seed(0)
    project, maps = C2fProjector((4, 8, 16), 6, scales=(1.0,), blocks=1).eval(), pyramid()
    (before,) = project(maps)
    for index in range(3):
        changed = [one + (place == index) for place, one in enumerate(maps)]
        assert not torch.allclose(project(changed)[0], before)


def test_each_cell_is_normed() -> None:
    (out,) = C2fProjector((8,), 6, scales=(1.0,), blocks=1)([torch.randn(2, 8, 5, 5)])
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 5, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "scale", "width"), [(8, 2, 4), (520, 2, 130), (8, 0.5, 8)])
def test_widths_after_rescaling(channels: int, scale: float, width: int) -> None:
    module = Rescale(channels, scale)
    out = module(torch.randn(1, channels, 4, 6))
    assert module.channels == width
    assert out.shape == (1, width, int(4 * scale), int(6 * scale))
