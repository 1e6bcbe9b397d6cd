"""The owners' Swin checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.data.preprocess import CenterCrop, Squash
from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.swin import SwinReader, SwinWriter
from vitrail.weights.formats.swin_table import swin_table
from vitrail.weights.mapping import write_all
from vitrail.weights.reader import Given
from weights.reading import Read, assert_golden, case, read, told

LARGER = Given(backbone={"window": 6, "image_size": [48, 48]})
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
COORDS = "layers.0.blocks.0.attn.relative_coords_table"


@pytest.fixture
def v1() -> Checkpoint:
    return open_checkpoint(case("swin_v1")[0])


@pytest.fixture
def v2() -> Checkpoint:
    return open_checkpoint(case("swin_v2")[0])


@pytest.mark.parametrize("name", ["swin_v1", "swin_v2", "swin_v1_resized"])
def test_outputs_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    """And the file alone tells all sizes; buffers are written too."""
    found = assert_golden(SwinReader, name, LARGER if name.endswith("resized") else None)
    assert found.match.absent == ()
    config = found.described.backbone
    assert isinstance(config, SwinConfig | SwinV2Config)
    assert (config.depths, config.heads, config.width) == ((2, 2), (2, 4), 16)
    assert SwinWriter.refuses(found.described) == ""
    SwinWriter.write(found.described, found.state, str(tmp_path / "out.pth"))
    again = read(SwinReader, tmp_path / "out.pth")
    assert again.described.backbone == config
    assert again.match.absent == ()
    assert all(torch.equal(again.state[key], found.state[key]) for key in found.state)


@pytest.mark.parametrize("name", ["swin_v1", "swin_v2"])
def test_the_written_file_has_the_names_of_the_owners(name: str, tmp_path: Path) -> None:
    original = torch.load(case(name)[0], weights_only=True)["model"]
    found = read(SwinReader, case(name)[0])
    SwinWriter.write(found.described, found.state, str(tmp_path / "out.pth"))
    written = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert written.keys() == original.keys()
    for key, tensor in original.items():
        assert written[key].shape == tensor.shape
        assert written[key].dtype == tensor.dtype
        torch.testing.assert_close(written[key], tensor, rtol=0, atol=1e-6)


def test_damage_is_named(v1: Checkpoint, v2: Checkpoint) -> None:
    for checkpoint, key in ((v1, TABLE), (v2, COORDS), (v2, "layers.0.blocks.0.attn.logit_scale")):
        turned = checkpoint.tensors[key].read()
        turned = turned.permute(*reversed(range(turned.ndim))).contiguous()
        tensors = {**checkpoint.tensors, key: Held(turned)}
        assert key in told(SwinReader, replace(checkpoint, tensors=tensors))
        rest = {name: tensor for name, tensor in checkpoint.tensors.items() if name != key}
        assert key in told(SwinReader, replace(checkpoint, tensors=rest))


@pytest.mark.parametrize("buffer", ["attn.relative_position_index", "attn_mask"])
def test_a_buffer_with_other_values_is_named(v1: Checkpoint, buffer: str) -> None:
    key = f"layers.0.blocks.1.{buffer}"
    other = v1.tensors[key].read().clone()
    other.view(-1)[3] += 1
    assert key in told(SwinReader, replace(v1, tensors={**v1.tensors, key: Held(other)}))


def stripped(checkpoint: Checkpoint) -> Checkpoint:
    buffers = ("relative_position_index", "relative_coords_table", "attn_mask")
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.endswith(buffers)}
    return replace(checkpoint, tensors=tensors)


def test_without_buffers_sizes_must_be_given(v1: Checkpoint, v2: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="does not tell image_size"):
        read(SwinReader, stripped(v1))
    found = read(SwinReader, stripped(v1), Given(backbone={"image_size": [32, 32]}))
    assert found.described.backbone == read(SwinReader, v1).described.backbone
    with pytest.raises(CheckpointError, match="window") as told_all:
        read(SwinReader, stripped(v2))
    assert "pretrained_windows" in str(told_all.value)
    given = {"window": 4, "image_size": [32, 32], "pretrained_windows": []}
    found = read(SwinReader, stripped(v2), Given(backbone=given))
    assert found.described.backbone == read(SwinReader, v2).described.backbone


def written(found: Read, folder: Path, config: SwinConfig | SwinV2Config) -> Checkpoint:
    described = found.described.model_copy(update={"backbone": config})
    SwinWriter.write(described, found.state, str(folder / "out.pth"))
    return open_checkpoint(folder / "out.pth")


@pytest.mark.parametrize("windows", [(8, 6), (0, 3), (16, 0)])
def test_coordinates_tell_pretrained_windows(
    v2: Checkpoint, windows: tuple[int, int], tmp_path: Path
) -> None:
    found = read(SwinReader, v2)
    config = found.described.backbone
    assert isinstance(config, SwinV2Config)
    config = config.model_copy(update={"pretrained_windows": windows})
    checkpoint = written(found, tmp_path, config)
    assert read(SwinReader, checkpoint).described.backbone == config
    given = Given(backbone={"pretrained_windows": [9, 9]})
    own = read(SwinReader, checkpoint, given).described.backbone
    assert isinstance(own, SwinV2Config)
    assert own.pretrained_windows == (9, 9)


def test_coordinates_of_no_window_are_named(v2: Checkpoint) -> None:
    for scale in (0.0, 0.8, float("nan"), -1.0):
        damaged = Held(v2.tensors[COORDS].read() * scale)
        tensors = {**v2.tensors, COORDS: damaged}
        assert COORDS in told(SwinReader, replace(v2, tensors=tensors))


@pytest.mark.parametrize("side", [16, 24])
def test_windows_that_were_shrunk(v2: Checkpoint, side: int, tmp_path: Path) -> None:
    """The last stage's map is no larger than the window, as in `window16_256`."""
    found = read(SwinReader, v2)
    config = found.described.backbone
    assert isinstance(config, SwinV2Config)
    changes = {"image_size": (side, side), "window": side // 2 // (2 if side == 24 else 1)}
    config = SwinV2Config.model_validate(config.model_dump() | changes)
    again = read(SwinReader, written(found, tmp_path, config))
    assert again.described.backbone == config


@pytest.mark.parametrize("size", [(64, 16), (16, 64)])
@pytest.mark.parametrize("name", ["swin_v1", "swin_v2"])
def test_masks_of_an_oblong_with_as_many_windows_as_a_square(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """2 x 8 windows as 4 x 4: the values tell what their number does not."""
    found = read(SwinReader, case(name)[0])
    config = found.described.backbone
    assert isinstance(config, SwinConfig | SwinV2Config)
    config = type(config).model_validate(config.model_dump() | {"image_size": size})
    file = written(found, tmp_path, config)
    given, mask = Given(backbone={"image_size": size}), "layers.0.blocks.1.attn_mask"
    assert read(SwinReader, file, given).described.backbone == config
    turned = {**file.tensors, mask: Held(file.tensors[mask].read().flip(0))}
    assert mask in told(SwinReader, replace(file, tensors=turned), given)
    assert mask in told(SwinReader, file, Given(backbone={"image_size": [32, 32]}))
    assert told(SwinReader, open_checkpoint(case(name)[0]), given) == ""


def test_absolute_positions_are_stretched(v1: Checkpoint) -> None:
    table = torch.randn(1, 256, 16)
    tensors = {**v1.tensors, "absolute_pos_embed": Held(table)}
    checkpoint = replace(v1, tensors=tensors)
    same = read(SwinReader, checkpoint)
    assert torch.equal(same.state["backbone.pos_embed.weight"], table)
    larger = read(SwinReader, checkpoint, LARGER)
    image = table.transpose(1, 2).reshape(1, 16, 16, 16)
    image = torch.nn.functional.interpolate(image, size=(24, 24), mode="bicubic")
    expected = image.flatten(2).transpose(1, 2)
    assert torch.equal(larger.state["backbone.pos_embed.weight"], expected)


def dense(checkpoint: Checkpoint) -> Checkpoint:
    """As the forks for detection and segmentation save it."""
    tensors = {
        f"backbone.{name}": tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(("head.", "norm.")) and not name.endswith("attn_mask")
    }
    for stage, width in enumerate((16, 32)):
        tensors[f"backbone.norm{stage}.weight"] = Held(torch.full((width,), 2.0))
        tensors[f"backbone.norm{stage}.bias"] = Held(torch.zeros(width))
    return replace(checkpoint, tensors=tensors)


def test_backbones_of_dense_forks(v1: Checkpoint) -> None:
    found = read(SwinReader, dense(v1))
    assert found.described.task is None
    assert found.match.derived[-2:] == ("backbone.norm0.weight", "backbone.norm0.bias")
    assert float(found.state["backbone.norm.weight"][0]) == 2
    config = found.described.backbone
    assert isinstance(config, SwinConfig)
    assert all(windows.shift for windows in config.windows), "no stage is without a shift"
    assert sum("dense head" in note for note in found.described.notes) == 1


@pytest.mark.parametrize("head", ["decode_head.conv_seg.weight", "rpn_head.x", "neck.convs.0.w"])
def test_dense_heads_wait_for_their_task(v1: Checkpoint, head: str) -> None:
    tensors = {**dense(v1).tensors, head: Held(torch.zeros(1))}
    with pytest.raises(CheckpointError, match=r"task '(segment|detect)'") as refused:
        read(SwinReader, replace(v1, tensors=tensors))
    assert head in str(refused.value)


def test_what_is_not_ours(v1: Checkpoint) -> None:
    assert not SwinReader.recognises(replace(v1, config={"architecture": "swin"}))
    timm = {
        n.replace("layers.0.downsample", "layers.1.downsample"): t for n, t in v1.tensors.items()
    }
    assert not SwinReader.recognises(replace(v1, tensors=timm))
    assert not SwinReader.recognises(replace(v1, tensors={}))


def test_contradicting_sizes_are_named(v1: Checkpoint) -> None:
    tensors = dict(v1.tensors)
    for block in range(2):
        name = f"layers.1.blocks.{block}.attn.relative_position_bias_table"
        tensors[name] = Held(torch.zeros(25, 4))
    said = told(SwinReader, replace(v1, tensors=tensors))
    assert "layers.1.blocks.0.attn.relative_position_bias_table" in said


def test_rounded_widths_of_the_mlp(tmp_path: Path) -> None:
    """Each stage rounds down by itself."""
    config = SwinConfig(
        image_size=(16, 16), patch_size=2, width=10, depths=(1, 2), heads=(1, 2), window=4,
        mlp_ratio=2.79,
    )  # fmt: skip
    from vitrail.backbones import build_backbone

    state = {f"backbone.{k}": v for k, v in build_backbone(config).state_dict().items()}
    tensors = write_all(swin_table(config, "", "norm"), state)
    assert tensors["layers.0.blocks.0.mlp.fc1.bias"].shape == (27,)
    assert tensors["layers.1.blocks.0.mlp.fc1.bias"].shape == (55,)
    torch.save({"model": tensors}, tmp_path / "file.pth")
    found = read(SwinReader, tmp_path / "file.pth", Given(backbone={"image_size": [16, 16]}))
    assert found.match.whole


def test_a_published_variant_is_known_by_its_sizes() -> None:
    from vitrail.backbones import VARIANTS, build_backbone

    config = VARIANTS["swin_tiny_patch4_window7_224"].config
    assert isinstance(config, SwinConfig)
    with torch.device("meta"):
        state = {f"backbone.{k}": v for k, v in build_backbone(config).state_dict().items()}
    tensors = {
        name: Held(part)
        for entry in swin_table(config, "", "norm")
        for name, part in zip(entry.theirs, entry.layout.write(state[entry.ours]), strict=True)
    }
    checkpoint = Checkpoint(path=Path("x.pth"), container="torch", tensors=tensors)
    described = SwinReader(checkpoint).describe(Given(variant="swin_tiny_patch4_window7_224"))
    assert described.backbone == config
    assert described.preprocess.resize == CenterCrop(size=(224, 224), crop_pct=0.875)


def test_large_images_are_not_cropped(v1: Checkpoint) -> None:
    given = Given(backbone={"image_size": [384, 384]})
    assert read(SwinReader, v1, given).described.preprocess.resize == Squash(size=(384, 384))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"eps": 1e-6}, "eps"),
        ({"positions": "none"}, "relative positions"),
        ({"image_size": (36, 36)}, "multiples of the window"),
    ],
)
def test_what_cannot_be_written(v1: Checkpoint, changes: dict[str, object], reason: str) -> None:
    described = read(SwinReader, v1).described
    backbone = SwinConfig.model_validate(described.backbone.model_dump() | changes)
    assert reason in SwinWriter.refuses(described.model_copy(update={"backbone": backbone}))
