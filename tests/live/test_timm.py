"""timm itself beside us: its models saved by timm and read here, and written here and read by timm.

Every family in random sizes. The campaign also holds the names of all of timm's Vision
Transformers against what we take from them.
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import CheckpointError
from vitrail.weights.formats.timm import TimmWriter
from vitrail.weights.formats.timm_sizes import named_arguments, refused_name
from vitrail.weights.load import Loaded, load_checkpoint

pytestmark = pytest.mark.campaign
if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed", allow_module_level=True)

SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"
Arguments = dict[str, Any]
Pick = random.Random


def load_shim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("timm_shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return load_shim().timm()


def vit(pick: Pick) -> Arguments:
    heads, patch = pick.choice([1, 2, 4]), pick.choice([4, 8])
    return {
        "img_size": (patch * pick.randint(1, 4), patch * pick.randint(2, 5)),
        "patch_size": patch,
        "embed_dim": 8 * heads * pick.randint(1, 2),
        "depth": pick.randint(1, 3),
        "num_heads": heads,
        "mlp_ratio": pick.choice([1, 2, 2.5, 3.7362]),
        "num_classes": pick.randint(1, 5),
    }


def swin(pick: Pick) -> Arguments:
    window, depth = pick.choice([2, 3, 4]), pick.choice([2, 3])
    side = 2 * window * 2 ** (depth - 1) * pick.choice([1, 2])
    return {
        "img_size": (side, side * pick.choice([1, 1, 2])) if side > 8 * window else side,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [pick.choice([1, 2, 3]) for _ in range(depth)],
        "num_heads": [2**stage for stage in range(depth)],
        "window_size": window,
        "mlp_ratio": pick.choice([2, 4.0, 2.6]),
        "num_classes": pick.randint(1, 5),
    }


def hybrid(pick: Pick, cell: int) -> Arguments:
    made = vit(pick)
    del made["patch_size"]
    return made | {"img_size": (cell * pick.randint(1, 3), cell * pick.randint(1, 3))}


FAMILIES: dict[str, tuple[str, Callable[[Pick], Arguments]]] = {
    "vit": ("vit_base_patch16_224", vit),
    "vit_bare": ("vit_small_patch32_384", lambda p: vit(p) | {"num_classes": 0}),
    "no_bias": (
        "vit_tiny_patch16_224",
        lambda p: vit(p) | {"qkv_bias": False, "qk_norm": True, "act_layer": "gelu_tanh"},
    ),
    "gap": ("vit_base_patch16_gap_224", vit),
    "fc_norm": ("vit_base_patch16_224", lambda p: vit(p) | {"global_pool": "avg"}),
    "class_fc_norm": ("vit_base_patch16_224", lambda p: vit(p) | {"fc_norm": True}),
    "registers": ("vit_small_patch14_reg4_dinov2", vit),
    "registers_gap": ("vit_medium_patch16_reg1_gap_256", vit),
    "registers_with_places": (
        "vit_so150m_patch16_reg4_gap_256",
        lambda p: vit(p) | {"reg_tokens": p.randint(1, 3)},
    ),
    "registers_map": (
        "vit_so150m_patch16_reg4_map_256",
        lambda p: vit(p) | {"pool_include_prefix": True},
    ),
    "siglip": ("vit_base_patch16_siglip_224", vit),
    "siglip2": ("vit_so400m_patch16_siglip_256", vit),
    "dinov2": ("vit_small_patch14_dinov2", vit),
    "dinov2_giant": (
        "vit_giant_patch14_dinov2",
        lambda p: vit(p) | {"embed_dim": 48, "mlp_ratio": p.choice([2, 4, 5.33334])},
    ),
    "dinov2_giant_registers": (
        "vit_giant_patch14_reg4_dinov2",
        lambda p: vit(p) | {"mlp_ratio": p.choice([2, 4])},
    ),
    "flexivit": ("flexivit_small", vit),
    "eva": ("eva_large_patch14_196", vit),
    "deit": ("deit_tiny_patch16_224", vit),
    "deit_distilled": ("deit_small_distilled_patch16_224", vit),
    "deit3": ("deit3_base_patch16_224", vit),
    "swin": ("swin_base_patch4_window7_224", swin),
    "swin_no_bias": (
        "swin_tiny_patch4_window7_224",
        lambda p: swin(p) | {"qkv_bias": False, "num_classes": 0},
    ),
    "swinv2": ("swinv2_small_window16_256", swin),
    "swinv2_fine_tuned": (
        "swinv2_base_window12to16_192to256",
        lambda p: (a := swin(p)) | {"pretrained_window_sizes": [3] * len(a["depths"])},
    ),
    "hybrid": ("vit_base_r50_s16_224", lambda p: hybrid(p, 16)),
    "hybrid_r26": ("vit_small_r26_s32_224", lambda p: hybrid(p, 32)),
    "hybrid_stem": ("vit_tiny_r_s16_p8_224", lambda p: hybrid(p, 32)),
    "hybrid_gap": (
        "vit_large_r50_s32_224",
        lambda p: hybrid(p, 32) | {"class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
    "resnet18": ("resnet18", lambda p: {"num_classes": p.randint(1, 4)}),
    "resnet50": ("resnet50", lambda p: {"num_classes": 3, "layers": [1, 2, 1, 1]}),
    "resnet26": ("resnet26", lambda p: {"num_classes": 0}),
}


def scatter(model: nn.Module, seed: int) -> nn.Module:
    """Weights such that every one of them counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim < 2 and name.endswith(("weight", "gamma", "running_var")):
                tensor.copy_(1 + 0.15 * noise.clamp(-2, 2))
            elif tensor.ndim < 2:
                tensor.copy_(0.1 * noise)
            else:
                fan_in = tensor[0].numel()
                tensor.copy_(noise * min(max(fan_in**-0.5, 0.03), 0.2))
    return model.eval()


