"""The chosen patch through all blocks, and the merging between the stages of a Swin."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin, SwinStage
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.explain.trace.data import Heat, Item, Maps, Plot, Source, Step
from vitrail.explain.trace.items import cosine, length
from vitrail.explain.trace.scene import Scene, block_stride
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import join, say


def through_step(scene: Scene) -> Step:
    """Norm and likeness of the chosen token before the first block and after each."""
    norms: list[Tensor] = []
    first_norms: list[Tensor] = []
    maps: list[Heat] = []
    for i, tokens in enumerate(_states(scene)):
        block = scene.blocks[max(i - 1, 0)]
        patches, cells = tokens[0, scene.prefix :], scene.cells(block)
        mine = patches[cells]
        norms.append(length(mine))
        first_norms.append(length(tokens[0, 0]))
        maps.append(
            Heat(
                say("through.after", n=i) if i else say("through.before"),
                cosine(mine, patches),
                scene.grid(block),
                block_stride(scene.backbone, block),
                high=1.0,
                exact=False,
            )
        )
    lines = [(say("name.chosen"), torch.stack(norms, dim=1))]
    if scene.prefix:
        lines.append((say("name.class"), torch.stack(first_norms)[None]))
    widths = dict.fromkeys(tuple(tokens.shape) for tokens in _states(scene))
    items: tuple[Item, ...] = (
        Plot(say("through.plot"), say("through.axis"), tuple(lines), scene.layer + 1),
        Maps(say("through.maps"), tuple(maps)),
    )
    text = [say("through.text", depth=len(scene.blocks))]
    if isinstance(scene.backbone, Swin) and len(scene.backbone.stages) > 1:
        text.append(say("through.stages"))
    return Step(
        key="through",
        title=say("through.title", depth=len(scene.blocks)),
        text=join(*text),
        shapes=tuple(widths) if len(widths) > 1 else tuple(widths) * 2,
        formula="|<i>x</i>| = √(Σ <i>x</i><sub><i>i</i></sub>²), "
        "cos(<i>x</i>, <i>y</i>) = <i>x</i> · <i>y</i> / (|<i>x</i>| |<i>y</i>|)",
        source=(_loop(scene),),
        items=items,
        chapter=say("chapter.through"),
    )


def _states(scene: Scene) -> list[Tensor]:
    return [scene.into(scene.blocks[0]), *(scene.out(block) for block in scene.blocks)]


def _loop(scene: Scene) -> Source:
    match scene.backbone:
        case Swin():
            return source(SwinStage.forward, "for i, block", "tokens = block")
        case ViT():
            return source(ViT.forward, "for index, block", "tokens = block")
        case T2T():
            return source(T2T.forward, "for block", "tokens = block")
        case Hybrid():
            return source(Hybrid.forward, "for block", "tokens = block")
