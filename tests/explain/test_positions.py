"""Position similarity and patch filters against what they must be."""

from __future__ import annotations

import pytest
import torch

from vitrail.backbones.vit import (
    ConvStemConfig,
    Learned1dConfig,
    NoPositionsConfig,
    PatchStemConfig,
    PositionsConfig,
    Relative2dConfig,
    Rotary2dConfig,
    SineCosine2dConfig,
    StemConfig,
    ViTConfig,
)
from vitrail.data.preprocess import HALF, CenterCrop, Preprocess
from vitrail.explain.positions import describe_positions, patch_filters, position_similarity
from vitrail.model import Model, ModelConfig
from vitrail.nn.patches import ConvStem, PatchStem
from vitrail.nn.positions import Learned1d
from vitrail.tasks.classify import ClassifyConfig

LEARNED, PATCHES = Learned1dConfig(), PatchStemConfig(patch_size=4)


def _model(
    positions: PositionsConfig = LEARNED,
    stem: StemConfig = PATCHES,
    channel_order: str = "rgb",
) -> Model:
    torch.manual_seed(0)
    size = (8, 12)
    backbone = ViTConfig(
        image_size=size, stem=stem, positions=positions, width=16, depth=1, heads=2
    )
    preprocess = Preprocess(
        resize=CenterCrop(size=size), mean=HALF, std=HALF, channel_order=channel_order
    )
    task = ClassifyConfig(classes=("a", "b"))
    return Model(ModelConfig(backbone=backbone, task=task, preprocess=preprocess))


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
    assert word in describe_positions(positions)


def _first_convolution(model: Model) -> torch.nn.Conv2d:
    stem = model.backbone.patch_embed
    assert isinstance(stem, ConvStem)
    first = stem.convs[0]
    assert isinstance(first, torch.nn.Conv2d)
    return first


def test_places_that_were_given_are_not_called_learned() -> None:
    words = describe_positions(Learned1dConfig(start="sincos_2d"))
    assert "given, not learned" in words
    assert words != describe_positions(Learned1dConfig())


def test_components_of_a_rank_one_stem_show_its_pattern() -> None:
    model = _model()
    stem = model.backbone.patch_embed
    assert isinstance(stem, PatchStem)
    pattern = torch.rand(3, 4, 4)
    strength = torch.linspace(-1, 1, 16)
    with torch.no_grad():
        stem.proj.weight.copy_(strength[:, None, None, None] * pattern)
    filters = patch_filters(model)
    assert filters.variance == pytest.approx((1.0,), abs=1e-5)
    torch.testing.assert_close(filters.images[0], pattern / pattern.max() / 2 + 0.5)


def test_components_are_ordered_and_bounded() -> None:
    filters = patch_filters(_model(), most=5)
    assert filters.images.shape == (5, 3, 4, 4)
    assert list(filters.variance) == sorted(filters.variance, reverse=True)
    assert sum(filters.variance) <= 1 + 1e-6
    assert filters.images.min() >= 0
    assert filters.images.max() <= 1


def test_channels_of_a_bgr_model_are_shown_as_rgb() -> None:
    rgb, bgr = patch_filters(_model()), patch_filters(_model(channel_order="bgr"))
    assert len(rgb.images) == 15  # Sixteen filters around their mean.
    torch.testing.assert_close(rgb.images.flip(1), bgr.images, atol=1e-4, rtol=0)


def test_grey_images_see_the_sum_of_the_channels() -> None:
    model = _model(stem=ConvStemConfig(widths=(6, 8), strides=(2, 2)))
    first = _first_convolution(model)
    with torch.no_grad():
        first.weight[:, 1] = -first.weight[:, 0] - first.weight[:, 2]
        first.weight[3, :, 1, 1] += 1.0
    filters = patch_filters(model, grey=True)
    expected = torch.full((3, 3, 3), 0.5)
    expected[:, 1, 1] = 1.0
    torch.testing.assert_close(filters.images[0], expected)


def test_a_convolutional_stem_shows_its_first_filters_strongest_first() -> None:
    model = _model(stem=ConvStemConfig(widths=(6, 8), strides=(2, 2)))
    first = _first_convolution(model)
    with torch.no_grad():
        first.weight[4] *= 100
        first.weight[2] = 0
    filters = patch_filters(model)
    assert filters.variance == ()
    assert filters.images.shape == (6, 3, 3, 3)
    strongest = first.weight[4].detach()
    torch.testing.assert_close(filters.images[0], strongest / strongest.abs().max() / 2 + 0.5)
    assert torch.equal(filters.images[5], torch.full((3, 3, 3), 0.5))