def outputs(loaded: Loaded, images: Tensor) -> tuple[Tensor, Tensor]:
    """Last tokens, and logits or the pooled vector."""
    with torch.no_grad():
        if loaded.described.task is None:
            features = loaded.backbone().to(images.dtype)(images)
            return features.tokens, features.pooled
        model = loaded.model().to(images.dtype)
        features = model.backbone(images)
        return features.tokens, model.task(features)


def theirs(model: Any, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        hidden = model.forward_features(images)
        logits = model(images)
    if name.startswith("swin"):
        hidden = hidden.flatten(1, 2)
    if name.startswith("resnet"):
        hidden = hidden.flatten(2).mT
    return hidden, logits


def insist_near(ours: Tensor, expected: Tensor, limit: float, what: str) -> None:
    scale = max(float(expected.abs().max()), 1.0)
    error = float((ours - expected).abs().max()) / scale
    assert error < limit, f"{what}: {error:.2e}"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(timm: ModuleType, family: str, seed: int, tmp_path: Path) -> None:
    architecture, arguments = FAMILIES[family]
    args = arguments(Pick(f"{family} {seed}"))
    model = scatter(timm.create_model(architecture, **args), seed)
    saved, written = tmp_path / "saved", tmp_path / "written"
    timm.models.save_for_hf(model, saved, safe_serialization=True)
    size = json.loads((saved / "config.json").read_text())["pretrained_cfg"]["input_size"]
    size = args.get("img_size", 64 if family.startswith("resnet") else size[1:])
    size = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    convolutions = family.startswith(("hybrid", "resnet"))
    if convolutions:  # ours keep channels together: the same order of sums needs the same of theirs
        images = images.contiguous(memory_format=torch.channels_last)
    hidden, logits = theirs(model, images, architecture)

    loaded = load_checkpoint(saved)
    assert loaded.match.whole
    tokens, answers = outputs(loaded, images)
    insist_near(tokens, hidden, 2e-6, f"{args}: last hidden state")
    insist_near(answers, logits, 2e-6, f"{args}: logits")
    if convolutions:
        exact = theirs(model.double(), images.double(), architecture)
        for ours, expected in zip(outputs(loaded, images.double()), exact, strict=True):
            insist_near(ours, expected, 1e-10, f"{args}: in double precision")
        model.float()

    assert TimmWriter.refuses(loaded.described) == ""
    TimmWriter.write(loaded.described, loaded.state, str(written))
    again = timm.create_model(f"local-dir:{written}", pretrained=True).eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    torch.testing.assert_close(theirs(again, images, architecture)[1], logits, rtol=0, atol=0)
    back = load_checkpoint(written)
    assert back.described.backbone == loaded.described.backbone
    assert back.described.task == loaded.described.task
    assert back.described.preprocess == loaded.described.preprocess


def test_preprocessing_is_timms_own(timm: ModuleType, tmp_path: Path) -> None:
    """From the cfg of published weights, as timm resolves it."""
    resolve = load_shim().timm_data().resolve_model_data_config
    for name in ("vit_tiny_patch16_224", "deit3_small_patch16_384", "resnet18"):
        model = timm.create_model(name, num_classes=2)
        timm.models.save_for_hf(model, tmp_path / name, safe_serialization=True)
        wanted, ours = resolve(model), load_checkpoint(tmp_path / name).described.preprocess
        assert ours.resize.kind == "center_crop"
        assert (3, *ours.resize.size) == wanted["input_size"]
        assert ours.resize.crop_pct == wanted["crop_pct"]
        assert (ours.mean, ours.std) == (wanted["mean"], wanted["std"])
        assert ours.interpolation == wanted["interpolation"]


def test_what_is_computed_otherwise_is_refused(timm: ModuleType, tmp_path: Path) -> None:
    small = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32, "num_classes": 2}
    for name in (
        "vit_base_patch16_rpn_224",
        "vit_base_patch16_clip_224",
        "vit_small_patch16_18x2_224",
    ):
        model = timm.create_model(name, **small)
        timm.models.save_for_hf(model, tmp_path / name, safe_serialization=True)
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)


def test_names_say_what_timm_builds(timm: ModuleType) -> None:
    """Every Vision Transformer of timm that is not refused: heads, pooling, tokens, activation."""
    kind = timm.models.vision_transformer.VisionTransformer
    held = 0
    for name in timm.list_models(["vit_*", "deit*", "flexivit*", "eva_*"]):
        args = named_arguments(name)
        if not args or refused_name(name) or "_r26_" in name or "_r50_" in name or "_r_" in name:
            continue
        with torch.device("meta"):
            model = timm.create_model(name)
        if not isinstance(model, kind) or type(model.patch_embed).__name__ != "PatchEmbed":
            continue
        block, held = model.blocks[0], held + 1
        assert type(block).__name__ == "Block", name
        built = {
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": block.attn.num_heads,
            "patch_size": model.patch_embed.patch_size[0],
            "class_token": model.cls_token is not None,
            "reg_tokens": model.num_reg_tokens,
            "distilled": getattr(model, "dist_token", None) is not None,
            "global_pool": model.global_pool,
        }
        assert {field: args[field] for field in built} == built, name
        if type(block.mlp).__name__ == "Mlp":
            tanh = "tanh" in type(block.mlp.act).__name__.lower()
            assert (args["act_layer"] == "gelu_tanh") == tanh, name
        assert block.norm1.eps == 1e-6, name
    assert held > 80
