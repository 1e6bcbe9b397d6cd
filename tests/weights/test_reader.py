from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.backbones.swin import SwinV2Config
from vitrail.backbones.vit import ViTConfig
from vitrail.errors import CheckpointError, ConfigError
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.reader import Described, Given, Reader, settle

CHECKPOINT = Checkpoint(path=Path("file.pth"), container="torch", tensors={})
TINY = {"width": 192, "depth": 12, "stem": {"kind": "patch", "patch_size": 16}, "mlp_ratio": 4.0}
HEADS = {"heads": "3"}


class Plain(Reader):
    name = "plain"
    publisher_licence = "MIT"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return True

    def describe(self, given: Given) -> Described:
        raise NotImplementedError

    def entries(self, described: Described) -> list[Any]:
        raise NotImplementedError


def reader(**shapes: tuple[int, ...]) -> Plain:
    tensors = {name: Held(torch.empty(shape)) for name, shape in shapes.items()}
    return Plain(Checkpoint(path=Path("file.pth"), container="torch", tensors=tensors))


def test_a_missing_tensor_is_named_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"'norm\.weight' is missing; did you"):
        reader(**{"norm.weigt": (3,)}).shape("norm.weight")
    with pytest.raises(CheckpointError, match=r"'norm' has shape \[3\], 2 dimensions"):
        reader(norm=(3,)).shape("norm", 2)


def test_layers_are_counted_up_to_the_first_gap() -> None:
    names = {f"blocks.{i}.norm.weight": (1,) for i in (0, 1, 2, 4, 10)}
    assert reader(**names).count("blocks.") == 3
    assert reader().count("blocks.") == 0


def test_classes_have_distinct_names() -> None:
    part = reader()
    assert part.class_names(3, Given(), {0: "crane", 2: "crane"}) == ("crane (0)", "1", "crane (2)")
    assert part.class_names(2, Given(classes=("a", "b")), {}) == ("a", "b")
    with pytest.raises(CheckpointError, match="the head has 3 outputs, 2 class names"):
        part.class_names(3, Given(classes=("a", "b")), {})


def test_published_variants_with_these_shapes_tell_the_heads() -> None:
    config, _, notes = settle(ViTConfig, TINY, HEADS, Given(), CHECKPOINT)
    assert config.heads == 3
    assert notes == ("heads = 3, as in vit_tiny_patch16_224 with the same shapes",)


def test_what_stays_unknown_is_listed_with_what_to_give() -> None:
    odd = TINY | {"width": 200}
    said = r"does not tell heads and image_size; give --set heads=3, --set image_size=\[4\]"
    with pytest.raises(CheckpointError, match=said):
        settle(ViTConfig, odd, HEADS | {"image_size": "[4]"}, Given(), CHECKPOINT)
    config, _, notes = settle(ViTConfig, odd, HEADS, Given(backbone={"heads": 5}), CHECKPOINT)
    assert config.heads == 5
    assert notes == ()


def test_what_is_given_wins() -> None:
    given = Given(backbone={"heads": 6, "eps": 1e-5})
    config, _, _ = settle(ViTConfig, TINY, HEADS, given, CHECKPOINT)
    assert (config.heads, config.eps) == (6, 1e-5)


def test_a_named_variant_tells_what_others_would_dispute() -> None:
    """Windows that a model was trained with before: the same shapes, another model."""
    known = {"width": 128, "depths": (2, 2, 18, 2), "patch_size": 4, "mlp_ratio": 4.0}
    unknown = {
        "heads": "[4]",
        "window": "8",
        "image_size": "[256, 256]",
        "pretrained_windows": "[]",
    }
    with pytest.raises(CheckpointError, match="does not tell window"):
        settle(SwinV2Config, known, unknown, Given(), CHECKPOINT)
    name = "swinv2_base_window12to16_192to256"
    config, variant, _ = settle(SwinV2Config, known, unknown, Given(variant=name), CHECKPOINT)
    assert variant == name
    assert config.window == 16
    assert config.pretrained_windows == (12, 12, 12, 6)


def test_a_variant_of_other_sizes_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no vit_small_patch16_224: width is 192.*384"):
        settle(ViTConfig, TINY, HEADS, Given(variant="vit_small_patch16_224"), CHECKPOINT)
    with pytest.raises(CheckpointError, match="no resnet50, which is of the family 'resnet'"):
        settle(ViTConfig, TINY, HEADS, Given(variant="resnet50"), CHECKPOINT)


def test_wrong_names_and_contradictions() -> None:
    with pytest.raises(ConfigError, match="unknown model 'vit_tinny_patch16_224'; did you mean"):
        settle(ViTConfig, TINY, HEADS, Given(variant="vit_tinny_patch16_224"), CHECKPOINT)
    with pytest.raises(CheckpointError, match=r"file\.pth: width 192 is not a multiple of heads 5"):
        settle(ViTConfig, TINY, HEADS, Given(backbone={"heads": 5}), CHECKPOINT)
    with pytest.raises(CheckpointError, match="unknown key 'hads'; did you mean 'heads'"):
        settle(ViTConfig, TINY, HEADS, Given(backbone={"hads": 3}), CHECKPOINT)


def test_what_a_format_says_of_images_can_be_overridden() -> None:
    from parity.cases import FOLDER, NAMES
    from vitrail.weights.load import inspect_checkpoint

    if not NAMES:
        pytest.skip("golden files not found")
    path = FOLDER / "google_vit_finetuned" / "model.npz"
    assert not inspect_checkpoint(path).described.preprocess.antialias
    given = Given(preprocess={"antialias": True, "mean": [0.1, 0.2, 0.3]})
    found = inspect_checkpoint(path, given).described.preprocess
    assert found.antialias
    assert found.mean == (0.1, 0.2, 0.3)
    with pytest.raises(ConfigError, match="unknown key 'men'; did you mean 'mean'"):
        inspect_checkpoint(path, Given(preprocess={"men": 1}))
