"""transformers' EoMT beside us: its folders read here, in random sizes, and ours read there."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.preprocess import Letterbox
from vitrail.data.tiles import Windows
from vitrail.explain.outputs import outputs_of
from vitrail.masks import decode
from vitrail.model import pixel_mask
from vitrail.tasks.placing import placed
from vitrail.tiling import tiled, tiled_answers
from vitrail.types import Batch, Grid, Sample
from vitrail.verify import verify
from vitrail.weights.convert import write_loaded
from vitrail.weights.load import load_checkpoint

pytestmark = pytest.mark.campaign
if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

SHIM = Path(__file__).resolve().parents[2] / "benchmarks" / "timm_shim.py"
LIMIT = 1e-5
"""Largest difference in units of the largest output."""

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


def chances(pick: Pick, blocks: int) -> list[float]:
    """All, none, or a part: a block without keeps the masks of the block before."""
    kind = pick.choice(["all", "none", "mixed", "mixed"])
    if kind == "mixed":
        return [float(pick.random() < 0.5) for _ in range(blocks)]
    return [float(kind == "all")] * blocks


def settings(pick: Pick) -> dict[str, Any]:
    heads, patch = pick.choice([1, 2, 4]), pick.choice([4, 8, 16])
    return {
        "hidden_size": 8 * heads * pick.randint(1, 3),
        "num_hidden_layers": (depth := pick.randint(3, 6)),
        "num_blocks": pick.randint(1, depth - 1),
        "num_attention_heads": heads,
        "mlp_ratio": pick.randint(1, 4),
        "hidden_act": pick.choice(["gelu", "gelu", "gelu_pytorch_tanh"]),
        "layer_norm_eps": pick.choice([1e-6, 1e-5, 1e-4]),
        "image_size": patch * pick.randint(2, 5),
        "patch_size": patch,
        "num_upscale_blocks": pick.randint(1, 2),
        "use_swiglu_ffn": pick.random() < 0.3,
        "num_queries": pick.randint(2, 9),
        "num_register_tokens": pick.choice([0, 1, 4]),
        "id2label": {i: f"class {i}" for i in range(pick.choice([1, 2, 7, 80, 133]))},
    }


def build(library: ModuleType, seed: int) -> tuple[nn.Module, Tensor]:
    """One of theirs with random weights, and images for it."""
    pick = Pick(f"eomt {seed}")
    config = library.EomtConfig(**settings(pick))
    model = library.EomtForUniversalSegmentation(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                tensor.copy_(1 + 0.15 * noise)
            elif tensor.ndim in (2, 4):
                tensor.copy_(noise * max(1, tensor[0].numel()) ** -0.5)
            else:
                tensor.copy_(0.2 * noise)
        model.attn_mask_probs.copy_(torch.tensor(chances(pick, config.num_blocks)))
    images = torch.randn(2, 3, config.image_size, config.image_size, generator=generator)
    return model.eval(), images


def answers(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        theirs = model(pixel_values=images)
    return {
        "masks": theirs.masks_queries_logits,
        "logits_class": theirs.class_queries_logits,
        "last_hidden_state": theirs.last_hidden_state,
    }


def difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest difference in units of the largest value of each output."""
    return max(float((found[k] - t).abs().max() / t.abs().max()) for k, t in wanted.items())


@pytest.mark.parametrize("seed", range(24))
def test_theirs_here(transformers: ModuleType, seed: int, tmp_path: Path) -> None:
    model, images = build(transformers, seed)
    model.save_pretrained(tmp_path)
    ours = outputs_of(load_checkpoint(tmp_path).model(), images)
    assert difference(ours, answers(model, images)) < LIMIT


def test_verify_compares_with_what_is_installed(transformers: ModuleType, tmp_path: Path) -> None:
    model, _ = build(transformers, 0)
    model.save_pretrained(tmp_path)
    found = verify(tmp_path, against="transformers")
    assert found.verdict == "equal"
    assert {row.output for row in found.comparisons} == {
        *("masks", "logits_class", "last_hidden_state")
    }


@pytest.mark.parametrize("seed", range(6))
def test_ours_there(transformers: ModuleType, seed: int, tmp_path: Path) -> None:
    model, images = build(transformers, seed)
    model.save_pretrained(tmp_path / "theirs")
    loaded = load_checkpoint(tmp_path / "theirs")
    write_loaded(loaded, "hf", tmp_path / "ours")
    kind = transformers.EomtForUniversalSegmentation
    again, told = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert difference(answers(again.eval(), images), answers(model, images)) == 0


@pytest.mark.parametrize("size", [(48, 48), (70, 100), (151, 60), (40, 131)])
def test_windows_of_a_photo(transformers: ModuleType, size: Grid, tmp_path: Path) -> None:
    """From pixels to votes: theirs resized, cut, blended and brought back, ours likewise."""
    model, _ = build(transformers, 3)
    side = model.config.image_size
    short = {"shortest_edge": side, "longest_edge": None}
    processor = transformers.EomtImageProcessor(size=short, do_split_image=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], box=(0, 0, 9, 9)))
    inputs = processor(images=Image.fromarray(pixels), return_tensors="pt")
    with torch.no_grad():
        outputs = model(pixel_values=inputs["pixel_values"])
    outputs.patch_offsets = inputs["patch_offsets"]
    (wanted,) = processor.post_process_semantic_segmentation(
        outputs, [size], size=short, return_segmentation_scores=True
    )
    ours = load_checkpoint(tmp_path).model()
    rule = ours.config.preprocess.resize
    assert rule == Windows(side=side)
    prepared = ours.config.preprocess.prepare(torch.tensor(pixels).permute(2, 0, 1))
    votes = tiled(ours, prepared, rule)
    votes = placed(votes, 1, size, (prepared.shape[1], prepared.shape[2]))
    theirs = wanted.segmentation_scores
    assert (votes - theirs).abs().max() / theirs.abs().max() < LIMIT
    batch = Batch(("photo",), prepared[None], (None,), sizes=(size,))
    (answer,) = tiled_answers(ours, batch)
    for region in answer.regions:
        own = decode(region.rle, size)
        label = ours.config.task.classes.index(region.label)
        assert (own != (wanted.segmentation == label).numpy()).mean() < 1e-3


@pytest.mark.parametrize("size", [(48, 48), (70, 100), (151, 60)])
def test_a_photo_in_a_square(transformers: ModuleType, size: Grid, tmp_path: Path) -> None:
    """What is filled up is black, and seen."""
    model, _ = build(transformers, 5)
    side = model.config.image_size
    square = {"shortest_edge": side, "longest_edge": side}
    processor = transformers.EomtImageProcessor(size=square, do_pad=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    ours = load_checkpoint(tmp_path).model()
    image = torch.tensor(pixels).permute(2, 0, 1)
    view = ours.config.preprocess.view(Sample("photo", image, None))
    assert ours.config.preprocess.resize == Letterbox(side=side)
    assert (ours.normalise(view.image[None]) - theirs).abs().max() < 1e-5
    extents = () if view.extent is None else (view.extent,)
    batch = Batch(("photo",), view.image[None], (None,), sizes=(size,), extents=extents)
    with torch.no_grad():
        found = ours(batch.images, pixel_mask(batch, torch.device("cpu")))
        wanted = model(pixel_values=theirs).masks_queries_logits
    assert (found.masks - wanted).abs().max() / wanted.abs().max() < LIMIT
