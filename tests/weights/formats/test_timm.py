"""timm's folders and bare state dicts, without timm: sizes, names, faults, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.backbones import VARIANTS, BackboneConfig
from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.resnet import ResNetConfig, SmallRootConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.t2t import T2TConfig
from vitrail.backbones.vit import (
    ConvStemConfig,
    Learned1dConfig,
    PatchStemConfig,
    SineCosine2dConfig,
    ViTConfig,
)
from vitrail.data.preprocess import CenterCrop, Line, Preprocess, Squash
from vitrail.errors import CheckpointError, UserError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint, Held, Stored
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats.timm import TimmWriter
from vitrail.weights.formats.timm_hybrid import hybrid_entries
from vitrail.weights.formats.timm_resnet import resnet_entries
from vitrail.weights.formats.timm_sizes import named_arguments, refused_name
from vitrail.weights.formats.timm_swin_names import swin_entries
from vitrail.weights.formats.timm_vit_names import vit_entries
from vitrail.weights.load import Inspected, inspect_opened, meta_state, read_inspected
from vitrail.weights.reader import Described, Given

STEM = PatchStemConfig(patch_size=4)
VIT = ViTConfig(image_size=(8, 12), stem=STEM, width=16, depth=2, heads=2, mlp_ratio=3)
SWIN = SwinConfig(image_size=(16, 16), patch_size=2, width=8, depths=(2, 2), heads=(1, 2), window=4)
SWIN2 = SwinV2Config(
    image_size=(32, 16),
    patch_size=2,
    width=8,
    depths=(2, 1),
    heads=(1, 2),
    window=2,
    pretrained_windows=(3, 3),
    mlp_ratio=2.6,
)
TIMM_HYBRID: dict[str, Any] = {"standardisation": "variance", "group_norm_eps": 1e-5}
TINY: dict[str, BackboneConfig] = {
    "vit": VIT,
    "gap": VIT.model_copy(
        update={"class_token": False, "pool": "mean", "positions": Learned1dConfig(prefix=False)}
    ),
    "fc_norm": VIT.model_copy(update={"pool": "mean", "norm_after_pool": True, "qk_norm": True}),
    "registers": VIT.model_copy(
        update={
            "registers": 3,
            "layer_scale": 1e-5,
            "qkv_bias": False,
            "positions": Learned1dConfig(prefix=False),
        }
    ),
    "swiglu": VIT.model_copy(update={"activation": "swiglu", "layer_scale": 1e-5}),
    "map": VIT.model_copy(
        update={
            "pool": "attention",
            "activation": "gelu",
            "class_token": False,
            "positions": Learned1dConfig(prefix=False),
        }
    ),
    "distilled": VIT.model_copy(update={"distillation_token": True}),
    "swin": SWIN,
    "swinv2": SWIN2,
    "hybrid": HybridConfig(
        image_size=(32, 64),
        resnet_depths=(),
        patch_size=8,
        width=16,
        depth=1,
        heads=2,
        **TIMM_HYBRID,
    ),
    "resnet": ResNetConfig(image_size=(32, 32), block="basic", depths=(1, 1, 1, 1)),
}
PREPROCESS = Preprocess(resize=CenterCrop(size=(8, 12), crop_pct=0.9))


def described(backbone: BackboneConfig, **changes: Any) -> Described:
    task = ClassifyConfig(classes=("cat", "dog", "owl"))
    preprocess = PREPROCESS.model_copy(
        update={"resize": CenterCrop(size=backbone.image_size, crop_pct=0.9)}
    )
    table: dict[str, Any] = {"backbone": backbone, "task": task, "preprocess": preprocess}
    return Described(**(table | changes))


def state_of(given: Described) -> dict[str, Tensor]:
    assert given.task is not None
    config = ModelConfig(backbone=given.backbone, task=given.task, preprocess=given.preprocess)
    return Model(config).state_dict()


@pytest.fixture(scope="module", params=TINY)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("timm") / "model"
    given = described(TINY[family])
    assert TimmWriter.refuses(given) == ""
    written = [Path(path) for path in TimmWriter.write(given, state_of(given), str(out))]
    assert written == [out / "model.safetensors", out / "config.json"]
    return out


def test_what_is_written_is_read(family: str, folder: Path) -> None:
    torch.manual_seed(0)
    given = described(TINY[family])
    state = state_of(given)
    TimmWriter.write(given, state, str(folder))
    loaded = read_inspected(inspect_opened(open_checkpoint(folder), Given(), "x"))
    assert loaded.format == "timm"
    assert loaded.described.backbone == given.backbone
    assert (loaded.described.task, loaded.described.preprocess) == (given.task, given.preprocess)
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in state.items())


def said(inspected: Inspected, tensors: Mapping[str, Stored], given: Given) -> str:
    """All that is said about the same file with other tensors."""
    try:
        found = inspect_opened(
            replace(inspected.checkpoint, tensors=dict(tensors)), given, "file"
        ).match
    except UserError as error:
        return str(error)
    return " ".join([*found.missing, *found.unused, *found.wrong, *found.absent])


def bare(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, config={}, container="torch")


@pytest.mark.parametrize("alone", [False, True])
def test_whatever_is_wrong_is_named(family: str, folder: Path, alone: bool) -> None:
    """With `config.json`, and as a bare state dict beside what it does not tell."""
    checkpoint, given = open_checkpoint(folder), Given()
    if alone:
        checkpoint = bare(checkpoint)
        fields = TINY[family].model_dump(include={"heads", "image_size", "window"})
        given = Given(backbone=fields)
        if family == "swinv2":
            given = Given(backbone=fields | {"pretrained_windows": (3, 3)})
    inspected = inspect_opened(checkpoint, given, "file")
    assert inspected.match.whole
    whole = dict(checkpoint.tensors)
    # Without a config, and without positions of their own, nothing else tells of these tokens.
    untold = {"reg_token", "cls_token"} if alone and family == "registers" else set[str]()
    for key, stored in whole.items():
        other = {n: t for n, t in whole.items() if n != key} | {f"{key}_x": stored}
        if key not in untold:
            renamed = said(inspected, other, given)
            assert key in renamed.replace(f"{key}_x", ""), f"renamed {key}"
        assert f"{key}_x" in said(inspected, whole | {f"{key}_x": stored}, given), f"added {key}"
        turned = stored.read().permute(tuple(reversed(range(len(stored.shape)))))
        if turned.shape != stored.shape:
            assert key in said(inspected, whole | {key: Held(turned)}, given), f"turned {key}"


def shapes_of(backbone: BackboneConfig) -> dict[str, Stored]:
    """A published model's bare state dict, without memory."""
    given = described(backbone)
    match backbone:
        case ViTConfig():
            entries = vit_entries(backbone, given.task)
        case HybridConfig():
            entries = hybrid_entries(backbone, given.task)
        case SwinConfig() | SwinV2Config():
            entries = swin_entries(backbone, given.task)
        case ResNetConfig():
            entries = resnet_entries(backbone, given.task, counted=False)
        case _:
            raise AssertionError
    state = meta_state(given)
    return {
        name: Held(part)
        for entry in entries
        for name, part in zip(entry.theirs, entry.layout.write(state[entry.ours]), strict=True)
    }


