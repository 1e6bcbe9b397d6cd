"""From pixels to the tokens that the first block reads."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.data.preprocess import Preprocess
from vitrail.explain.trace.data import (
    Corner,
    Cut,
    Heat,
    Item,
    Maps,
    Rows,
    Source,
    Step,
    Text,
    Tiles,
)
from vitrail.explain.trace.items import linear_dot, row
from vitrail.explain.trace.scene import Scene
from vitrail.explain.trace.source import source
from vitrail.explain.trace.splits import soft_splits
from vitrail.explain.trace.tokens import map_grid, swin_tokens_step, tokens_step
from vitrail.explain.trace.words import join, say
from vitrail.model import Model
from vitrail.nn.convolutions import Trunk
from vitrail.nn.patches import ConvStem, PatchStem, Stem, pad_to_multiple
from vitrail.nn.soft_split import TokensToToken

_CORNER = 4
"""Pixels of a side of the corner that is shown."""


def stem_steps(scene: Scene) -> list[Step]:
    """The steps before the first block."""
    backbone, steps = scene.backbone, [_pixels(scene)]
    match backbone:
        case ViT():
            stem = backbone.patch_embed
            steps += [_conv(scene, stem) if isinstance(stem, ConvStem) else _patches(scene, stem)]
            steps += [_vectors(scene, stem), tokens_step(scene, backbone)]
        case Hybrid():
            steps += [_resnet(scene, backbone.resnet)]
            steps += [_vectors(scene, backbone.patch_embed), tokens_step(scene, backbone)]
        case T2T():
            steps += [*soft_splits(scene, backbone.patch_embed)]
            steps += [_vectors(scene, backbone.patch_embed), tokens_step(scene, backbone)]
        case Swin():
            stem = backbone.patch_embed
            steps += [
                _patches(scene, stem),
                _vectors(scene, stem),
                swin_tokens_step(scene, backbone),
            ]
    return steps


def _pixels(scene: Scene) -> Step:
    preprocess = scene.model.config.preprocess
    image, pixels = scene.image, scene.pixels[0]
    height, width = image.shape[1:]
    bgr = preprocess.channel_order == "bgr"
    raw = (image.flip(0) if bgr else image).float()
    stride, columns = scene.places.stride, scene.places.grid[1]
    tops = [min(q // columns * stride, max(height - _CORNER, 0)) for q in scene.places.queries]
    lefts = [min(q % columns * stride, max(width - _CORNER, 0)) for q in scene.places.queries]
    corners = [
        torch.stack(
            [a[:, t : t + _CORNER, x : x + _CORNER] for t, x in zip(tops, lefts, strict=True)]
        )
        for a in (raw, pixels)
    ]
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (preprocess.mean, preprocess.std)
    )
    return Step(
        key="pixels",
        title=say("pixels.title"),
        text=say("pixels.text", height=height, width=width),
        shapes=((3, *scene.original), (3, height, width), (1, 3, height, width)),
        formula=f"<i>x</i> = (<i>p</i> / 255 − <i>μ</i>) / <i>σ</i>, "
        f"<i>μ</i> = ({mean}), <i>σ</i> = ({std})",
        source=(
            source(Preprocess.prepare, "height, width = image", "return _center"),
            source(Model.normalise, "return images"),
        ),
        items=(
            Corner(
                say("pixels.corner"),
                corners[0],
                corners[1],
                ("B", "G", "R") if bgr else ("R", "G", "B"),
            ),
        ),
        chapter=say("chapter.stem"),
    )


def padding(scene: Scene, stride: int) -> tuple[Text, tuple[Source, ...]]:
    """What is said of an image whose sides are no multiple of the stride."""
    height, width = scene.image.shape[1:]
    if height % stride == 0 and width % stride == 0:
        return Text("", ""), ()
    return say("stem.padded"), (source(pad_to_multiple, "bottom, right", "return"),)


def _patches(scene: Scene, stem: nn.Module) -> Step:
    assert isinstance(stem, PatchStem)
    side, grid = stem.stride, map_grid(scene, stem)
    height, width = scene.image.shape[1:]
    padded, code = padding(scene, side)
    count = grid[0] * grid[1]
    return Step(
        key="patches",
        title=say("patches.title"),
        text=join(say("patches.text", side=side, rows=grid[0], columns=grid[1]), padded),
        shapes=((1, 3, height, width), (1, count, 3 * side**2)),
        formula=f"<i>N</i> = ⌈<i>H</i>/<i>P</i>⌉ · ⌈<i>W</i>/<i>P</i>⌉ = "
        f"⌈{height}/{side}⌉ · ⌈{width}/{side}⌉ = {count}",
        source=(*code, source(PatchStem.__init__, "self.proj = nn.Conv2d")),
        items=(Cut(say("patches.cut"), grid, side, 0, side),),
    )


def _conv(scene: Scene, stem: ConvStem) -> Step:
    out, grid = scene.out(stem.convs), map_grid(scene, stem)
    height, width = scene.image.shape[1:]
    padded, code = padding(scene, stem.stride)
    convs = [layer for layer in stem.convs if isinstance(layer, nn.Conv2d)]
    shapes = [tuple(scene.out(layer).shape) for layer in convs]
    return Step(
        key="convolutions",
        title=say("conv.title"),
        text=join(say("conv.text", count=len(convs), stride=stem.stride), padded),
        shapes=((1, 3, height, width), *shapes),
        formula="<i>x</i> ← max(0, BatchNorm(<i>W</i> ∗ <i>x</i>))",
        source=(
            *code,
            source(ConvStem.__init__, "nn.Conv2d(before", "nn.ReLU"),
            source(ConvStem.forward, "return self.proj"),
        ),
        items=(
            Cut(say("conv.cut"), grid, stem.stride, 0, stem.stride),
            Heat(
                say("conv.heat"),
                out.mean(dim=1).flatten(1),
                (out.shape[2], out.shape[3]),
                stem.stride,
            ),
        ),
    )


def _resnet(scene: Scene, trunk: Trunk) -> Step:
    outs = [scene.out(stage) for stage in trunk.stages] or [scene.out(trunk.root)]
    height, width = scene.image.shape[1:]
    maps = tuple(
        Heat(
            say("resnet.map", n=i + 1, rows=out.shape[2], columns=out.shape[3]),
            out.mean(dim=1).flatten(1),
            (out.shape[2], out.shape[3]),
            stride,
            exact=False,
        )
        for i, (out, stride) in enumerate(zip(outs, trunk.strides, strict=True))
    )
    return Step(
        key="resnet",
        title=say("resnet.title"),
        text=say("resnet.text", stride=trunk.strides[-1], channels=trunk.channels[-1]),
        shapes=((1, 3, height, width), *(tuple(out.shape) for out in outs)),
        formula="<i>x</i> ← relu(<i>x</i> + <i>f</i>(<i>x</i>))",
        source=(source(Trunk.forward, "current = self.root", "return"),),
        items=(Maps(say("resnet.maps"), maps),),
    )


def _vectors(scene: Scene, stem: Stem) -> Step:
    """The linear map from what was cut to patch vectors."""
    out, grid = scene.out(stem), map_grid(scene, stem)
    mine = scene.places.on(grid, _stem_stride(scene))
    vectors = out[0].flatten(1).T
    layer, x, code = _projection(scene, stem, mine)
    chosen = int(vectors.var(dim=0, unbiased=False).argmax())
    product = linear_dot(
        say("vectors.dot", n=chosen),
        (say("name.patch"), say("name.filter")),
        x,
        layer,
        vectors[mine],
        output=chosen,
    )
    width, count = vectors.shape[1], len(vectors)
    items: list[Item] = [
        *_tiles(scene, x, layer.weight.detach().float().cpu()[chosen]),
        product,
        Heat(
            say("vectors.heat", n=chosen),
            vectors[:, chosen][None],
            grid,
            _stem_stride(scene),
        ),
        Rows(say("vectors.rows"), (row(say("name.patch_vector"), vectors[mine]),)),
    ]
    return Step(
        key="vectors",
        title=say("vectors.title"),
        text=say("vectors.text", inputs=x.shape[1], width=width),
        shapes=((1, count, x.shape[1]), (1, count, width)),
        formula="<i>e</i><sub><i>j</i></sub> = Σ<sub><i>i</i></sub> <i>w</i><sub><i>ji</i></sub> "
        "<i>x</i><sub><i>i</i></sub> + <i>b</i><sub><i>j</i></sub>",
        source=code,
        items=tuple(items),
    )


def _projection(
    scene: Scene, stem: Stem, cells: Tensor
) -> tuple[nn.Linear | nn.Conv2d, Float[Tensor, "Q K"], tuple[Source, ...]]:
    """The last linear map of a stem, what went into it for the chosen cells, and its line."""
    match stem:
        case PatchStem():
            inputs = F.unfold(scene.into(stem.proj), stem.stride, stride=stem.stride)
            code = source(PatchStem.forward, "return self.proj")
            return stem.proj, inputs[0].T[cells], (code,)
        case ConvStem():
            inputs = scene.into(stem.proj)[0].flatten(1).T
            return stem.proj, inputs[cells], (source(ConvStem.forward, "return self.proj"),)
        case TokensToToken():
            code = source(TokensToToken.forward, "for split, mix", "cells = mix")
            return stem.project, scene.into(stem.project)[0, cells], (code,)
        case _:
            raise AssertionError(f"a stem without a step: {type(stem).__name__}")


def _tiles(scene: Scene, x: Float[Tensor, "Q K"], weight: Tensor) -> list[Item]:
    """Patch, filter and their products as pictures, where they are made of pixels."""
    of_pixels = weight.ndim == 3 and x.shape[1] == 3 * weight.shape[-1] ** 2
    if not of_pixels or weight.shape[-1] == 1:
        return []
    patch = x.reshape(-1, *weight.shape)
    products = (patch * weight).sum(dim=1, keepdim=True)
    if scene.model.config.preprocess.channel_order == "bgr":
        patch, weight = patch.flip(1), weight.flip(0)
    return [
        Tiles(
            say("vectors.tiles"),
            (
                (say("name.patch"), patch),
                (say("name.filter"), weight[None]),
                (say("name.products"), products),
            ),
        )
    ]


def _stem_stride(scene: Scene) -> int:
    return scene.backbone.strides[0] if isinstance(scene.backbone, Swin) else scene.places.stride
