"""Attention distance: known answers, and the definition pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain import distance as module
from vitrail.explain.capture import capture
from vitrail.explain.distance import attention_distance
from vitrail.explain.layers import attention_layers, cells
from vitrail.explain.layout import Whole, Windowed
from vitrail.model import Model
from vitrail.nn.probe import ALL, AttentionWeights, Rows

IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20), photo(3, 9, 20)])


class Fixed(AttentionWeights):
    """Weights that are given."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weights.shape)

    def rows(self, heads: Rows = ALL, queries: Rows = ALL) -> Tensor:
        return self.weights[..., heads, :, :][..., queries, :]


def distances(model: Model, weights: Tensor, size: tuple[int, int]) -> tuple[float, ...]:
    """What is found for the first layer where only the given weights are shown."""
    attention = attention_layers(model)[0].module
    plain = attention.forward

    def forward(*given: object) -> Tensor:
        probe, attention.probe = attention.probe, None
        out = plain(*given)
        attention.probe = probe
        if probe is not None:
            probe(Fixed(weights), out, out)
        return out

    attention.forward = forward
    return attention_distance(model, photo(1, *size)[None])[0].pixels


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("to_class", [0.0, 0.7])
def test_looking_so_many_patches_aside_is_that_far(steps: int, to_class: float) -> None:
    """Six patches in a row of stride 4; the last look to the left. The prefix changes nothing."""
    weights = torch.zeros(1, 2, 1 + 12, 1 + 12)
    weights[0, :, 0, 0] = 1  # the class token is no query
    weights[0, 1, 1:, 0] = to_class
    for y in range(2):
        for x in range(6):
            other = x + steps if x + steps < 6 else x - steps
            weights[0, 0, 1 + 6 * y + x, 1 + 6 * y + x] = 1  # the first head looks at itself
            weights[0, 1, 1 + 6 * y + x, 1 + 6 * y + other] += 1 - to_class
    own, aside = distances(tiny_model(), weights, (8, 24))
    assert own == 0
    assert aside == pytest.approx(4 * steps)


def test_a_diagonal_is_as_long_as_it_is() -> None:
    weights = torch.zeros(1, 2, 7, 7)
    weights[0, :, 1:, 6] = 1  # everybody looks at the last place, (1, 2)
    expected = sum(4 * math.dist((y, x), (1, 2)) for y in range(2) for x in range(3)) / 6
    for found in distances(tiny_model(), weights, (8, 12)):
        assert found == pytest.approx(expected)


def test_a_head_that_looks_at_no_place_has_no_distance() -> None:
    weights = torch.zeros(1, 2, 7, 7)
    weights[0, 0, :, 0] = 1
    weights[0, 1, :, 1] = 1
    weights[0, 1, 2:, 1] = 0  # only the first place looks, at itself
    weights[0, 1, 2:, 0] = 1
    none, own = distances(tiny_model(), weights, (8, 12))
    assert math.isnan(none)
    assert own == 0


def pair_by_pair(model: Model, images: Tensor) -> list[list[float]]:
    """The definition, from captured maps."""
    found: list[list[float]] = []
    for index, _ in enumerate(attention_layers(model.backbone)):
        with torch.no_grad(), capture(model.backbone, [index]) as record:
            model(images)
        seen = record.layers[0]
        assert isinstance(seen.layout, Whole | Windowed)
        stride, grid = seen.layout.stride, seen.layout.grid
        rows, columns = cells((images.shape[2], images.shape[3]), stride)  # T2T goes on beyond
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        heads: list[float] = []
        for head in seen.heads:
            means: list[Tensor] = []
            for i in range(rows):
                for j in range(columns):
                    row = (
                        len(seen.layout.prefix) + i * grid[1] + j
                        if isinstance(seen.layout, Whole)
                        else seen.layout.row((i * stride, j * stride))
                    )
                    places = seen.layout.lay(row, seen.weights[:, head, row]).double()
                    places = places[:, :rows, :columns]
                    away = stride * ((y - i).square() + (x - j).square()).sqrt()
                    means.append((places * away).sum(dim=(1, 2)) / places.sum(dim=(1, 2)))
            heads.append(float(torch.stack(means).mean()))
        found.append(heads)
    return found


@pytest.mark.parametrize("name", [n for n, c in PRESETS.items() if "resnet" not in n])
def test_the_definition_pair_by_pair(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, shifts, padding and tokens of T2T included; a few rows and images at a time."""
    model = preset_model(PRESETS[name])
    if not attention_layers(model):
        pytest.skip("no attention")
    whole = attention_distance(model, IMAGES)
    expected = pair_by_pair(model, IMAGES)
    assert [layer.layer.index for layer in whole] == list(range(len(expected)))
    for layer, heads in zip(whole, expected, strict=True):
        assert layer.pixels == pytest.approx(heads, rel=1e-4)
        assert layer.layer.heads == len(heads)
    monkeypatch.setattr(module, "PART", 999)
    monkeypatch.setattr(module, "IMAGES", 2)
    for layer, again in zip(whole, attention_distance(model, IMAGES), strict=True):
        assert layer.pixels == pytest.approx(again.pixels, rel=1e-5)


def test_parts_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 500)
    sizes: list[int] = []
    plain = Fixed.rows

    def counted(self: Fixed, heads: Rows = ALL, queries: Rows = ALL) -> Tensor:
        rows = plain(self, heads, queries)
        sizes.append(rows.numel())
        return rows

    monkeypatch.setattr(Fixed, "rows", counted)
    distances(tiny_model(), torch.rand(1, 2, 13, 13), (8, 24))
    assert max(sizes) <= 500
    assert sum(sizes) == 2 * 12 * 13


def test_attention_pooling_has_no_place_that_looks() -> None:
    model = tiny_model(backbone=tiny_config(pool="attention"))
    names = [layer.layer.name for layer in attention_distance(model, photo(1)[None])]
    assert names == ["block 1", "block 2"]


def test_no_attention_has_no_distance() -> None:
    with pytest.raises(ExplainError, match="a ResNet has no attention to look at"):
        attention_distance(preset_model(PRESETS["resnet_nano_8"]), IMAGES)
