"""Position similarity, relative biases and their words against what they must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from presets import PRESETS, preset_model
from vitrail.backbones.vit import (
    Learned1dConfig,
    NoPositionsConfig,
    PatchStemConfig,
    PositionsConfig,
    Relative2dConfig,
    Rotary2dConfig,
    SineCosine2dConfig,
    ViTConfig,
)
from vitrail.explain.positions import describe_positions, position_similarity, relative_biases
from vitrail.model import Model, create_model
from vitrail.nn.positions import Learned1d, RelativeBias2d, SineCosine1d
from vitrail.nn.windows import ContinuousPositions, RelativePositions

LEARNED = Learned1dConfig()


def _config(positions: PositionsConfig = LEARNED, **changes: Any) -> ViTConfig:
    stem = PatchStemConfig(patch_size=4)
    return ViTConfig(
        image_size=(8, 12), stem=stem, positions=positions, width=16, depth=2, heads=2, **changes
    )


def _model(positions: PositionsConfig = LEARNED) -> Model:
    return preset_model(_config(positions))


@pytest.mark.parametrize("positions", [Learned1dConfig(), SineCosine2dConfig()])
def test_similarity_is_the_cosine_of_position_vectors(positions: PositionsConfig) -> None:
    model = _model(positions)
    similarity = position_similarity(model)
    assert similarity is not None
    assert similarity.shape == (2, 3, 2, 3)
    flat = similarity.reshape(6, 6)
    torch.testing.assert_close(flat.diagonal(), torch.ones(6))
    torch.testing.assert_close(flat, flat.T)
    table = model.backbone.pos_embed.table((2, 3))[0]
    expected = torch.cosine_similarity(table[1], table[5], dim=0)
    torch.testing.assert_close(similarity[0, 1, 1, 2], expected)


def test_similarity_leaves_the_class_token_out() -> None:
    model = _model()
    positions = model.backbone.pos_embed
    assert isinstance(positions, Learned1d)
    before = position_similarity(model)
    with torch.no_grad():
        positions.weight[:, 0] = 100.0
    assert torch.equal(before, position_similarity(model))


@pytest.mark.parametrize(
    ("positions", "word"),
    [
        (Relative2dConfig(), "bias"),
        (Rotary2dConfig(), "rotates"),
        (NoPositionsConfig(), "not told"),
    ],
)
def test_models_without_position_vectors_say_so(positions: PositionsConfig, word: str) -> None:
    assert position_similarity(_model(positions)) is None
    assert word in describe_positions(_config(positions))


def test_places_that_were_given_are_not_called_learned() -> None:
    words = describe_positions(_config(Learned1dConfig(start="sincos_2d")))
    assert "given, not learned" in words
    assert words != describe_positions(_config())


def test_where_positions_are_added_is_said() -> None:
    assert "vectors of its own" in describe_positions(_config(positions_in="layers"))
    assert "same vectors again" in describe_positions(_config(positions_in="layers_shared"))
    model = preset_model(_config(positions_in="layers"))
    with torch.no_grad():
        first = model.backbone.pos_embed.table((2, 3))[0, :2]
    similarity = position_similarity(model)
    assert similarity is not None
    expected = torch.cosine_similarity(first[0], first[1], dim=0)
    torch.testing.assert_close(similarity[0, 0, 0, 1], expected)


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_shows_its_positions_or_says_why_not(name: str) -> None:
    config = PRESETS[name]
    words = describe_positions(config)
    assert words.endswith(".")
    shown = position_similarity(preset_model(config)) is not None
    assert shown != ("no position vectors" in words)


def test_a_t2t_shows_the_sinusoid() -> None:
    config = PRESETS["t2t_nano_8"]
    model = create_model("t2t_nano_8", classes=2)
    similarity = position_similarity(model)
    assert similarity is not None
    rows, columns = config.grid
    places = (1, 1 + rows * columns)
    sinusoid = SineCosine1d(config.width, places).table(places)[0, 1:]  # place 0: class token
    expected = torch.cosine_similarity(sinusoid[:1], sinusoid, dim=1)
    torch.testing.assert_close(similarity[0, 0].flatten(), expected)


def test_a_bias_lies_where_the_key_stands() -> None:
    """ViT: raise the score of the right neighbour alone."""
    model = _model(Relative2dConfig())
    (positions,) = [m for m in model.modules() if isinstance(m, RelativeBias2d)][:1]
    with torch.no_grad():
        positions.weight.zero_()
        # Query minus key, offset by the side: 0 rows, -1 columns.
        positions.weight[0, 1, 1, 1] = 7.0
        pair = positions.bias((2, 3))[0, 1, 1, 2]  # patch 0 asks patch 1, behind the class token
    assert float(pair) == 7.0
    biases = relative_biases(model)
    assert biases is not None
    assert biases.shape == (2, 3, 5)
    assert float(biases[1, 1, 3]) == 7.0
    assert float(biases.abs().sum()) == 7.0


@pytest.mark.parametrize("name", ["swin_nano_8", "swinv2_nano_8"])
def test_biases_of_windows_are_those_of_the_first_block(name: str) -> None:
    model = preset_model(PRESETS[name])
    first = next(
        m for m in model.modules() if isinstance(m, RelativePositions | ContinuousPositions)
    )
    with torch.no_grad():
        pairs = first.compute()
    biases, size = relative_biases(model), first.size
    assert biases is not None
    assert biases.shape == (len(pairs), 2 * size - 1, 2 * size - 1)
    last = size * size - 1
    torch.testing.assert_close(biases[:, -1, -1], pairs[:, 0, last])
    torch.testing.assert_close(biases[:, 0, -1], pairs[:, last - size + 1, size - 1])
    torch.testing.assert_close(biases[:, size - 1, size - 1], pairs[:, 0, 0])


@pytest.mark.parametrize(
    ("positions", "added", "bias"),
    [
        ("none", False, False),
        ("absolute", True, False),
        ("relative", False, True),
        ("absolute_and_relative", True, True),
    ],
)
def test_a_swin_shows_what_it_has(positions: str, added: bool, bias: bool) -> None:
    config = PRESETS["swin_nano_8"].model_copy(update={"positions": positions})
    model = preset_model(config)
    assert (position_similarity(model) is not None) == added
    assert (relative_biases(model) is not None) == bias
    assert ("bias" in describe_positions(config)) == bias
