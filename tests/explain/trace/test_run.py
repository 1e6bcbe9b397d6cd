from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from presets import PRESETS, preset_model
from tiny import POOLS, POSITIONS, STEMS, photo, randomise, tiny_config, tiny_model
from vitrail.backbones import BackboneConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import ExplainError
from vitrail.explain.trace.data import (
    Bars,
    Corner,
    Dot,
    Facts,
    Heat,
    Item,
    Keys,
    Plot,
    Rows,
    Step,
    Trace,
)
from vitrail.explain.trace.run import trace
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.transcribe import TranscribeConfig

UNTRACED = ("resnet", "recurrent", "windowed_vit")
TRACED = [name for name, config in PRESETS.items() if config.kind not in UNTRACED]


def step(found: Trace, key: str) -> Step:
    return next(step for step in found.steps if step.key == key)


def item(step: Step, kind: type[Any]) -> Any:
    return next(item for item in step.items if isinstance(item, kind))


def small_swin(kind: type[SwinConfig] | type[SwinV2Config], **changes: Any) -> BackboneConfig:
    """Two stages; maps that are no multiple of the window, so that padding is at work."""
    table: dict[str, Any] = {
        "image_size": (44, 30),
        "patch_size": 2,
        "width": 8,
        "depths": (2, 2),
        "heads": (2, 4),
        "window": 4,
    }
    return kind(**(table | changes))


def classifier(backbone: BackboneConfig, **task: Any) -> Model:
    config = ModelConfig(
        backbone=backbone,
        task=ClassifyConfig(classes=("ant", "bee", "cat"), **task),
        preprocess=Preprocess(resize=CenterCrop(size=backbone.image_size, crop_pct=1.0)),
    )
    return randomise(Model(config), std=0.2).eval()


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_is_traced_or_refused(name: str) -> None:
    model = preset_model(PRESETS[name])
    if name not in TRACED:
        with pytest.raises(ExplainError, match="these have: vit"):
            trace(model, photo(0), name="a.png")
        return
    found = trace(model, photo(0), name="a.png")
    insist_sound(found)


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_kind_of_positions(positions: Any) -> None:
    model = tiny_model(backbone=tiny_config(positions=positions(), registers=1))
    insist_sound(trace(model, photo(1), name="a"))


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool(pool: str) -> None:
    found = trace(tiny_model(backbone=tiny_config(pool=pool)), photo(1), name="a")
    insist_sound(found)
    assert "<i>" in step(found, "pool").formula


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "post"},
        {"qk_norm": True},
        {"activation": "swiglu"},
        {"layer_scale": 0.1},
        {"distillation_token": True},
        {"norm_after_pool": True, "pool": "mean"},
        {"pool": "mean", "class_token": False},
        {"positions_in": "layers"},
        {"stem": STEMS[1]},
        {"image_size": (9, 13)},
    ],
)
def test_every_part_of_a_vit(changes: dict[str, Any]) -> None:
    model = tiny_model(backbone=tiny_config(**changes))
    for layer in range(2):
        insist_sound(trace(model, photo(2, 20, 30), name="a", layer=layer, head=1))


@pytest.mark.parametrize("positions", ["none", "absolute", "relative", "absolute_and_relative"])
@pytest.mark.parametrize("kind", [SwinConfig, SwinV2Config])
def test_every_block_of_a_swin(kind: Any, positions: str) -> None:
    model = classifier(small_swin(kind, positions=positions))
    for layer in range(4):
        found = trace(model, photo(2, 50, 40), name="a", layer=layer)
        insist_sound(found)
        assert [s.key for s in found.steps].count("merging") == 1


@pytest.mark.parametrize("task", [{"hidden": 8}, {"multilabel": True}, {"temperature": 2.0}])
def test_every_kind_of_head(task: dict[str, Any]) -> None:
    insist_sound(trace(tiny_model(**task), photo(3), name="a"))


def insist_sound(found: Trace) -> None:
    """What holds of any trace: shapes chain, sums are sums, and the model's numbers come out."""
    assert found.difference == 0
    keys = [step.key for step in found.steps]
    assert len(set(keys)) == len(keys)
    for each in found.steps:
        assert each.shapes
        assert each.source
        assert each.title.en
        assert each.title.zh
        for part in each.items:
            insist_sums(part)
    mixed = item(step(found, "weighted"), Facts).rows[1][1]
    assert float(mixed.max()) < 1e-5
    everything = item(step(found, "softmax"), Heat)
    parts = everything.values.nansum(dim=1) + sum(value for _, value in everything.beside[:-1])
    torch.testing.assert_close(parts, torch.ones_like(parts), rtol=0, atol=1e-5)
    torch.testing.assert_close(everything.beside[-1][1], parts, rtol=0, atol=1e-5)


def insist_sums(part: Item) -> None:
    """A dot product equals the model's number; rows with plus signs sum to the one with `=`."""
    if isinstance(part, Dot):
        shown = (part.x * part.w).sum(dim=1) + part.rest + (part.bias or 0.0)
        torch.testing.assert_close(part.total, shown, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.real, part.total, rtol=1e-4, atol=1e-4)
    if isinstance(part, Rows) and any(row.sign == "+" for row in part.rows):
        value: Tensor = torch.zeros(1)
        for row in part.rows:
            if row.sign == "=":
                torch.testing.assert_close(
                    row.values, value.expand_as(row.values), rtol=1e-4, atol=1e-4
                )
            # A row of no sign begins anew: what stood before it is shown, not added.
            value = {
                "": row.values,
                "+": value + row.values,
                "×": value * row.values,
                "=": row.values,
            }[row.sign]


