"""The way of one image through a real model, step by step, with its own numbers.

One forward pass is watched by hooks and by the probe of the attention that was chosen; every number
is read from it. Where something is computed again, it stands as a check beside the model's own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from vitrail.errors import ExplainError
from vitrail.explain.trace.block import block_steps
from vitrail.explain.trace.data import Step, Text, Trace
from vitrail.explain.trace.end import answer, end_steps
from vitrail.explain.trace.scene import (
    Scene,
    attention,
    encoder_blocks,
    insist_encoder,
    watch,
)
from vitrail.explain.trace.stem import stem_steps
from vitrail.explain.trace.through import through_step
from vitrail.explain.trace.windows import merging_step
from vitrail.explain.trace.words import say
from vitrail.model import Model
from vitrail.tasks.detect import Detect
from vitrail.tasks.segment import Segment


def trace(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    *,
    name: str,
    layer: int | None = None,
    head: int = 0,
) -> Trace:
    """Follow one image from its pixels to the answer.

    Args:
        model: Any model with attention; it is put into evaluation mode.
        image: Decoded and upright, not prepared.
        name: Of the model, for people.
        layer: Block whose inside is shown, from 0; the middle one by default. The blocks of Swin
            are counted through all stages, those of T2T begin after its soft splits.
        head: Attention head that is shown, from 0.

    Raises:
        ExplainError: the model is a detector or a segmenter, has no attention, or no such block or
            head.
    """
    if isinstance(model.task, Detect):
        raise ExplainError(
            "a trace follows an image to one answer, and a detector has many; `vitrail explain "
            "MODEL IMAGE` shows where each object was found"
        )
    if isinstance(model.task, Segment):
        raise ExplainError(
            "a trace follows an image to one answer, and a segmenter has one for every pixel; "
            "`vitrail explain MODEL IMAGE` shows what made each region"
        )
    model.eval()
    blocks = encoder_blocks(insist_encoder(model))
    layer = len(blocks) // 2 if layer is None else layer
    _insist(f"block {layer} of", layer, len(blocks), "--layer")
    heads = attention(blocks[layer]).heads
    _insist(f"head {head} in block {layer} of", head, heads, "--head")
    scene = watch(model, image, layer, head)
    difference = _difference(model, scene)
    return Trace(
        name=name,
        model=_describe(model, len(blocks)),
        answer=answer(scene),
        image=scene.image,
        grid=scene.places.grid,
        stride=scene.places.stride,
        queries=scene.places.queries,
        start=scene.places.start,
        layer=layer,
        depth=len(blocks),
        head=head,
        heads=heads,
        steps=_steps(scene, difference),
        difference=difference,
    )


def _insist(what: str, index: int, count: int, option: str) -> None:
    if not 0 <= index < count:
        raise ExplainError(f"there is no {what} this model; {option} goes from 0 to {count - 1}")


def _difference(model: Model, scene: Scene) -> float:
    """Between the pass that was watched and one that nobody watches."""
    device = next(model.parameters()).device
    with torch.no_grad():
        alone = model(scene.image[None].to(device)).float().cpu()
    return float((alone - scene.output).abs().max())


def _steps(scene: Scene, difference: float) -> tuple[Step, ...]:
    merging = merging_step(scene)
    merged_before = merging is not None and scene.places.stride > scene.backbone.strides[0]
    through = through_step(scene)
    end = end_steps(scene, difference)
    return (
        *stem_steps(scene),
        *([merging] if merging is not None and merged_before else []),
        *block_steps(scene),
        through,
        *([merging] if merging is not None and not merged_before else []),
        replace(end[0], chapter=say("chapter.end")),
        *end[1:],
    )


def _describe(model: Model, depth: int) -> Text:
    count = sum(parameter.numel() for parameter in model.parameters())
    kind = model.config.backbone.kind
    return say("model", kind=kind, depth=depth, params=f"{count / 1e6:.3g}")
