"""torchvision itself beside us: its state dicts read here, and written here and read by it."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.weights.formats.torchvision import TorchvisionWriter
from vitrail.weights.load import load_checkpoint
from vitrail.weights.reader import Given

pytestmark = pytest.mark.campaign
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)

SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"
Made = tuple[nn.Module, dict[str, Any], tuple[int, int]]


@pytest.fixture(scope="module")
def models() -> Any:
    spec = importlib.util.spec_from_file_location("timm_shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return importlib.import_module("torchvision.models")


def vit(models: Any, pick: random.Random) -> Made:
    heads, patch = pick.choice([1, 2, 4]), pick.choice([4, 8])
    side = patch * pick.randint(1, 4)
    width = 8 * heads * pick.randint(1, 2)
    hidden, depth = pick.choice([width, 3 * width + 1]), pick.randint(1, 3)
    classes, before = pick.randint(1, 5), pick.choice([None, 12])
    model = models.VisionTransformer(
        side, patch, depth, heads, width, hidden, num_classes=classes, representation_size=before
    )
    return model, {"heads": heads}, (side, side)


def swin(models: Any, pick: random.Random, *, second: bool = False) -> Made:
    window, stages = pick.choice([2, 3, 4]), pick.choice([2, 3])
    side = 2 * window * 2 ** (stages - 1) * pick.choice([1, 2])
    parts = models.swin_transformer
    changes: dict[str, Any] = {}
    if second:
        changes["block"] = parts.SwinTransformerBlockV2
        changes["downsample_layer"] = parts.PatchMergingV2
    model = models.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=8,
        depths=[pick.choice([1, 2, 3]) for _ in range(stages)],
        num_heads=[2**stage for stage in range(stages)],
        window_size=[window, window],
        mlp_ratio=pick.choice([2.0, 2.6, 4.0]),
        num_classes=pick.randint(1, 5),
        **changes,
    )
    return model, {"image_size": [side, side]}, (side, side)


def resnet(models: Any, pick: random.Random) -> Made:
    parts = models.resnet
    block = pick.choice([parts.BasicBlock, parts.Bottleneck])
    model = models.ResNet(block, [pick.randint(1, 2) for _ in range(4)], num_classes=3)
    return model, {}, (64, 40)


FAMILIES: dict[str, Callable[[Any, random.Random], Made]] = {
    "vit": vit,
    "swin": swin,
    "swin_v2": lambda models, pick: swin(models, pick, second=True),
    "resnet": resnet,
}


def scatter(model: nn.Module, seed: int) -> nn.Module:
    """Weights such that every one of them counts, also the bias of keys that is not used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or name.endswith("relative_coords_table"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim < 2 and name.endswith(("weight", "running_var")):
                tensor.copy_(1 + 0.15 * noise.clamp(-2, 2))
            else:
                fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
                tensor.copy_(noise * min(max(fan_in**-0.5, 0.03), 0.2))
    return model.eval()


def error(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).abs().max()) / max(float(expected.abs().max()), 1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(models: Any, family: str, seed: int, tmp_path: Path) -> None:
    model, fields, size = FAMILIES[family](models, random.Random(f"{family} {seed}"))
    scatter(model, seed)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    if family == "resnet":  # ours keep channels together: the same order of sums
        images = images.contiguous(memory_format=torch.channels_last)
    loaded = load_checkpoint(tmp_path / "model.pth", Given(backbone=fields))
    ours = loaded.model()
    with torch.no_grad():
        expected, answers = model(images), ours.task(ours.backbone(images))
        assert error(answers, expected) < 2e-6
        if family == "resnet":
            ours, exact = ours.double(), model.double()(images.double())
            assert error(ours.task(ours.backbone(images.double())), exact) < 1e-10
            model.float()

    assert TorchvisionWriter.refuses(loaded.described) == ""
    TorchvisionWriter.write(loaded.described, loaded.state, str(tmp_path / "back.pth"))
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    again = FAMILIES[family](models, random.Random(f"{family} {seed}"))[0].eval()
    again.load_state_dict(back, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(again(images), expected, rtol=0, atol=0)
    assert load_checkpoint(tmp_path / "back.pth", Given(backbone=fields)).state.keys()


@pytest.mark.parametrize("name", ["vit_b_16", "vit_l_32", "swin_t", "swin_v2_b", "resnet50"])
def test_published_models_need_nothing_given(models: Any, name: str, tmp_path: Path) -> None:
    model = models.get_model(name)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert loaded.described.variant
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    wanted, ours = weights.transforms(), loaded.described.preprocess
    assert list(ours.resize.size) == wanted.crop_size * 2
    assert ours.resize.resized(500, 500) == (wanted.resize_size[0],) * 2
    assert ours.interpolation == wanted.interpolation.value
    assert (list(ours.mean), list(ours.std)) == (wanted.mean, wanted.std)