BARE = [
    *("vit_tiny_patch16_384", "vit_base_patch32_224", "vit_giant_patch14_224"),
    *("deit_base_distilled_patch16_384", "deit3_huge_patch14_224", "swin_base_patch4_window12_384"),
    *("swin_tiny_patch4_window7_224", "vit_small_r26_s32_384", "vit_tiny_r_s16_p8_224"),
    *("resnet18", "resnet50"),
]


@pytest.mark.parametrize("name", BARE)
def test_shapes_tell_a_published_model(name: str) -> None:
    wanted = VARIANTS[name].config
    file = Checkpoint(path=Path(name), container="safetensors", tensors=shapes_of(wanted))
    found = inspect_opened(file, Given(), name)
    assert found.match.whole
    assert found.reader.name == "timm"
    assert found.described.variant
    own, theirs = found.described.backbone.model_dump(), wanted.model_dump()
    for field in ("image_size", "width", "depth", "depths", "heads", "window", "mlp_ratio"):
        assert own.get(field) == pytest.approx(theirs.get(field)), field


def test_what_no_shape_tells_has_to_be_given() -> None:
    tensors = shapes_of(VARIANTS["swinv2_tiny_window16_256"].config)
    file = Checkpoint(path=Path("f"), container="safetensors", tensors=tensors)
    with pytest.raises(CheckpointError, match=r"window.*--set.*--variant"):
        inspect_opened(file, Given(), "f")
    found = inspect_opened(file, Given(variant="swinv2_tiny_window16_256"), "f").described
    assert found.backbone == VARIANTS["swinv2_tiny_window16_256"].config
    file = replace(file, tensors=shapes_of(VIT))
    with pytest.raises(CheckpointError, match=r"does not tell.*heads"):
        inspect_opened(file, Given(backbone={"image_size": [8, 12]}), "f")


