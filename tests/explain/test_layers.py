"""Every attention of every family is found, in the order in which it runs, with its place."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.backbones import build_backbone
from vitrail.data.preprocess import Line, Preprocess
from vitrail.errors import ExplainError
from vitrail.explain.layers import (
    AttentionLayer,
    AttentionModule,
    attention_layers,
    choose_heads,
    choose_layers,
    insist_attention,
    watching,
)
from vitrail.explain.layout import OnImage, Pooled, Reading, Symbols, Whole, Windowed
from vitrail.model import Model, ModelConfig
from vitrail.nn.probe import AttentionWeights
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.transformer import Transformer, TransformerConfig

SIZES = [(8, 8), (9, 20), (11, 13)]


def reader() -> Model:
    """A transcriber over a ViT with a class token."""
    config = ModelConfig(
        backbone=tiny_config(),
        task=TranscribeConfig(alphabet=("a", "b"), width=16, heads=2),
        preprocess=Preprocess(resize=Line(size=(8, 12))),
    )
    return Model(config).eval()


def ran(model: Model, size: tuple[int, int]) -> list[tuple[AttentionLayer, AttentionWeights]]:
    """The layers that ran, in that order."""
    found: list[tuple[AttentionLayer, AttentionWeights]] = []

    def watch(layer: AttentionLayer, weights: AttentionWeights, v, out) -> None:
        found.append((layer, weights))

    with torch.no_grad(), watching(attention_layers(model), watch):
        model(photo(0, *size)[None])
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_every_attention_is_found_in_order_with_its_places(
    name: str, size: tuple[int, int]
) -> None:
    model = preset_model(PRESETS[name])
    layers = attention_layers(model)
    modules = {id(m) for m in model.modules() if isinstance(m, get_args(AttentionModule))}
    assert {id(layer.module) for layer in layers} == modules
    assert len({layer.key for layer in layers}) == len({layer.name for layer in layers})
    assert [layer.index for layer in layers] == list(range(len(layers)))
    found = ran(model, size)
    assert [layer.index for layer, _ in found] == list(range(len(layers)))
    for layer, weights in found:
        layout = layer.place.at(size)
        assert isinstance(layout, Whole | Windowed)
        assert weights.shape[-3] == layer.heads
        if isinstance(layout, Whole):
            assert weights.shape[-2:] == (layout.rows, layout.rows)
        else:
            assert weights.shape[1] * weights.shape[-2] == layout.rows
        assert layout.grid[0] * layout.stride >= size[0]
        assert layout.grid[1] * layout.stride >= size[1]


def test_names_and_keys() -> None:
    def names(name: str) -> list[str]:
        return [layer.name for layer in attention_layers(build_backbone(PRESETS[name]))]

    assert names("vit_nano_conv2_8") == [f"block {i}" for i in range(1, 5)]
    assert names("t2t_nano_8")[:2] == ["tokens 1", "block 1"]
    assert names("swin_nano_8") == [
        "stage 1, block 1",
        "stage 1, block 2, shifted",
        "stage 2, block 1",
        "stage 2, block 2",
    ]
    keys = [layer.key for layer in attention_layers(build_backbone(PRESETS["swin_nano_8"]))]
    assert keys == ["attn_0_0", "attn_0_1", "attn_1_0", "attn_1_1"]


def test_attention_pooling_comes_last() -> None:
    config = tiny_config(pool="attention", registers=1)
    model = tiny_model(backbone=config)
    last = attention_layers(model)[-1]
    assert (last.name, last.key) == ("attention pooling", "attn_pool")
    assert last.place.at((8, 12)) == Pooled((2, 3), 4, ("class", "register 1"))
    assert [layer.index for layer, _ in ran(model, (8, 12))] == [0, 1, 2]


def test_a_reader_has_its_decoder_too() -> None:
    layers = attention_layers(reader())
    assert [layer.name for layer in layers] == [
        "block 1",
        "block 2",
        *(f"decoder block {i}, {what}" for i in (1, 2) for what in ("itself", "memory")),
    ]
    assert layers[2].place.at((8, 12)) == Symbols()
    assert layers[3].place.at((8, 12)) == Reading((2, 3), 4, ("class",))


def test_a_sequence_transformer_has_three_kinds() -> None:
    sizes = {"dim": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "ffn": 8}
    config = TransformerConfig(source_vocabulary=5, target_vocabulary=5, **sizes)
    names = [layer.name for layer in attention_layers(Transformer(config))]
    assert names == ["encoder block 1", "decoder block 1, itself", "decoder block 1, memory"]


@pytest.mark.parametrize("name", ["resnet_nano_8", "lstm_nano_8"])
def test_what_has_no_attention_is_refused(name: str) -> None:
    model = preset_model(PRESETS[name])
    assert attention_layers(model) == ()
    kind = type(model.backbone).__name__
    with pytest.raises(ExplainError, match=f"a {kind} has no attention to look at: ViT, DeiT, T2T"):
        insist_attention(model)


def test_layers_and_heads_out_of_range_are_refused() -> None:
    layers = attention_layers(tiny_model())
    assert choose_layers(layers, None) == list(layers)
    assert choose_layers(layers, [-1, 0]) == [layers[1], layers[0]]
    assert choose_heads(layers[0], None) == [0, 1]
    assert choose_heads(layers[0], [-1]) == [1]
    for wanted in (2, -3):
        with pytest.raises(ExplainError, match=f"layer {wanted}: this model has 2 layers"):
            choose_layers(layers, [wanted])
        with pytest.raises(ExplainError, match=rf"head {wanted}: block 1 .* has 2 heads, 0 to 1"):
            choose_heads(layers[0], [wanted])


def test_probes_come_back_after_an_error() -> None:
    model = tiny_model()
    first, second = (layer.module for layer in attention_layers(model))
    first.probe = before = lambda weights, v, out: None
    during = []
    model.task.head.register_forward_pre_hook(lambda *given: during.append(first.probe))
    model.task.head.register_forward_pre_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError), watching(attention_layers(model), lambda *given: None):
        model(photo(0)[None])
    assert during[0] is not before
    assert first.probe is before
    assert second.probe is None


def test_places_are_told_in_pixels() -> None:
    """One pixel is the same place in every layer, however fine."""
    for layer in attention_layers(preset_model(PRESETS["t2t_nano_8"])):
        layout = layer.place.at((9, 20))
        assert isinstance(layout, OnImage)
        y, x = divmod(layout.place((7, 13)), layout.grid[1])
        assert (y, x) == (7 // layout.stride, 13 // layout.stride)
