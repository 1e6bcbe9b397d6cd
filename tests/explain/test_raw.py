"""Raw attention is the row that the head reads, on the grid of its layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain.capture import LayerAttention, capture
from vitrail.explain.layers import attention_layers, cells
from vitrail.explain.layout import Whole, Windowed
from vitrail.explain.raw import RawAttention
from vitrail.model import Model

IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


def recorded(model: Model, images: torch.Tensor) -> list[LayerAttention]:
    with torch.no_grad(), capture(model.backbone) as record:
        model(images)
    return record.layers


@pytest.mark.parametrize("head", [None, 0, 1])
@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"registers": 1}, [0]),
        ({"distillation_token": True}, [0, 1]),
        ({"pool": "class_and_mean"}, [0]),
    ],
)
def test_the_row_of_the_class_token(
    changes: dict[str, Any], rows: list[int], layer: int, head: int | None
) -> None:
    model = tiny_model(backbone=tiny_config(**changes))
    found = RawAttention(layer, head).explain(model, photo(1)[None], [0])
    weights = recorded(model, photo(1)[None])[layer].weights
    chosen = weights.mean(dim=1) if head is None else weights[:, head]
    expected = chosen[:, rows].mean(dim=1)[:, model.backbone.prefix :]
    torch.testing.assert_close(found.flatten(1), expected)
    assert found.shape == (1, 2, 3)


@pytest.mark.parametrize("changes", [{}, {"registers": 2}, {"class_token": False}])
def test_the_mean_over_places_where_they_are_pooled(changes: dict[str, Any]) -> None:
    model = tiny_model(backbone=tiny_config(pool="mean", **changes))
    found = RawAttention().explain(model, photo(1)[None], [0])
    prefix = model.backbone.prefix
    weights = recorded(model, photo(1)[None])[-1].weights.mean(dim=1)
    torch.testing.assert_close(found.flatten(1), weights[:, prefix:, prefix:].mean(dim=1))


def test_the_query_of_attention_pooling() -> None:
    model = tiny_model(backbone=tiny_config(pool="attention"))
    layers = recorded(model, photo(1)[None])
    found = RawAttention().explain(model, photo(1)[None], [0])
    torch.testing.assert_close(found.flatten(1), layers[-1].weights.mean(dim=1)[:, 0, 1:])
    before = RawAttention(layer=-2).explain(model, photo(1)[None], [0])
    expected = layers[-2].weights.mean(dim=1)[:, 1:, 1:].mean(dim=1)
    torch.testing.assert_close(before.flatten(1), expected)


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith("swin")])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_windows_are_laid_on_the_map_of_their_stage(name: str, layer: int) -> None:
    """The same, query by query; padding asks for nobody."""
    model = preset_model(PRESETS[name])
    seen = recorded(model, IMAGES)[layer]
    assert isinstance(seen.layout, Windowed)
    (rows, columns), stride = seen.layout.grid, seen.layout.stride
    pixels = [(y * stride, x * stride) for y in range(rows) for x in range(columns)]
    expected = torch.stack([seen.map(pixel) for pixel in pixels]).mean(dim=0)
    found = RawAttention(layer=layer).explain(model, IMAGES, [0, 0])
    torch.testing.assert_close(found, expected)
    assert float(found.sum(dim=(1, 2)).max()) <= 1 + 1e-5


@pytest.mark.parametrize("name", PRESETS)
def test_every_layer_of_every_family(name: str) -> None:
    model = preset_model(PRESETS[name])
    for layer in attention_layers(model):
        found = RawAttention(layer=layer.index).explain(model, IMAGES, [0, 0])
        layout = layer.place.at((9, 20))
        assert isinstance(layout, Whole | Windowed)
        assert found.shape == (2, *cells((9, 20), layout.stride))
        assert float(found.sum(dim=(1, 2)).min()) > 0


def test_tokens_beyond_the_image_ask_for_nobody_and_are_not_shown() -> None:
    """T2T pads the sides to a multiple of its last stride, not of its first."""
    model = preset_model(PRESETS["t2t_nano_8"])
    seen = recorded(model, IMAGES)[0]
    assert isinstance(seen.layout, Whole)
    rows, columns = cells((9, 20), seen.layout.stride)
    assert (rows, columns) != seen.layout.grid
    stride = seen.layout.stride
    pixels = [(y * stride, x * stride) for y in range(rows) for x in range(columns)]
    expected = torch.stack([seen.map(pixel) for pixel in pixels]).mean(dim=0)[:, :rows, :columns]
    found = RawAttention(layer=0).explain(model, IMAGES, [0, 0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_what_is_not_there_is_refused() -> None:
    for method, said in (
        (RawAttention(layer=2), "layer 2: this model has 2 layers of attention"),
        (RawAttention(head=2), r"head 2: block 2 .* has 2 heads"),
    ):
        with pytest.raises(ExplainError, match=said):
            method.explain(tiny_model(), photo(1)[None], [0])
    with pytest.raises(ExplainError, match="a ResNet has no attention to look at"):
        RawAttention().explain(preset_model(PRESETS["resnet_nano_8"]), IMAGES, [0, 0])