def test_a_dinov2_is_known_by_its_sizes() -> None:
    config = ViTConfig(
        image_size=(28, 28),
        stem=PatchStemConfig(patch_size=14),
        width=384,
        depth=12,
        heads=6,
        layer_scale=1.0,
    )
    file = Checkpoint(path=Path("f"), container="torch", tensors=shapes_of(config))
    found = inspect_opened(file, Given(), "f").described
    assert isinstance(found.backbone, ViTConfig)
    assert found.backbone.heads == 6
    assert "DINOv2" in found.notes[0]


def edited(folder: Path, **changes: Any) -> Checkpoint:
    checkpoint = open_checkpoint(folder)
    config = json.loads(json.dumps(dict(checkpoint.config)))
    for key, value in changes.items():
        node, (*parents, leaf) = config, key.split("__")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return replace(checkpoint, config=config)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given, out = described(VIT), tmp_path_factory.mktemp("plain")
    TimmWriter.write(given, state_of(given), str(out))
    return out


HOSTILE: list[tuple[str, Any]] = [
    ("architecture", 3),
    ("model_args", []),
    ("pretrained_cfg", "x"),
    ("num_classes", "three"),
    ("label_names", 7),
    ("model_args__num_classes", 4),
    ("model_args__embed_dim", -1),
    ("model_args__depth", 1e3),
    ("model_args__depth", 10**9),
    ("model_args__num_heads", True),
    ("model_args__img_size", [8]),
    ("model_args__img_size", [8, "12"]),
    ("model_args__img_size", [16, 16]),
    ("model_args__patch_size", {"h": 4}),
    ("model_args__class_token", "yes"),
    ("model_args__reg_tokens", -1),
    ("model_args__global_pool", "avgmax"),
    ("model_args__act_layer", "quick_gelu"),
    ("model_args__init_values", "small"),
    ("model_args__in_chans", 1),
    ("model_args__scale_mlp_norm", True),
    ("model_args__block_fn", "ParallelScalingBlock"),
    ("model_args__pre_norm", 1),
    ("pretrained_cfg__mean", [0.5, 0.5]),
    ("pretrained_cfg__std", [0.5, 0.5, 0]),
    ("pretrained_cfg__mean", [0.5, 0.5, float("nan")]),
    ("pretrained_cfg__crop_pct", 1.5),
    ("pretrained_cfg__input_size", [3, 8]),
    ("pretrained_cfg__interpolation", "lanczos"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE, ids=str)
def test_a_damaged_config_is_named(plain: Path, field: str, value: object) -> None:
    leaf = field.rpartition("__")[2]
    leaf = "pos_embed" if value == [16, 16] else leaf
    with pytest.raises(CheckpointError) as caught:
        inspect_opened(edited(plain, **{field: value}), Given(), "x")
    assert leaf in str(caught.value)
    assert len(str(caught.value)) < 400


def test_settings_of_training_change_nothing(plain: Path) -> None:
    args = {"model_args__drop_path_rate": 0.3, "model_args__weight_init": "jax"}
    found = inspect_opened(edited(plain, **args), Given(), "x")
    assert found.match.whole
    assert found.described == inspect_opened(open_checkpoint(plain), Given(), "x").described


def test_an_unknown_architecture_with_its_arguments_is_read(plain: Path) -> None:
    found = inspect_opened(edited(plain, architecture="somebodys_own.v2"), Given(), "x")
    assert found.match.whole
    with pytest.raises(CheckpointError, match="norm before the first block"):
        inspect_opened(edited(plain, architecture="vit_base_patch16_clip_224"), Given(), "x")


def test_labels_and_preprocessing(plain: Path) -> None:
    changes = {
        "label_names": {"0": "crane", "1": "crane"},
        "pretrained_cfg": {"crop_mode": "squash"},
    }
    found = inspect_opened(edited(plain, **changes), Given(), "x").described
    assert found.task is not None
    assert found.task.classes == ("crane (0)", "crane (1)", "2")
    assert found.preprocess.resize == Squash(size=(8, 12))
    assert any("mean, std" in note for note in found.notes)
    found = inspect_opened(
        edited(plain, pretrained_cfg={"crop_mode": "border"}), Given(), "x"
    ).described
    assert any("border" in note for note in found.notes)


def test_buffers_of_old_swin_files(tmp_path: Path) -> None:
    given = described(SWIN)
    TimmWriter.write(given, state_of(given), str(tmp_path))
    found = inspect_opened(open_checkpoint(tmp_path), Given(), "x")
    buffers = {item.theirs: item.value for item in found.derived}
    assert "layers.0.blocks.1.attn_mask" in buffers
    held = {name: Held(value) for name, value in buffers.items() if value is not None}
    file = replace(found.checkpoint, tensors={**found.checkpoint.tensors, **held})
    assert inspect_opened(file, Given(), "x").match.whole
    name = "layers.1.blocks.0.attn.relative_position_index"
    file = replace(file, tensors={**file.tensors, name: Held(held[name].tensor + 1)})
    assert name in inspect_opened(file, Given(), "x").match.wrong


@pytest.mark.parametrize(
    ("config", "size"), [(SWIN, (16, 32)), (SWIN2, (4, 8))], ids=["swin", "swinv2"]
)
def test_oblong_windows_are_refused(
    config: SwinConfig | SwinV2Config, size: tuple[int, int], tmp_path: Path
) -> None:
    given = described(config)
    assert "oblong" in TimmWriter.refuses(described(config.model_copy(update={"image_size": size})))
    TimmWriter.write(given, state_of(given), str(tmp_path))
    with pytest.raises(CheckpointError, match="image_size"):
        inspect_opened(edited(tmp_path, model_args__img_size=list(size)), Given(), "x")


HYBRID = HybridConfig(image_size=(64, 64), **TIMM_HYBRID)
REFUSED: list[tuple[BackboneConfig, dict[str, Any], str]] = [
    (VIT, {"eps": 1e-12}, "epsilon 1e-6"),
    (VIT, {"stem": ConvStemConfig(widths=(8,), strides=(4,))}, "convolutional stem"),
    (VIT, {"positions": SineCosine2dConfig()}, "sincos_2d"),
    (VIT, {"positions_in": "layers"}, "at the stem"),
    (VIT, {"norm": "post"}, "norms precede"),
    (VIT, {"pool": "class_and_mean"}, "class_and_mean"),
    (VIT, {"image_size": (9, 12)}, "overhang"),
    (VIT, {"activation": "swiglu", "pool": "attention"}, "gated"),
    (VIT, {"distillation_token": True, "registers": 1}, "distilled"),
    (SWIN, {"positions": "absolute"}, "absolute"),
    (SWIN, {"shift": False}, "shift"),
    (SWIN, {"eps": 1e-6}, "epsilon 1e-5"),
    (HYBRID, {"standardisation": "std"}, "variance"),
    (HYBRID, {"group_norm_eps": 1e-6}, "GroupNorm"),
    (HYBRID, {"resnet_depths": (1, 1)}, "depths"),
    (HYBRID, {"resnet_width": 32}, "64 channels"),
    (ResNetConfig(), {"root": SmallRootConfig()}, "7x7"),
    (ResNetConfig(), {"depths": (1, 1, 1)}, "four stages"),
    (T2TConfig(), {}, "t2t"),
]


@pytest.mark.parametrize(("config", "change", "why"), REFUSED, ids=lambda v: str(v)[:20])
def test_what_timm_cannot_express_is_refused(
    config: BackboneConfig, change: dict[str, Any], why: str
) -> None:
    assert why in TimmWriter.refuses(described(config.model_copy(update=change)))


def test_heads_and_preprocessing_that_timm_has_not() -> None:
    task = ClassifyConfig(classes=("a",), hidden=8)
    assert "before the head" in TimmWriter.refuses(described(VIT, task=task))
    line = PREPROCESS.model_copy(update={"resize": Line(size=(8, 12))})
    assert "line" in TimmWriter.refuses(described(VIT, preprocess=line))
    bgr = PREPROCESS.model_copy(update={"channel_order": "bgr"})
    assert "BGR" in TimmWriter.refuses(described(VIT, preprocess=bgr))
    assert TimmWriter.refuses(described(VIT, task=None)) == ""


def test_names_say_what_the_config_leaves_out() -> None:
    args = named_arguments("vit_base_patch16_gap_224")
    assert (args["num_heads"], args["class_token"], args["global_pool"]) == (16, False, "avg")
    assert named_arguments("vit_giant_patch14_reg4_dinov2")["reg_tokens"] == 4
    assert named_arguments("vit_so400m_patch16_siglip_256")["act_layer"] == "gelu_tanh"
    assert named_arguments("deit_tiny_distilled_patch16_224")["distilled"]
    assert named_arguments("somebodys_own") == {}
    assert refused_name("vit_base_patch16_rpn_224")
    assert not refused_name("vit_base_patch16_224")
