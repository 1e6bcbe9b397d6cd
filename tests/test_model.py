from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tiny import photo, tiny_config, tiny_model
from vitrail.backbones.vit_sizes import PUBLISHED, SIZES
from vitrail.config import build
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import ConfigError
from vitrail.model import (
    Model,
    ModelConfig,
    count_macs,
    create_model,
    describe_models,
    model_config,
    model_names,
)
from vitrail.tasks.classify import ClassifyConfig

# Parameters with 1000 classes and 1e9 multiply-adds, measured on the original classes.
MEASURED = {
    "vit_tiny_patch16_224": (5_717_416, 1.254),
    "vit_tiny_patch16_384": (5_790_376, 4.682),
    "vit_small_patch32_224": (22_878_952, 1.143),
    "vit_small_patch32_384": (22_915_432, 3.443),
    "vit_small_patch16_224": (22_050_664, 4.599),
    "vit_small_patch16_384": (22_196_584, 15.49),
    "vit_base_patch32_224": (88_224_232, 4.409),
    "vit_base_patch32_384": (88_297_192, 13.044),
    "vit_base_patch16_224": (86_567_656, 17.564),
    "vit_base_patch16_384": (86_859_496, 55.484),
    "vit_base_patch8_224": (86_576_872, 78.148),
    "vit_large_patch32_224": (306_535_400, 15.377),
    "vit_large_patch32_384": (306_632_680, 45.276),
    "vit_large_patch16_224": (304_326_632, 61.555),
    "vit_large_patch16_384": (304_715_752, 191.066),
    "vit_huge_patch14_224": (632_045_800, 167.294),
    "vit_giant_patch14_224": (1_012_611_432, 267.031),
    "vit_gigantic_patch14_224": (1_844_440_680, 483.748),
}


def test_the_table_names_every_published_variant() -> None:
    assert set(MEASURED) == set(PUBLISHED)


def test_every_variant_has_the_parameters_and_multiply_adds_of_the_original() -> None:
    rows = {row["name"]: row for row in describe_models()}
    assert list(rows) == list(SIZES)
    for name, (params, gmacs) in MEASURED.items():
        assert rows[name]["params"] == params, name
        assert rows[name]["gmacs"] == pytest.approx(gmacs, rel=0.01), name


def test_a_row_says_where_its_figures_come_from() -> None:
    (row,) = describe_models("vit_tiny_patch16_384")
    assert list(row) == ["name", "family", "params", "gmacs", "image_size", "top1", "source"]
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
    assert count_macs(model, (8, 12)) == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_micro_conv16_96"])
def test_rows_count_what_the_whole_model_does(name: str) -> None:
    (row,) = describe_models(name)
    with torch.device("meta"):
        model = create_model(name).eval()
    assert row["gmacs"] == round(count_macs(model, SIZES[name].image_size) / 1e9, 3)


@pytest.mark.parametrize("name", [name for name in SIZES if name not in PUBLISHED])
def test_presets_run(name: str) -> None:
    model = create_model(name, classes=["a", "b"]).eval()
    size = SIZES[name].image_size
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
    assert model_names() == list(SIZES)
    assert model_names("gigantic") == ["vit_gigantic_patch14_224"]
    assert model_names("vit_tiny_*_384") == ["vit_tiny_patch16_384"]
    assert model_names("swan") == []


@pytest.mark.parametrize("name", SIZES)
def test_config_round_trip(name: str) -> None:
    config = model_config(name, ClassifyConfig(classes=("ä", "b;c", "d e")))
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert build(ModelConfig, config.model_dump(mode="json"), source="test") == config


COMPILE = """
import torch
from vitrail.model import create_model
model = create_model('vit_nano_conv2_8', classes=4).eval()
images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
with torch.no_grad():
    fast = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(fast(images), model(images))
"""


def test_compiles_without_a_graph_break() -> None:
    """In a process of its own: the shape checks of the tests would break the graph."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
