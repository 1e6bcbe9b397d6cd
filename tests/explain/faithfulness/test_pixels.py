from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from linear import linear_model
from presets import PRESETS, preset_model
from tiny import photo
from vitrail.explain.faithfulness.pixels import cell_side, ranks, spread, stretch


def test_a_stride_of_the_model_is_the_cell_where_the_map_hangs_over() -> None:
    model = linear_model(torch.ones(3, 3))  # stride 4
    assert cell_side(model, (9, 10), (3, 3)) == (4, 4)
    assert cell_side(model, (9, 9), (9, 9)) == (1, 1)
    assert cell_side(model, (8, 12), (4, 4)) == (2, 3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_cells_that_cover_the_image(name: str) -> None:
    model = preset_model(PRESETS[name])
    stride = model.backbone.strides[-1]
    size = (2 * stride + 1, stride)
    assert cell_side(model, size, (3, 1)) == (stride, stride)


def test_stretched_cells_have_their_value_at_their_centre() -> None:
    maps = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    drawn = stretch(maps, (6, 6), (3, 3))
    torch.testing.assert_close(drawn[:, 1::3, 1::3], maps)
    torch.testing.assert_close(drawn[0, 1, 1:5], torch.tensor([1, 5 / 3, 7 / 3, 3]))


def test_what_hangs_over_the_edge_is_cut_off() -> None:
    maps = torch.tensor([[[1.0, 2.0]]])
    assert spread(maps, (2, 3), (2, 2)).tolist() == [[[1, 1, 2], [1, 1, 2]]]
    assert stretch(maps, (2, 3), (2, 2)).shape == (1, 2, 3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), levels=st.integers(1, 5))
def test_ranks_are_an_order_of_the_map(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, levels, (2, 2, 3), generator=generator).float()
    images = torch.stack([photo(seed), photo(seed + 1)])
    places = ranks(maps, images, (4, 4), seed=seed)
    assert places.shape == (2, 8, 12)
    drawn = stretch(maps, (8, 12), (4, 4))
    for place, values in zip(places.flatten(1), drawn.flatten(1), strict=True):
        assert sorted(place.tolist()) == list(range(96))
        ordered = values[place.argsort()]
        assert bool((ordered.diff() <= 1e-5).all())


def test_ties_go_cell_by_cell_in_an_order_of_the_image_and_the_seed() -> None:
    images = torch.stack([photo(seed) for seed in range(8)])
    maps = torch.full((8, 2, 3), 1 / 7)
    places = ranks(maps, images, (4, 4))
    cells = places.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)  # B 2 3 16
    assert bool((cells.amax(dim=3) - cells.amin(dim=3) == 15).all())
    assert len({tuple(p.flatten().tolist()) for p in places}) > 4
    assert torch.equal(places[3:4], ranks(maps[:1], images[3:4], (4, 4)))
    assert not torch.equal(places, ranks(maps, images, (4, 4), seed=1))


def test_a_difference_is_stronger_than_the_order_of_ties() -> None:
    images = torch.stack([photo(seed) for seed in range(4)])
    maps = torch.zeros(4, 2, 3)
    maps[:, 1, 2] = 1e-9
    places = ranks(maps, images, (4, 4))
    assert bool((places[:, 7, 11] < 16).all())
