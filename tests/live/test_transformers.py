"""transformers itself beside us: its folders read here, and ours read by it, in random sizes."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitrail.weights.build import assign, empty_model
from vitrail.weights.formats.hf import HfReader
from vitrail.weights.formats.hf_dinov2 import HfDinov2Reader, HfDinov2Writer
from vitrail.weights.formats.hf_swin import HfSwinReader, HfSwinWriter
from vitrail.weights.formats.hf_vit import HfViTReader, HfViTWriter
from vitrail.weights.reader import Writer
from weights.reading import Read, read

pytestmark = pytest.mark.campaign
if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"
LIMIT = 2e-6
"""Largest difference in units of the largest output."""

Fields = dict[str, Any]
Pick = random.Random


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


def vit(pick: Pick) -> Fields:
    heads = pick.choice([1, 2, 4])
    patch = pick.choice([4, 8])
    width = 8 * heads * pick.randint(1, 2)
    return {
        "hidden_size": width,
        "num_hidden_layers": pick.randint(1, 3),
        "num_attention_heads": heads,
        "intermediate_size": pick.randint(width, 4 * width),
        "hidden_act": pick.choice(["gelu", "gelu_pytorch_tanh", "gelu_new"]),
        "layer_norm_eps": pick.choice([1e-12, 1e-6, 1e-5]),
        "image_size": pick.choice([patch * 3, patch * 4]),
        "patch_size": patch,
        "qkv_bias": pick.random() < 0.7,
    }


def dinov2(pick: Pick) -> Fields:
    fields = vit(pick)
    del fields["intermediate_size"]
    gated = pick.random() < 0.5
    return {**fields, "mlp_ratio": pick.choice([2, 3, 4]), "use_swiglu_ffn": gated}


def dinov2_with_registers(pick: Pick) -> Fields:
    return {**dinov2(pick), "num_register_tokens": pick.randint(1, 5)}


def swin(pick: Pick) -> Fields:
    window, stages = pick.choice([2, 3]), pick.randint(1, 3)
    last = window * pick.randint(1, 2)
    return {
        "image_size": 2 * last * 2 ** (stages - 1),
        "patch_size": 2,
        "embed_dim": 8 * pick.randint(1, 2),
        "depths": [pick.randint(1, 3) for _ in range(stages)],
        "num_heads": [pick.choice([1, 2, 4]) for _ in range(stages)],
        "window_size": window,
        "mlp_ratio": pick.choice([2.0, 2.7, 4.0]),
        "qkv_bias": pick.random() < 0.7,
        "use_absolute_embeddings": pick.random() < 0.5,
    }


def swinv2(pick: Pick) -> Fields:
    fields = swin(pick)
    stages = len(fields["depths"])
    before = [pick.choice([0, 4, 6]) for _ in range(stages)]
    window = pick.choice([fields["window_size"], 2 * fields["window_size"]])
    return {
        **fields,
        "qkv_bias": True,
        "use_absolute_embeddings": False,
        # Normalised queries of few channels lose digits, in their code as in ours.
        "embed_dim": 32,
        "num_heads": [pick.choice([1, 2]) for _ in range(stages)],
        "window_size": window,
        "pretrained_window_sizes": before,
    }


FAMILIES: dict[str, tuple[str, Callable[[Pick], Fields], type[HfReader], type[Writer]]] = {
    "ViT": ("ViT", vit, HfViTReader, HfViTWriter),
    "DeiT": ("DeiT", vit, HfViTReader, HfViTWriter),
    "DeiTWithTeacher": ("DeiT", vit, HfViTReader, HfViTWriter),
    "Dinov2": ("Dinov2", dinov2, HfDinov2Reader, HfDinov2Writer),
    "Dinov2WithRegisters": (
        "Dinov2WithRegisters",
        dinov2_with_registers,
        HfDinov2Reader,
        HfDinov2Writer,
    ),
    "Swin": ("Swin", swin, HfSwinReader, HfSwinWriter),
    "Swinv2": ("Swinv2", swinv2, HfSwinReader, HfSwinWriter),
}

each = pytest.mark.parametrize("seed", range(5))
every = pytest.mark.parametrize("name", FAMILIES)


def build(library: ModuleType, name: str, seed: int, *, head: bool = True) -> nn.Module:
    """One of theirs in random size with random weights, larger than those it would start from."""
    family, fields = FAMILIES[name][:2]
    config = getattr(library, f"{family}Config")
    pick = Pick(f"{name} {seed}")
    labels = {i: f"class {i}" for i in range(pick.randint(2, 6))}
    end = "ForImageClassification" if head else "Model"
    suffix = f"{end}WithTeacher" if head and name.endswith("Teacher") else end
    kind = getattr(library, f"{family}{suffix}")
    model: nn.Module = kind(config(**fields(pick), id2label=labels)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                tensor.copy_(1 + 0.15 * noise)
            elif tensor.ndim == 2 or tensor.ndim == 4:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif "logit_scale" not in key:
                tensor.copy_(0.2 * noise)
    return model


def images(model: nn.Module) -> Tensor:
    side = model.config.image_size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def theirs(model: nn.Module, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
    """Logits, if any, and all tokens after the last norm."""
    if "Classification" not in type(model).__name__:
        return None, model(pixel_values=pixels).last_hidden_state
    return model(pixel_values=pixels).logits, model.base_model(
        pixel_values=pixels
    ).last_hidden_state


def compare(found: Read, model: nn.Module, pixels: Tensor) -> float:
    """Largest difference in units of the largest output."""
    logits, tokens = theirs(model, pixels)
    outputs = found.run(pixels)[1]
    pairs = [(outputs["last_hidden_state"], tokens)]
    if logits is not None:
        pairs.append((outputs["logits"], logits))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@every
@each
def test_theirs_here(transformers: ModuleType, name: str, seed: int, tmp_path: Path) -> None:
    model = build(transformers, name, seed)
    model.save_pretrained(tmp_path)
    assert compare(read(FAMILIES[name][2], tmp_path), model, images(model)) < LIMIT


@every
@each
def test_the_arithmetic_is_theirs(
    transformers: ModuleType, name: str, seed: int, tmp_path: Path
) -> None:
    """In double precision nothing but the rules can differ."""
    model = build(transformers, name, seed)
    model.save_pretrained(tmp_path)
    found = read(FAMILIES[name][2], tmp_path)
    ours = assign(empty_model(found.config()), found.state).eval().double()
    pixels = images(model).double()
    with torch.no_grad():
        tokens = ours.backbone(pixels).tokens
    expected = theirs(model.double(), pixels)[1]
    assert float((tokens - expected).abs().max() / expected.abs().max()) < 1e-11


@every
@each
def test_ours_there(transformers: ModuleType, name: str, seed: int, tmp_path: Path) -> None:
    model = build(transformers, name, seed)
    model.save_pretrained(tmp_path / "theirs")
    _, _, reader, writer = FAMILIES[name]
    found = read(reader, tmp_path / "theirs")
    assert writer.refuses(found.described) == ""
    writer.write(found.described, found.state, str(tmp_path / "ours"))
    again, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    assert compare(found, again.eval(), images(model)) < LIMIT
    written, original = (
        load_file(tmp_path / part / "model.safetensors") for part in ("ours", "theirs")
    )
    assert written.keys() == original.keys()
    idle = {key for key in original if key.endswith("mask_token")}
    assert all(torch.equal(written[key], original[key]) for key in original.keys() - idle)
    transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")


@every
@pytest.mark.parametrize("seed", range(2))
def test_a_model_without_head(
    transformers: ModuleType, name: str, seed: int, tmp_path: Path
) -> None:
    if name.endswith("Teacher"):
        pytest.skip("its backbone is DeiT's")
    model = build(transformers, name, seed, head=False)
    model.save_pretrained(tmp_path / "theirs")
    _, _, reader, writer = FAMILIES[name]
    found = read(reader, tmp_path / "theirs")
    assert found.described.task is None
    assert compare(found, model, images(model)) < LIMIT
    writer.write(found.described, found.state, str(tmp_path / "ours"))
    again, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert all("pooler" in key for keys in info.values() for key in keys), info
    assert compare(found, again.eval(), images(model)) < LIMIT


@every
@each
def test_names_of_their_memory(
    transformers: ModuleType, name: str, seed: int, tmp_path: Path
) -> None:
    """A state dict that was saved without their renaming."""
    model = build(transformers, name, seed)
    state = {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    config = json.loads(model.config.to_json_string(use_diff=False))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compare(read(FAMILIES[name][2], tmp_path), model, images(model)) < LIMIT


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Dinov2", "Dinov2WithRegisters"])
def test_another_image_size(transformers: ModuleType, name: str, tmp_path: Path) -> None:
    """Positions are resampled by their rule."""
    model = build(transformers, name, 0)
    model.save_pretrained(tmp_path)
    patch, side = model.config.patch_size, model.config.image_size
    pixels = torch.randn(1, 3, side + patch, side + 3 * patch)
    extra = {} if name.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = model(pixel_values=pixels, **extra).logits
    found = read(FAMILIES[name][2], tmp_path).run(pixels)[1]["logits"]
    assert float((found - expected).abs().max() / expected.abs().max()) < LIMIT


@pytest.mark.parametrize("name", ["Swin", "Swinv2"])
def test_a_wide_image(transformers: ModuleType, name: str, tmp_path: Path) -> None:
    """Maps that are no multiple of the window are padded, no window is shrunk."""
    model = build(transformers, name, 1)
    model.save_pretrained(tmp_path)
    side = model.config.image_size
    pixels = torch.randn(1, 3, side * 2, side * 3)
    found = read(FAMILIES[name][2], tmp_path).run(pixels)[1]["last_hidden_state"]
    assert found.isfinite().all()
