"""Explanations of a ViT with windows, also where the image is no whole number of windows."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo
from vitrail.explain.capture import capture
from vitrail.explain.gradient_rollout import GradientRollout
from vitrail.explain.layers import prefix_names
from vitrail.explain.rollout import rollout
from vitrail.explain.token_norms import token_norms

NAME = "windowed_vit_nano_8"
SIZES = [(8, 8), (7, 13)]


@pytest.mark.parametrize("size", SIZES)
def test_a_place_looks_at_its_window_and_then_at_all(size: tuple[int, int]) -> None:
    model, image = preset_model(PRESETS[NAME]), photo(1, *size)
    with torch.no_grad(), capture(model) as record:
        model(image[None])
    assert record.max_error < 1e-4
    rows, columns = record.layers[0].map((0, 0)).shape[1:]
    windowed, whole = (record.layers[i].map((0, 0))[0] for i in (0, 1))
    assert not windowed[rows // 2 :].any()
    assert not windowed[:, columns // 2 :].any()
    assert bool((whole > 0).all())


def test_every_copy_of_the_class_token_has_a_name() -> None:
    backbone = preset_model(PRESETS[NAME]).backbone
    assert prefix_names(backbone) == tuple(f"class, window {i}" for i in (1, 2, 3, 4))
    assert backbone.prefix == 4


@pytest.mark.parametrize("size", SIZES)
def test_what_flows_lies_on_the_image(size: tuple[int, int]) -> None:
    model, images = preset_model(PRESETS[NAME]), photo(1, *size)[None]
    grid = tuple(-(-side // 2) for side in size)
    flow = rollout(model, images)
    assert flow.shape == (1, *grid)
    assert float(flow.sum()) == pytest.approx(1.0)
    found = GradientRollout().explain(model, images, [0])
    assert found.shape == (1, *grid)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("size", SIZES)
def test_norms_are_those_of_places_on_the_image(size: tuple[int, int]) -> None:
    model, images = preset_model(PRESETS[NAME]), photo(1, *size)[None]
    found = token_norms(model, images)
    assert [one.name for one in found] == [*(f"block {i}" for i in (1, 2, 3, 4)), "output"]
    for one in found:
        assert one.norms.shape == (1, *(-(-side // 2) for side in size))
        assert len(one.prefix) == 4
