"""Filters of the first layer against what they must be."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.resnet import ResNet
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ConvStemConfig, PatchStemConfig, StemConfig, ViTConfig
from vitrail.explain.filters import stem_filters
from vitrail.model import Model
from vitrail.nn.patches import ConvStem, PatchStem

PATCHES = PatchStemConfig(patch_size=4)
CONVOLUTIONS = ConvStemConfig(widths=(6, 8), strides=(2, 2))


def _model(stem: StemConfig = PATCHES, channel_order: str = "rgb") -> Model:
    backbone = ViTConfig(image_size=(8, 12), stem=stem, width=16, depth=1, heads=2)
    return preset_model(backbone, channel_order=channel_order)


def _first_convolution(model: Model) -> torch.nn.Conv2d:
    stem = model.backbone.patch_embed
    assert isinstance(stem, ConvStem)
    first = stem.convs[0]
    assert isinstance(first, torch.nn.Conv2d)
    return first


def test_components_of_a_rank_one_stem_show_its_pattern() -> None:
    model = _model()
    stem = model.backbone.patch_embed
    assert isinstance(stem, PatchStem)
    pattern = torch.rand(3, 4, 4)
    strength = torch.linspace(-1, 1, 16)
    with torch.no_grad():
        stem.proj.weight.copy_(strength[:, None, None, None] * pattern)
    filters = stem_filters(model)
    assert filters.variance == pytest.approx((1.0,), abs=1e-5)
    torch.testing.assert_close(filters.images[0], pattern / pattern.max() / 2 + 0.5)


def test_components_are_ordered_and_bounded() -> None:
    filters = stem_filters(_model(), most=5)
    assert filters.images.shape == (5, 3, 4, 4)
    assert list(filters.variance) == sorted(filters.variance, reverse=True)
    assert sum(filters.variance) <= 1 + 1e-6
    assert filters.images.min() >= 0
    assert filters.images.max() <= 1


def test_channels_of_a_bgr_model_are_shown_as_rgb() -> None:
    rgb, bgr = stem_filters(_model()), stem_filters(_model(channel_order="bgr"))
    assert len(rgb.images) == 15  # Sixteen filters around their mean.
    torch.testing.assert_close(rgb.images.flip(1), bgr.images, atol=1e-4, rtol=0)


def test_grey_images_see_the_sum_of_the_channels() -> None:
    model = _model(stem=ConvStemConfig(widths=(6, 8), strides=(2, 2)))
    first = _first_convolution(model)
    with torch.no_grad():
        first.weight[:, 1] = -first.weight[:, 0] - first.weight[:, 2]
        first.weight[3, :, 1, 1] += 1.0
    filters = stem_filters(model, grey=True)
    expected = torch.full((3, 3, 3), 0.5)
    expected[:, 1, 1] = 1.0
    torch.testing.assert_close(filters.images[0], expected)


def test_a_convolutional_stem_shows_its_first_filters_strongest_first() -> None:
    model = _model(stem=ConvStemConfig(widths=(6, 8), strides=(2, 2)))
    first = _first_convolution(model)
    with torch.no_grad():
        first.weight[4] *= 100
        first.weight[2] = 0
    filters = stem_filters(model)
    assert filters.variance == ()
    assert filters.images.shape == (6, 3, 3, 3)
    strongest = first.weight[4].detach()
    torch.testing.assert_close(filters.images[0], strongest / strongest.abs().max() / 2 + 0.5)
    assert torch.equal(filters.images[5], torch.full((3, 3, 3), 0.5))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("grey", [False, True])
def test_every_family_has_a_picture(name: str, grey: bool) -> None:
    config = PRESETS[name]
    filters = stem_filters(preset_model(config), grey=grey)
    if name.startswith("swin"):
        assert filters is None, "a patch of one pixel"
        filters = stem_filters(preset_model(config.model_copy(update={"patch_size": 2})), grey=grey)
    assert filters is not None
    assert filters.what
    assert 0 < len(filters.images) <= 28
    assert 0 <= filters.images.min() < filters.images.max() <= 1
    if grey:
        torch.testing.assert_close(filters.images[:, 0], filters.images[:, 2], atol=1e-3, rtol=0)


def test_the_kernels_of_a_hybrid_are_shown_as_the_images_meet_them() -> None:
    model = preset_model(PRESETS["hybrid_nano_8"])
    backbone = model.backbone
    assert isinstance(backbone, Hybrid)
    with torch.no_grad():
        backbone.resnet.root.conv.weight += 5  # a mean that standardising takes away
    filters = stem_filters(model)
    assert filters is not None
    # Every kernel has a mean of zero, which is the middle grey.
    torch.testing.assert_close(filters.images.mean(dim=(1, 2, 3)), torch.full((28,), 0.5))


def test_a_resnet_shows_its_root() -> None:
    model = preset_model(PRESETS["resnet_nano_8"])
    backbone = model.backbone
    assert isinstance(backbone, ResNet)
    with torch.no_grad():
        backbone.trunk.root.conv.weight[3] *= 100
    strongest = backbone.trunk.root.conv.weight[3].detach()
    filters = stem_filters(model)
    assert filters is not None
    torch.testing.assert_close(filters.images[0], strongest / strongest.abs().max() / 2 + 0.5)


def test_a_t2t_shows_what_its_first_block_takes_from_a_patch() -> None:
    """The values of its first token block, seen through the norm before them."""
    model = preset_model(PRESETS["t2t_nano_8"])
    backbone = model.backbone
    assert isinstance(backbone, T2T)
    stem = backbone.patch_embed
    block, split = stem.blocks[0], stem.splits[0]
    pattern = torch.randn(3, split.kernel, split.kernel)
    with torch.no_grad():
        projection = [
            p for n, p in block.attn.named_parameters() if n in ("qkv.weight", "kqv.weight")
        ]
        width = len(projection[0]) // 3
        strength = torch.linspace(-1, 1, width)[:, None]
        projection[0][: 2 * width] = torch.randn(2 * width, pattern.numel())
        projection[0][2 * width :] = strength * (pattern.flatten() / block.norm1.weight)
    filters = stem_filters(model)
    assert filters is not None
    assert filters.variance[0] == pytest.approx(1, abs=1e-4)
    shown = filters.images[0] - 0.5
    cosine = torch.cosine_similarity(shown.flatten(), pattern.flatten(), dim=0)
    assert abs(float(cosine)) == pytest.approx(1, abs=1e-3)
