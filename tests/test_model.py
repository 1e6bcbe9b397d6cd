from __future__ import annotations

from typing import Any

import pytest
import torch

from published import MEASURED
from tiny import photo, tiny_config, tiny_model
from vitrail.backbones import VARIANTS
from vitrail.config import build
from vitrail.cost import count_cost
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import ConfigError
from vitrail.model import (
    Model,
    ModelConfig,
    create_model,
    describe_models,
    model_config,
    model_names,
)
from vitrail.tasks.classify import ClassifyConfig

PRESETS = [name for name, variant in VARIANTS.items() if not variant.published]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in describe_models()}


def test_the_table_names_every_published_variant() -> None:
    assert set(MEASURED) == {name for name, variant in VARIANTS.items() if variant.published}


def test_every_variant_has_the_parameters_and_multiply_adds_of_the_original(
    rows: dict[str, dict[str, Any]],
) -> None:
    assert list(rows) == list(VARIANTS)
    for name, (params, classes, gmacs) in MEASURED.items():
        assert rows[name]["params"] == params, name
        assert rows[name]["classes"] == classes, name
        if gmacs is not None:
            assert rows[name]["gmacs"] == pytest.approx(gmacs, rel=0.01), name


def test_activations_are_those_of_the_literature(rows: dict[str, dict[str, Any]]) -> None:
    """DeiT-S has 11.95 M with explicit attention and ResNet-50 11.11 M (timm's model tables)."""
    assert rows["deit_small_patch16_224"]["activations"] == pytest.approx(11.95, rel=0.001)
    assert rows["resnet50"]["activations"] == pytest.approx(11.11, rel=0.001)


def test_a_row_says_where_its_figures_come_from() -> None:
    (row,) = describe_models("vit_tiny_patch16_384")
    assert list(row) == [
        *("name", "family", "params", "gmacs", "activations"),
        *("image_size", "classes", "top1", "source"),
    ]
    assert row["family"] == "vit"
    assert row["image_size"] == [384, 384]
    assert row["top1"] == 0.7822
    assert "google-research" in row["source"]
    (preset,) = describe_models("vit_nano_conv2_8")
    assert preset["top1"] is None
    assert "preset" in preset["source"]


def test_multiply_adds_of_one_linear_map_an_attention_and_a_convolution() -> None:
    model = tiny_model(backbone=tiny_config(depth=1))
    tokens, width, hidden = 7, 16, 32
    convolution = 6 * 16 * 3 * 4 * 4
    attention = tokens * width * 4 * width + 2 * tokens * tokens * width
    expected = convolution + attention + 2 * tokens * width * hidden + width * 3
    cost = count_cost(model, (8, 12), torch.uint8)
    assert cost.macs == expected
    scores = 2 * tokens * tokens
    linear = tokens * (3 * width + width + width + hidden + width)
    assert cost.activations == 6 * 16 + scores + linear + 3


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "resnet18"]
)
def test_rows_count_what_the_whole_model_does(name: str) -> None:
    (row,) = describe_models(name)
    with torch.device("meta"):
        model = create_model(name).eval()
    cost = count_cost(model, VARIANTS[name].config.image_size, torch.uint8)
    assert row["gmacs"] == round(cost.macs / 1e9, 3)
    assert row["activations"] == round(cost.activations / 1e6, 3)
    assert row["params"] == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run(name: str) -> None:
    model = create_model(name, classes=["a", "b"]).eval()
    size = VARIANTS[name].config.image_size
    assert model(torch.zeros(2, 3, *size, dtype=torch.uint8)).shape == (2, 2)


def test_forward_is_task_of_backbone_of_normalised_pixels() -> None:
    model = tiny_model()
    images = torch.stack([photo(1), photo(2)])
    p = model.config.preprocess
    pixels = images.double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (p.mean, p.std))
    torch.testing.assert_close(model.normalise(images), ((pixels - mean) / std).float())
    expected = model.task(model.backbone(model.normalise(images)))
    assert torch.equal(model(images), expected)


def test_bgr_models_see_flipped_channels() -> None:
    rgb = tiny_model()
    p = rgb.config.preprocess
    bgr = p.model_copy(update={"channel_order": "bgr"})
    other = Model(rgb.config.model_copy(update={"preprocess": bgr}))
    images = photo(0)[None]
    assert torch.equal(other.normalise(images), rgb.normalise(images.flip(1)))


def test_half_precision_moves_with_the_model() -> None:
    model = tiny_model().to(torch.bfloat16)
    out = model(photo(0)[None])
    assert out.dtype == torch.bfloat16
    assert bool(out.isfinite().all())


def test_classes_are_names_or_a_number() -> None:
    assert create_model("vit_tiny_patch16_224", classes=3).config.task.classes == ("0", "1", "2")
    model = create_model("vit_tiny_patch16_224", classes=["ant", "bee"], multilabel=True)
    assert model.config.task == ClassifyConfig(classes=("ant", "bee"), multilabel=True)
    assert model.task.head.weight.shape == (2, 192)


@pytest.mark.parametrize(
    ("name", "size", "crop_pct"),
    [("vit_base_patch16_224", 224, 0.9), ("vit_base_patch16_384", 384, 1.0)],
)
def test_published_variants_are_prepared_as_published(
    name: str, size: int, crop_pct: float
) -> None:
    config = model_config(name, ClassifyConfig(classes=("a", "b")))
    assert config.preprocess == Preprocess(
        resize=CenterCrop(size=(size, size), crop_pct=crop_pct),
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("vit_tiny_patch16_225")
    message = str(caught.value)
    assert "unknown model 'vit_tiny_patch16_225'; did you mean 'vit_tiny_patch16_224'" in message
    assert "\n" not in message


def test_names_match_patterns_and_words() -> None:
    assert model_names() == list(VARIANTS)
    assert model_names("gigantic") == ["vit_gigantic_patch14_224"]
    assert model_names("vit_tiny_patch*_384") == ["vit_tiny_patch16_384"]
    assert model_names("swan") == []


@pytest.mark.parametrize("name", VARIANTS)
def test_config_round_trip(name: str) -> None:
    config = model_config(name, ClassifyConfig(classes=("ä", "b;c", "d e")))
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert build(ModelConfig, config.model_dump(mode="json"), source="test") == config
