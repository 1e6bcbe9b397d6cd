"""torchvision's bare state dicts, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.backbones import VARIANTS, BackboneConfig
from vitrail.backbones.resnet import ResNetConfig, SmallRootConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.t2t import T2TConfig
from vitrail.backbones.vit import PatchStemConfig, ViTConfig
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import CheckpointError, UserError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint, Held, Stored
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.torchvision import TorchvisionWriter, torchvision_vit_entries
from vitrail.weights.formats.torchvision_swin import crop, torchvision_swin_entries
from vitrail.weights.load import inspect_opened, meta_state, read_inspected
from vitrail.weights.reader import Described, Given

VIT = ViTConfig(
    image_size=(8, 8), stem=PatchStemConfig(patch_size=4), width=16, depth=2, heads=2, mlp_ratio=3
)
SWIN = SwinConfig(image_size=(16, 16), patch_size=2, width=8, depths=(2, 2), heads=(1, 2), window=2)
SWIN2 = SwinV2Config(**SWIN.model_dump(exclude={"kind", "qkv_bias"}))
RESNET = ResNetConfig(block="basic", depths=(1, 1, 1, 1))
TINY: dict[str, tuple[BackboneConfig, dict[str, Any]]] = {
    "vit": (VIT, {"heads": 2}),
    "swin": (SWIN, {"image_size": (16, 16)}),
    "swinv2": (SWIN2, {"image_size": (16, 16)}),
    "resnet": (RESNET, {}),
}


def described(backbone: BackboneConfig, *, hidden: int | None = None) -> Described:
    task = ClassifyConfig(classes=("0", "1", "2"), hidden=hidden)
    preprocess = Preprocess(resize=CenterCrop(size=backbone.image_size))
    return Described(backbone=backbone, task=task, preprocess=preprocess)


def state_of(given: Described) -> dict[str, Tensor]:
    assert given.task is not None
    config = ModelConfig(backbone=given.backbone, task=given.task, preprocess=given.preprocess)
    return {
        name: torch.randn_like(t) if t.is_floating_point() else t
        for name, t in Model(config).state_dict().items()
    }


def written(given: Described, folder: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    state, path = state_of(given), folder / "model.pth"
    assert TorchvisionWriter.refuses(given) == ""
    assert list(TorchvisionWriter.write(given, state, str(path))) == [str(path)]
    return open_checkpoint(path), state


@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("family", TINY)
def test_what_is_written_is_read(family: str, hidden: int | None, tmp_path: Path) -> None:
    backbone, fields = TINY[family]
    given = described(backbone, hidden=hidden)
    if hidden and family != "vit":
        assert "before the head" in TorchvisionWriter.refuses(given)
        return
    checkpoint, state = written(given, tmp_path)
    loaded = read_inspected(inspect_opened(checkpoint, Given(backbone=fields), "x"))
    assert loaded.format == "torchvision"
    assert loaded.described.backbone == backbone
    assert loaded.described.task == given.task
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in state.items())


def said(checkpoint: Checkpoint, tensors: Mapping[str, Stored], given: Given) -> str:
    try:
        found = inspect_opened(replace(checkpoint, tensors=dict(tensors)), given, "file").match
    except UserError as error:
        return str(error)
    return " ".join([*found.missing, *found.unused, *found.wrong, *found.absent])


@pytest.mark.parametrize("family", TINY)
def test_whatever_is_wrong_is_named(family: str, tmp_path: Path) -> None:
    backbone, fields = TINY[family]
    checkpoint, _ = written(described(backbone), tmp_path)
    given, whole = Given(backbone=fields), dict(checkpoint.tensors)
    for key, stored in whole.items():
        other = {n: t for n, t in whole.items() if n != key} | {f"{key}_x": stored}
        assert key in said(checkpoint, other, given).replace(f"{key}_x", ""), f"renamed {key}"
        assert f"{key}_x" in said(checkpoint, whole | {f"{key}_x": stored}, given), f"added {key}"
        turned = stored.read().permute(tuple(reversed(range(len(stored.shape)))))
        if turned.shape != stored.shape:
            assert key in said(checkpoint, whole | {key: Held(turned)}, given), f"turned {key}"


def test_names_of_old_files(tmp_path: Path) -> None:
    checkpoint, _ = written(described(VIT), tmp_path)
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in checkpoint.tensors.items()
    }
    assert len(old.keys() - checkpoint.tensors.keys()) == 8
    found = inspect_opened(replace(checkpoint, tensors=old), Given(backbone={"heads": 2}), "x")
    assert found.match.whole
    bias = "encoder.layers.encoder_layer_0.mlp.linear_1.bias"
    rest = {name: tensor for name, tensor in old.items() if name != bias}
    assert bias in said(checkpoint, rest, Given(backbone={"heads": 2}))


def test_resnets_that_do_not_count_batches(tmp_path: Path) -> None:
    checkpoint, _ = written(described(RESNET), tmp_path)
    tensors = {n: t for n, t in checkpoint.tensors.items() if "num_batches" not in n}
    found = inspect_opened(replace(checkpoint, tensors=tensors), Given(), "x")
    assert found.match.whole
    state = read_inspected(found).state
    assert state["backbone.trunk.root.norm.num_batches_tracked"] == 0


def test_the_bias_of_keys_is_not_used(tmp_path: Path) -> None:
    checkpoint, state = written(described(SWIN2), tmp_path)
    name = "features.1.0.attn.qkv.bias"
    bias = checkpoint.tensors[name].read()
    assert bias[8:16].abs().max() == 0
    bias[8:16] = 7
    changed = replace(checkpoint, tensors={**checkpoint.tensors, name: Held(bias)})
    found = inspect_opened(changed, Given(backbone={"image_size": (16, 16)}), "x")
    read = read_inspected(found).state
    assert all(torch.equal(read[key], tensor) for key, tensor in state.items())


def test_a_damaged_buffer_is_named(tmp_path: Path) -> None:
    checkpoint, _ = written(described(SWIN2), tmp_path)
    for part in ("relative_position_index", "relative_coords_table"):
        name = f"features.1.1.attn.{part}"
        other = Held(checkpoint.tensors[name].read() + 1)
        said_of = said(
            checkpoint,
            {**checkpoint.tensors, name: other},
            Given(backbone={"image_size": (16, 16)}),
        )
        assert said_of == name


def test_maps_smaller_than_a_window_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = written(described(SWIN), tmp_path)
    with pytest.raises(CheckpointError, match="smaller than the window"):
        inspect_opened(checkpoint, Given(backbone={"image_size": (4, 4)}), "x")
    with pytest.raises(CheckpointError, match="image_size"):
        inspect_opened(checkpoint, Given(), "x")


@pytest.mark.parametrize(
    ("name", "resized"),
    [
        ("vit_base_patch16_224", 256),
        ("vit_large_patch16_224", 242),
        ("swin_small_patch4_window7_224", 246),
        ("swinv2_tiny_window8_256", 260),
    ],
)
def test_shapes_tell_a_published_model(name: str, resized: int) -> None:
    backbone = VARIANTS[name].config
    given = described(backbone)
    match backbone:
        case ViTConfig():
            entries, extra = torchvision_vit_entries(backbone, given.task), dict[str, Stored]()
        case SwinConfig() | SwinV2Config():
            entries = torchvision_swin_entries(backbone, given.task)
            table = Held(torch.zeros(1, 15, 15, 2, device="meta"))
            extra = {"features.1.0.attn.relative_coords_table": table}
        case _:
            raise AssertionError
    state = meta_state(given)
    tensors: dict[str, Stored] = {
        theirs: Held(part)
        for entry in entries
        for theirs, part in zip(entry.theirs, entry.layout.write(state[entry.ours]), strict=True)
    }
    if backbone.kind == "swinv2":
        tensors |= extra
    file = Checkpoint(path=Path(name), container="torch", tensors=tensors)
    from vitrail.weights.formats import recognise

    found = recognise(file).describe(Given())
    assert found.backbone == backbone
    assert found.variant
    assert found.preprocess.resize.resized(600, 600) == (resized, resized)


def test_crops_are_resized_to_the_very_pixel() -> None:
    for resized in range(224, 400):
        rule = CenterCrop(size=(224, 224), crop_pct=crop(224, resized))
        assert rule.resized(500, 500) == (resized, resized)


@pytest.mark.parametrize(
    ("backbone", "change", "why"),
    [
        (VIT, {"eps": 1e-12}, "eps"),
        (VIT, {"layer_scale": 1e-5}, "layer_scale"),
        (VIT, {"image_size": (8, 12)}, "square"),
        (VIT, {"distillation_token": True}, "distillation_token"),
        (SWIN, {"window": 8}, "shrink"),
        (SWIN2, {"pretrained_windows": (3, 3)}, "pretrained"),
        (SWIN, {"shift": False}, "shift"),
        (RESNET, {"root": SmallRootConfig()}, "7x7"),
        (T2TConfig(), {}, "t2t"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_torchvision_cannot_express_is_refused(
    backbone: BackboneConfig, change: dict[str, Any], why: str
) -> None:
    assert why in TorchvisionWriter.refuses(described(backbone.model_copy(update=change)))


def test_a_backbone_alone_is_refused() -> None:
    alone = Described(backbone=VIT, task=None, preprocess=described(VIT).preprocess)
    assert "head" in TorchvisionWriter.refuses(alone)
