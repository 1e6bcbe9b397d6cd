"""transformers' LW-DETR and RF-DETR beside us: its folders read here, in random sizes."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.explain.outputs import outputs_of
from vitrail.weights.load import load_checkpoint

pytestmark = pytest.mark.campaign
if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"
LIMIT = 1e-5
"""Largest difference in units of the largest output."""

Fields = dict[str, Any]
Pick = random.Random
COMPARED = (
    *("logits", "pred_boxes", "last_hidden_state"),
    *("enc_outputs_class", "enc_outputs_coord_logits"),
)


@pytest.fixture(scope="module")
def transformers() -> Iterator[ModuleType]:
    """With the shim that a torchvision beside a CPU torch needs, for as long as it is in use."""
    spec = importlib.util.spec_from_file_location("timm_shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    yield importlib.import_module("transformers")
    del shim


def vit(pick: Pick, patch: int) -> tuple[Fields, int]:
    """What both backbones say alike, and windows along each side."""
    heads, depth, windows = pick.choice([1, 2, 4]), pick.randint(2, 5), pick.choice([1, 2, 3])
    taps = sorted(pick.sample(range(depth + 1), pick.randint(1, 3)))
    fields = {
        "hidden_size": 8 * heads * pick.randint(1, 3),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "mlp_ratio": pick.choice([1, 2, 4]),
        "hidden_act": pick.choice(["gelu", "gelu_pytorch_tanh"]),
        "layer_norm_eps": pick.choice([1e-6, 1e-5]),
        "qkv_bias": pick.random() < 0.7,
        "patch_size": patch,
        "out_indices": taps if taps[-1] else [*taps, depth],
    }
    return fields, windows


def decoder(pick: Pick) -> Fields:
    return {
        "d_model": 32,
        "decoder_ffn_dim": pick.choice([16, 48]),
        "decoder_n_points": pick.choice([1, 2, 4]),
        "decoder_layers": pick.randint(1, 4),
        "decoder_self_attention_heads": pick.choice([2, 4]),
        "decoder_cross_attention_heads": pick.choice([4, 8, 16]),
        "num_queries": pick.randint(3, 9),
        "group_detr": pick.choice([1, 2, 13]),
        "c2f_num_blocks": pick.randint(1, 3),
    }


def rf_detr(library: ModuleType, pick: Pick) -> tuple[nn.Module, int]:
    patch = pick.choice([4, 7, 8])
    fields, windows = vit(pick, patch)
    gated = pick.random() < 0.3
    body = library.RfDetrDinov2Config(
        **fields,
        image_size=patch * pick.randint(3, 8),
        num_windows=windows,
        use_swiglu_ffn=gated,
        apply_layernorm=pick.random() < 0.8,
    )
    config = library.RfDetrConfig(backbone_config=body, **decoder(pick), id2label=labels(pick))
    return library.RfDetrForObjectDetection(config), patch * windows


def lw_detr(library: ModuleType, pick: Pick) -> tuple[nn.Module, int]:
    patch = pick.choice([4, 8])
    fields, windows = vit(pick, patch)
    depth = fields["num_hidden_layers"]
    body = library.LwDetrViTConfig(
        **fields,
        image_size=patch * windows**4,
        pretrain_image_size=patch * pick.randint(3, 8),
        num_windows=windows**2,
        window_block_indices=sorted(pick.sample(range(depth), pick.randint(0, depth))),
    )
    scales = pick.choice([[1.0], [2.0, 0.5], [2.0], [2.0, 1.0, 0.5]])
    config = library.LwDetrConfig(
        backbone_config=body,
        projector_scale_factors=scales,
        **decoder(pick),
        id2label=labels(pick),
    )
    return library.LwDetrForObjectDetection(config), patch * windows


def labels(pick: Pick) -> dict[int, str]:
    return {i: f"class {i}" for i in range(pick.choice([1, 5, 91]))}


FAMILIES = {"lw_detr": lw_detr, "rf_detr": rf_detr}
every = pytest.mark.parametrize("name", FAMILIES)
each = pytest.mark.parametrize("seed", range(8))


def build(library: ModuleType, name: str, seed: int) -> tuple[nn.Module, int, Pick]:
    """One of theirs with random weights, what its images' sides are multiples of, the dice."""
    pick = Pick(f"{name} {seed}")
    model, multiple = FAMILIES[name](library, pick)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if key.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise.clamp(-1, 1))
            elif "norm" in key and key.endswith("weight"):
                tensor.copy_(1 + 0.15 * noise)
            elif "query_feat" not in key and "reference_point" not in key and tensor.ndim in (2, 4):
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            else:
                tensor.copy_(0.2 * noise)
    return model.eval(), multiple, pick


def pixels(multiple: int, pick: Pick) -> Tensor:
    height, width = (multiple * pick.randint(2, 4) for _ in range(2))
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def difference(model: nn.Module, folder: Path, images: Tensor, mask: Tensor | None = None) -> float:
    """Largest difference in units of the largest value of each output."""
    with torch.no_grad():
        theirs = model(pixel_values=images, pixel_mask=None if mask is None else mask.long())
    ours = outputs_of(load_checkpoint(folder).model(), images, mask)
    return max(
        float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max()) for key in COMPARED
    )


@every
@each
def test_theirs_here(transformers: ModuleType, name: str, seed: int, tmp_path: Path) -> None:
    model, multiple, pick = build(transformers, name, seed)
    model.save_pretrained(tmp_path)
    assert difference(model, tmp_path, pixels(multiple, pick)) < LIMIT


@every
@pytest.mark.parametrize("seed", range(3))
def test_names_of_their_memory(
    transformers: ModuleType, name: str, seed: int, tmp_path: Path
) -> None:
    model, multiple, pick = build(transformers, name, seed)
    model.save_pretrained(tmp_path)
    state = {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert difference(model, tmp_path, pixels(multiple, pick)) < LIMIT


@every
@pytest.mark.parametrize("seed", range(3))
def test_images_that_were_filled_up(
    transformers: ModuleType, name: str, seed: int, tmp_path: Path
) -> None:
    model, multiple, pick = build(transformers, name, seed)
    model.save_pretrained(tmp_path)
    images = pixels(multiple, pick)
    mask = torch.ones(2, *images.shape[2:], dtype=torch.bool)
    mask[0, :, images.shape[3] * 2 // 3 :] = False
    mask[1, images.shape[2] // 2 :] = False
    assert difference(model, tmp_path, images * mask[:, None], mask) < LIMIT