def test_the_numbers_are_those_of_the_model() -> None:
    model = tiny_model()
    image = photo(4)
    found = trace(model, image, name="a", layer=1, head=1)
    with torch.no_grad():
        pixels = model.normalise(image[None])
        tokens = model.backbone(pixels).tokens
        logits = model(image[None])[0]
        block = model.backbone.blocks[0]
        before = model.backbone.pos_embed.embed(
            model.backbone.patch_embed(pixels).flatten(2).transpose(1, 2),
            model.backbone.prefix_token,
            (2, 3),
        )
        between = block(before, (2, 3))
        attn = model.backbone.blocks[1].attn
        q, k, v = attn.qkv(model.backbone.blocks[1].norm1(between))[0].reshape(7, 3, 2, 8).unbind(1)
        scores = torch.einsum("nd,md->nm", q[:, 1], k[:, 1]) * 8**-0.5
        weights = scores.softmax(dim=1)
    corner = item(step(found, "pixels"), Corner)
    torch.testing.assert_close(corner.normalised[4], pixels[0, :, 4:8, 4:8])
    assert corner.raw[4].equal(image[:, 4:8, 4:8].float())
    rows = item(step(found, "tokens"), Rows).rows
    torch.testing.assert_close(rows[-1].values, before[0, 1:, :8])
    rows = item(step(found, "qkv"), Rows).rows
    torch.testing.assert_close(rows[1].values, q[1:, 1])
    torch.testing.assert_close(rows[3].values, v[1:, 1])
    heat = item(step(found, "softmax"), Heat)
    torch.testing.assert_close(heat.values, weights[1:, 1:])
    torch.testing.assert_close(heat.beside[0][1], weights[1:, 0])
    kernel = item(step(found, "weighted"), Rows).rows[-1].values
    torch.testing.assert_close(kernel, (weights @ v[:, 1])[1:], rtol=1e-4, atol=1e-5)
    keys = item(step(found, "scores"), Keys)
    own = keys.place[:, 0]
    assert own.tolist() == list(found.queries)
    torch.testing.assert_close(keys.score[:, 0], scores[1:, 1:].diagonal())
    torch.testing.assert_close(keys.score[:, 1], scores[1:, 0])
    norms = item(step(found, "through"), Plot).lines
    torch.testing.assert_close(norms[0][1][:, 1], between[0, 1:].norm(dim=1))
    torch.testing.assert_close(norms[1][1][0, 1], between[0, 0].norm())
    pooled = item(step(found, "pool"), Rows).rows[-1].values
    torch.testing.assert_close(pooled, tokens[:, 0, :8])
    bars = item(step(found, "probabilities"), Bars)
    assert bars.logits.equal(logits.sort(descending=True).values)
    assert bars.names[0] == model.config.task.classes[int(logits.argmax())]
    assert found.answer.en.startswith(bars.names[0])


def test_a_trace_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    trace(model, photo(0), name="a")
    for module in model.modules():
        assert not module._forward_hooks
    assert all(block.attn.probe is None for block in model.backbone.blocks)


def test_a_transcriber_ends_with_its_memory() -> None:
    config = ModelConfig(
        backbone=tiny_config(),
        task=TranscribeConfig(alphabet=tuple("ab"), max_length=4, width=16, depth=1, heads=2),
        preprocess=Preprocess(resize=CenterCrop(size=(8, 12), crop_pct=1.0)),
    )
    model = randomise(Model(config)).eval()
    found = trace(model, photo(1), name="a")
    assert [s.key for s in found.steps][-2:] == ["memory", "check"]
    assert found.difference == 0
    with torch.no_grad():
        memory = model(photo(1)[None])
    rows = item(step(found, "memory"), Rows).rows
    torch.testing.assert_close(rows[-1].values, memory[0, 1:, :8])
    assert "it reads" in found.answer.en


@pytest.mark.parametrize(("layer", "head"), [(2, 0), (-1, 0), (0, 2), (0, -1)])
def test_a_layer_or_head_that_is_not_there(layer: int, head: int) -> None:
    with pytest.raises(ExplainError, match=r"--(layer|head) goes from 0 to 1"):
        trace(tiny_model(), photo(0), name="a", layer=layer, head=head)


def test_the_middle_block_is_shown_unless_another_is_asked_for() -> None:
    assert trace(tiny_model(), photo(0), name="a").layer == 1


def test_bgr_is_said() -> None:
    model = preset_model(PRESETS["vit_nano_conv2_8"], channel_order="bgr")
    corner = item(step(trace(model, photo(0, 8, 8), name="a"), "pixels"), Corner)
    assert corner.channels == ("B", "G", "R")
    assert corner.raw[0, 0].equal(photo(0, 8, 8)[2, :4, :4].float())
    torch.testing.assert_close(corner.normalised, corner.raw / 127.5 - 1)
