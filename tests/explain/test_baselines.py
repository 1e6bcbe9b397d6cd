"""Baselines are functions of image and setting, and know nothing of the model."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, randomise, tiny_model
from vitrail.explain.baselines import CentreMap, RandomMap


def test_random_is_a_function_of_image_and_seed() -> None:
    model, images = tiny_model(), torch.stack([photo(1), photo(2), photo(1)])
    maps = RandomMap().explain(model, images, [0, 1, 2])
    assert torch.equal(maps[0], maps[2])
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(RandomMap().explain(model, images[1:2], [0])[0], maps[1])
    assert not torch.equal(RandomMap(seed=1).explain(model, images, [0, 0, 0]), maps)
    other = randomise(tiny_model(), seed=7)
    assert torch.equal(RandomMap().explain(other, images, [0, 1, 2]), maps)
    before = torch.get_rng_state()
    RandomMap().explain(model, images, [0, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)


def test_one_pixel_makes_another_map() -> None:
    image = photo(1)[None]
    other = image.clone()
    other[0, 0, 0, 0] += 1
    maps = [RandomMap().explain(tiny_model(), one, [0]) for one in (image, other)]
    assert not torch.equal(*maps)
    turned = RandomMap().explain(tiny_model(), torch.zeros(1, 3, 8, 12, dtype=torch.uint8), [0])
    upright = RandomMap().explain(tiny_model(), torch.zeros(1, 3, 12, 8, dtype=torch.uint8), [0])
    assert not torch.equal(turned.flatten(), upright.flatten())


def test_random_is_uniform() -> None:
    images = torch.stack([photo(i, 64, 64) for i in range(40)])
    maps = RandomMap().explain(tiny_model(), images, [0] * 40)
    assert maps.shape == (40, 16, 16)
    counts = torch.histc(maps, 10, 0, 1) / maps.numel()
    assert float((counts - 0.1).abs().max()) < 0.01
    # Neither do places of one image hang together, nor images.
    flat = maps.flatten(1)
    assert float(torch.corrcoef(flat).fill_diagonal_(0).abs().max()) < 0.35
    assert (
        abs(
            float(
                torch.corrcoef(torch.stack([flat[:, 1:].flatten(), flat[:, :-1].flatten()]))[0, 1]
            )
        )
        < 0.05
    )


@pytest.mark.parametrize("name", PRESETS)
def test_the_grid_is_that_of_the_finest_map(name: str) -> None:
    model = preset_model(PRESETS[name])
    images = photo(1, 9, 20)[None]
    with torch.no_grad():
        finest = model.backbone(model.normalise(images)).maps[0].shape[2:]
    for method in (RandomMap(), CentreMap()):
        assert method.explain(model, images, [0]).shape == (1, *finest)


def test_the_centre_is_that_of_the_image() -> None:
    model = tiny_model()
    found = CentreMap().explain(model, photo(1, 20, 36)[None], [0])[0]
    assert found.shape == (5, 9)
    assert divmod(int(found.argmax()), 9) == (2, 4)
    assert float(found.max()) == 1
    torch.testing.assert_close(found, found.flip(0))
    torch.testing.assert_close(found, found.flip(1))
    # One standard deviation from the middle, along a side.
    wide = CentreMap(width=4 / 36).explain(model, photo(1, 20, 36)[None], [0])[0]
    assert float(wide[2, 5]) == pytest.approx(0.6065, abs=1e-3)


def test_cells_that_are_cut_off_do_not_move_the_centre() -> None:
    """A side of 9 pixels has cells with middles at 2, 6 and 10; its own middle is 4.5."""
    found = CentreMap().explain(tiny_model(), photo(1, 9, 8)[None], [0])[0]
    assert found.shape == (3, 2)
    assert float(found[1, 0]) > float(found[0, 0]) > float(found[2, 0])
    exponent = torch.tensor([2 - 4.5, 6 - 4.5, 10 - 4.5]).div(0.25 * 9).square() / 2
    torch.testing.assert_close(found[:, 0] / found[1, 0], (exponent[1] - exponent).exp())
