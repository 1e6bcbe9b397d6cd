"""Captured attention is that of the fused path, for every family, and lies where it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from presets import PRESETS, preset_model
from small_disk import small_disk
from tiny import POSITIONS, photo, randomise, tiny_config, tiny_model
from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.swin import Swin
from vitrail.backbones.t2t import TokenTransformerConfig
from vitrail.data.preprocess import Line, Preprocess
from vitrail.errors import ExplainError
from vitrail.explain import capture as module
from vitrail.explain.capture import capture
from vitrail.explain.layers import attention_layers, watching
from vitrail.explain.layout import OfTokens, Windowed
from vitrail.model import Model, ModelConfig
from vitrail.nn.attention import Attention
from vitrail.nn.probe import AttentionWeights, SoftmaxWeights
from vitrail.nn.windows import CosineWindowAttention, WindowAttention, Windows
from vitrail.tasks.transcribe import Transcribe, TranscribeConfig
from vitrail.transformer import Transformer, TransformerConfig

WITH_ATTENTION: dict[str, BackboneConfig] = {
    name: config for name, config in PRESETS.items() if attention_layers(build_backbone(config))
} | {
    "t2t_transformer": PRESETS["t2t_nano_8"].model_copy(
        update={"token_block": TokenTransformerConfig()}
    ),
    "registers": tiny_config(registers=2, positions={"kind": "relative_2d"}),
    "attention_pool": tiny_config(pool="attention", qk_norm=True),
    "post_norm": tiny_config(norm="post", pool="class_and_mean"),
    "swin_no_positions": PRESETS["swin_nano_8"].model_copy(update={"positions": "none"}),
}
"""Every family with attention, and what its presets leave out."""


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


def reader(**task: Any) -> Model:
    config = ModelConfig(
        backbone=tiny_config(registers=1),
        task=TranscribeConfig(alphabet=("a", "b"), max_length=5, width=16, heads=2, **task),
        preprocess=Preprocess(resize=Line(size=(8, 12))),
    )
    return randomise(Model(config)).eval()


@pytest.mark.parametrize("size", [(8, 8), (9, 20)])
@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_every_layer_of_every_family_is_what_the_fused_path_used(
    name: str, size: tuple[int, int]
) -> None:
    model = preset_model(WITH_ATTENTION[name])
    batch = torch.stack([photo(1, *size), photo(2, *size)])
    with torch.no_grad(), capture(model) as record:
        watched = model(batch)
    with torch.no_grad():
        torch.testing.assert_close(watched, model(batch), rtol=0, atol=0)
    assert len(record.layers) == len(attention_layers(model))
    for seen in record.layers:
        assert (seen.weights.sum(dim=-1) - 1).abs().max() < 1e-6
        assert bool((seen.weights >= 0).all())
        assert seen.error < 1e-5
        assert seen.weights.shape[:2] == (2, seen.layer.heads)
        last = seen.weights.shape[2] - 1
        assert seen.map(last).shape == (2, *seen.layout.grid)
        assert float(seen.map(last).sum(dim=(1, 2)).max()) < 1 + 1e-6
    assert record.max_error == max(seen.error for seen in record.layers)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(POSITIONS),
    st.integers(0, 999),
    st.floats(0.1, 1.5),
    st.booleans(),
    st.integers(0, 2),
)
def test_rows_sum_to_one_and_the_weights_are_those_of_the_fused_kernel(
    positions: type, seed: int, std: float, qk_norm: bool, registers: int
) -> None:
    config = tiny_config(positions=positions(), qk_norm=qk_norm, registers=registers)
    backbone = randomise(build_backbone(config), seed, std).eval()
    scores: list[float] = []

    def watch(layer: object, weights: AttentionWeights, v: object, out: object) -> None:
        assert isinstance(weights, SoftmaxWeights)
        found = weights.q @ weights.k.mT * weights.scale
        scores.append(float((found if weights.bias is None else found + weights.bias).abs().max()))

    layers = attention_layers(backbone)
    with torch.no_grad(), watching(layers, watch), capture(backbone) as record:
        backbone(images(seed))
    assert len(record.layers) == config.depth
    for layer, score in zip(record.layers, scores, strict=True):
        assert layer.weights.shape == (2, 2, config.prefix + 6, config.prefix + 6)
        assert (layer.weights.sum(dim=-1) - 1).abs().max() < 1e-6
        # Rounding of a score of 1,000 alone is 6e-5, in the fused kernel as in ours.
        assert layer.error < max(1e-5, 2**-24 * score)


def test_decoders_are_captured_as_they_write() -> None:
    model = reader()
    task = model.task
    assert isinstance(task, Transcribe)
    with torch.no_grad(), capture(model) as record:
        written = task.write(model(torch.stack([photo(1), photo(2)])))
    steps = min(int(written.lengths.max()) + 1, 6)
    assert len(record.layers) == 2 + 4 * steps
    for seen in record.layers:
        assert (seen.weights.sum(dim=-1) - 1).abs().max() < 1e-6
        assert seen.error < 1e-5
    memory = record.layers[3]
    assert memory.layer.name == "decoder block 1, memory"
    assert memory.weights.shape == (2, 2, 1, 8)
    assert memory.map(0).shape == (2, 2, 3)
    with pytest.raises(ExplainError, match="query 1: the queries of decoder block 1, memory go"):
        memory.map(1)
    with pytest.raises(ExplainError, match="looks at symbols, not at places of the image"):
        record.layers[2].map(0)


def test_a_sequence_transformer_is_captured_with_its_masks() -> None:
    sizes = {"dim": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn": 8}
    config = TransformerConfig(source_vocabulary=5, target_vocabulary=5, padding_id=0, **sizes)
    model = randomise(Transformer(config)).eval()
    source = torch.tensor([[1, 2, 3, 0, 0], [1, 2, 3, 4, 1]])
    with torch.no_grad(), capture(model) as record:
        model(source, torch.tensor([[1, 2, 3], [3, 2, 1]]))
    encoder, own, memory = record.layers
    assert record.max_error < 1e-5
    for seen in (encoder, memory):  # nobody looks at padding
        assert seen.weights[0, :, :, 3:].abs().max() == 0
    assert own.weights.triu(1).abs().max() == 0  # nor at later symbols


def test_the_fused_kernel_runs_and_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    model = tiny_model()
    batch = photo(0)[None]
    with torch.no_grad():
        plain = model(batch)
        with capture(model):
            watched = model(batch)
    assert len(calls) == 4
    assert torch.equal(plain, watched)


def test_weights_that_were_not_used_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = F.scaled_dot_product_attention

    def other(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kw: object) -> torch.Tensor:
        return fused(q, k, v.roll(1, dims=2), **kw)

    model = tiny_model()
    monkeypatch.setattr(F, "scaled_dot_product_attention", other)
    with torch.no_grad(), capture(model) as record:
        model(photo(0)[None])
    assert record.max_error > 0.01
    with torch.no_grad(), capture(model, queries=[0], heads=[1]) as record:
        model(photo(0)[None])
    assert record.max_error > 0.01


@pytest.mark.parametrize(
    ("layers", "expected"), [([0], [0]), ([-1], [2]), ([0, 2], [0, 2]), ([2, 0], [0, 2]), ([], [])]
)
def test_some_layers(layers: list[int], expected: list[int]) -> None:
    model = tiny_model(backbone=tiny_config(depth=3))
    with torch.no_grad():
        with capture(model) as every:
            model(photo(0)[None])
        with capture(model, layers) as some:
            model(photo(0)[None])
    assert [seen.layer.index for seen in some.layers] == expected
    for layer, index in zip(some.layers, expected, strict=True):
        assert torch.equal(layer.weights, every.layers[index].weights)


@pytest.mark.parametrize("name", ["vit_nano_conv2_8", "swin_nano_8", "swinv2_nano_8", "t2t_nano_8"])
def test_some_heads_and_rows(name: str, tmp_path: Path) -> None:
    """Rows by pixel, in any order, are those of the whole record; so are they on disk."""
    model = preset_model(PRESETS[name])
    batch = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])
    pixels = [(7, 13), (0, 0), (8, 19)]
    with torch.no_grad():
        with capture(model) as every:
            model(batch)
        with capture(model, heads=[-1], queries=pixels) as some:
            model(batch)
        with capture(model, heads=[-1], queries=pixels, to=tmp_path) as stored:
            model(batch)
    for whole, part, file in zip(every.layers, some.layers, stored.layers, strict=True):
        last = whole.layer.heads - 1
        assert part.heads == (last,)
        assert part.weights.shape[1:3] == (1, 3)
        for pixel in pixels:
            expected = whole.map(pixel, last)
            torch.testing.assert_close(part.map(pixel), expected)
            torch.testing.assert_close(part.map(pixel, last), expected)
            torch.testing.assert_close(file.map(pixel), expected)
        assert part.error < 1e-5
        row = whole.layout.row((0, 2))
        with pytest.raises(ExplainError, match=f"query {row} of {whole.layer.name} was not asked"):
            part.map((0, 2))
        if last:
            with pytest.raises(ExplainError, match=r"head 0 of .* was not asked for"):
                part.map(pixels[0], 0)


@pytest.mark.parametrize("asked", [{"heads": []}, {"queries": []}])
@pytest.mark.parametrize("name", ["vit_nano_conv2_8", "swin_nano_8"])
def test_nothing_asked_for_is_nothing_kept(
    name: str, asked: dict[str, list[int]], tmp_path: Path
) -> None:
    model = preset_model(PRESETS[name])
    for to in (None, tmp_path):
        with torch.no_grad(), capture(model, to=to, **asked) as record:
            model(photo(0, 8, 8)[None])
        assert len(record.layers) == 4
        assert all(seen.weights.numel() == 0 and seen.error == 0 for seen in record.layers)


def test_a_row_by_name() -> None:
    config = tiny_config(distillation_token=True, registers=1)
    model = tiny_model(backbone=config)
    names = ["distillation", "class", "register 1"]
    with torch.no_grad(), capture(model, queries=names) as record:
        model(photo(0)[None])
    seen = record.layers[0]
    assert seen.queries == (1, 0, 2)
    torch.testing.assert_close(seen.map("class").flatten(1), seen.weights[:, :, 1, 3:].mean(dim=1))
    with (
        pytest.raises(ExplainError, match="the named tokens are 'class', 'distillation', 'reg"),
        torch.no_grad(),
        capture(model, queries=["cls"]),
    ):
        model(photo(0)[None])
    assert all(m.probe is None for m in model.modules() if isinstance(m, Attention))


@pytest.mark.parametrize("chunk", [1, 700, 2**24])
@pytest.mark.parametrize("name", ["vit_nano_conv2_8", "swin_nano_8", "t2t_nano_8"])
def test_what_is_streamed_to_disk_equals_memory(
    name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    if chunk == 1 and name != "vit_nano_conv2_8":
        pytest.skip("one family is enough for the smallest part")
    model = preset_model(PRESETS[name])
    batch = photo(1, 8, 8)[None]
    with torch.no_grad():
        with capture(model) as kept:
            model(batch)
        with capture(model, to=tmp_path / "new") as stored:
            model(batch)
            model(batch)  # a second pass has files of its own
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert len(files) == 2 * len(kept.layers)
    assert files[0] == f"000-{kept.layers[0].layer.key}.npy"
    for one, two in zip([*kept.layers, *kept.layers], stored.layers, strict=True):
        torch.testing.assert_close(two.weights, one.weights, rtol=1e-6, atol=1e-7)
        assert two.error < 1e-5


def test_a_full_disk_is_an_error_that_can_be_caught(tmp_path: Path) -> None:
    model = preset_model(PRESETS["vit_nano_conv2_8"])
    with (
        small_disk(tmp_path / "disk", 64) as place,
        pytest.raises(OSError, match="No space left"),
        torch.no_grad(),
        capture(model, to=place),
    ):
        model(torch.stack([photo(1, 9, 20), photo(2, 9, 20)]))
    assert all(m.probe is None for m in model.modules() if isinstance(m, Attention))


def test_nothing_is_recorded_outside_even_after_an_error() -> None:
    model = tiny_model()
    with pytest.raises(RuntimeError, match="boom"), capture(model) as record:
        raise RuntimeError("boom")
    model(photo(0)[None])
    assert record.layers == []
    assert record.max_error == 0
    assert all(m.probe is None for m in model.modules() if isinstance(m, Attention))
    assert not model.backbone._forward_pre_hooks


def test_what_is_not_there_is_refused() -> None:
    with (
        pytest.raises(ExplainError, match="a ResNet has no attention to look at"),
        capture(preset_model(PRESETS["resnet_nano_8"])),
    ):
        pass
    model = tiny_model()
    with pytest.raises(ExplainError, match="layer 2: this model has 2"), capture(model, [2]):
        pass
    with pytest.raises(ExplainError, match="head 2: block 1"), capture(model, heads=[2]):
        pass
    with (
        pytest.raises(ExplainError, match=r"pixel \(8, 0\) .* is outside the image"),
        torch.no_grad(),
        capture(model, queries=[(8, 0)]),
    ):
        model(photo(0)[None])
    swin = preset_model(PRESETS["swin_nano_8"])
    with (
        pytest.raises(ExplainError, match="windows have no such token; give a pixel"),
        torch.no_grad(),
        capture(swin, queries=["class"]),
    ):
        swin(photo(0, 8, 8)[None])


def test_half_precision_is_captured_in_float32() -> None:
    backbone = build_backbone(tiny_config()).to(torch.bfloat16).eval()
    with torch.no_grad(), capture(backbone) as record:
        backbone(images().bfloat16())
    assert record.layers[0].weights.dtype == torch.float32
    assert (record.layers[0].weights.sum(dim=-1) - 1).abs().max() < 1e-6
    assert record.max_error < 0.02


def test_sizes_are_those_of_each_pass() -> None:
    model = tiny_model()
    with torch.no_grad(), capture(model, [0]) as record:
        model(photo(0, 8, 12)[None])
        model(photo(0, 13, 5)[None])
    grids = [seen.layout.grid for seen in record.layers if isinstance(seen.layout, OfTokens)]
    assert grids == [(2, 3), (4, 2)]


class Beacon:
    """Makes one place of a map the only one that is worth looking at."""

    def __init__(self, pixel: tuple[int, int], stride: int, columns: int) -> None:
        self.place = pixel[0] // stride * columns + pixel[1] // stride

    def __call__(
        self, attention: nn.Module, given: tuple[torch.Tensor, Windows, torch.Tensor | None]
    ) -> tuple[torch.Tensor, Windows, torch.Tensor | None]:
        tokens, windows, mask = given
        tokens = tokens.clone()
        tokens[:, :, 0] = -1
        tokens[:, self.place, 0] = 1
        return tokens, windows, mask


def look_at_the_first_channel(attention: WindowAttention) -> None:
    """Each query asks for the key whose first channel is greatest, whatever its place."""
    width = attention.proj.in_features
    per_head = torch.arange(0, width, width // attention.heads)
    with torch.no_grad():
        attention.qkv.weight[: 2 * width] = 0
        attention.qkv.weight[width + per_head, 0] = 1
        if isinstance(attention, CosineWindowAttention):
            attention.q_bias.zero_()[per_head] = 1
            attention.logit_scale.fill_(3.4)  # 60 points ahead: less than the mask of 100 takes
        else:
            attention.qkv.bias[: 2 * width] = 0
            attention.qkv.bias[per_head] = 80  # 40 points ahead


@pytest.mark.parametrize("pixel", [(0, 0), (2, 5), (8, 19), (3, 11), (7, 16)])
@pytest.mark.parametrize("name", ["swin_nano_8", "swinv2_nano_8"])
def test_a_planted_change_shows_at_its_place_in_every_block(
    name: str, pixel: tuple[int, int]
) -> None:
    """Shifted or not, padded or not: all that share its window look at it, and nobody else."""
    model = preset_model(PRESETS[name])
    assert isinstance(model.backbone, Swin)
    size = (9, 20)
    for layer in attention_layers(model):
        layout = layer.place.at(size)
        assert isinstance(layout, Windowed)
        assert isinstance(layer.module, WindowAttention)
        look_at_the_first_channel(layer.module)
        layer.module.register_forward_pre_hook(Beacon(pixel, layout.stride, layout.grid[1]))
    with torch.no_grad(), capture(model) as record:
        model(photo(1, *size)[None])
    assert {seen.layout.windows.shift for seen in record.layers} == {0, 2}
    for seen in record.layers:
        stride, windows = seen.layout.stride, seen.layout.windows
        here = (pixel[0] // stride, pixel[1] // stride)
        expected = torch.zeros(seen.layout.grid)
        expected[here] = 1
        for y in range(0, size[0], stride):
            for x in range(0, size[1], stride):
                # Windows begin at the shift and every `size` places from there.
                apart = [
                    (a // stride - windows.shift) // windows.size
                    != (b - windows.shift) // windows.size
                    for a, b in zip((y, x), here, strict=True)
                ]
                found = seen.map((y, x))[0]
                if any(apart):
                    assert float(found[here]) < 1e-6, (seen.layer.name, y, x)
                else:
                    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_autocast_does_not_reach_what_is_captured() -> None:
    model = tiny_model().eval()
    batch = torch.stack([photo(1), photo(2)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), capture(model) as record:
        model(batch)
    for seen in record.layers:
        assert seen.weights.dtype == torch.float32
        assert (seen.weights.sum(dim=-1) - 1).abs().max() < 1e-6


def test_a_pass_with_gradients_is_captured_without_a_warning() -> None:
    model = tiny_model()
    with capture(model) as record:
        model(torch.stack([photo(1)])).sum().backward()
    assert record.max_error < 1e-5


def test_a_compiled_model_is_captured_by_the_model_in_it() -> None:
    """In a process of its own: torch cannot compile what the check of types wraps."""
    code = (
        "import torch, vitrail; "
        "model = vitrail.create_model('vit_nano_conv2_8', classes=3).eval(); "
        "compiled = torch.compile(model, backend='eager'); "
        "batch = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)\n"
        "with torch.no_grad():\n"
        "    compiled(batch)\n"
        "    with vitrail.capture(model) as record:\n"
        "        compiled(batch)\n"
        "print(len(record.layers), record.max_error < 1e-5)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["4", "True"], ran.stderr


def test_what_is_no_model_of_ours_is_refused() -> None:
    """In a process of its own: here the check of types is quicker."""
    code = (
        "from torch import nn; from vitrail.explain.layers import attention_layers; "
        "attention_layers(nn.Linear(1, 1))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ExplainError: a Linear is no model of vitrail: give the model itself" in ran.stderr


def test_slips_of_the_hand(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(ExplainError, match=r"give a list, e\.g\. \['class'\]"):
        capture(model, queries="class").__enter__()
    with pytest.raises(ExplainError, match=r"give a list, e\.g\. \[\(3, 3\)\]"):
        capture(model, queries=(3, 3)).__enter__()
    (tmp_path / "file").write_text("")
    for to in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ExplainError, match="no folder"):
            capture(model, to=to).__enter__()
    with capture(model) as record:
        model(torch.stack([photo(1)]))
    with pytest.raises(ExplainError, match="go from 0 to"):
        record.layers[0].row(-1)


def test_no_graph_is_kept(tmp_path: Path) -> None:
    model = tiny_model()
    with capture(model) as record:
        model(photo(0)[None])
    with capture(model, to=tmp_path) as stored:
        model(photo(0)[None])
    for kept, mapped in zip(record.layers, stored.layers, strict=True):
        assert not kept.weights.requires_grad
        assert torch.equal(kept.weights, mapped.weights)
