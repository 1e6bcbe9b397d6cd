"""Every attention of a model, in the order in which they run, and where its rows and columns lie.

This is the one place that knows where the families keep their attention: a new family has one case
to add in `_of_backbone`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import cast

import torch
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.recurrent import Recurrent
from vitrail.backbones.resnet import ResNet
from vitrail.backbones.swin import Swin, SwinStage
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.backbones.windowed_vit import WindowedViT
from vitrail.errors import ExplainError
from vitrail.explain.layout import (
    Layout,
    OfTokens,
    Pooled,
    Reading,
    Searchers,
    Searching,
    Symbols,
    Whole,
    Windowed,
)
from vitrail.model import Model
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Block
from vitrail.nn.decoder import Decoder, DecoderBlock
from vitrail.nn.deformable import MemoryAttention
from vitrail.nn.detection_encoder import CellLayer
from vitrail.nn.encoder import EncoderBlock
from vitrail.nn.pooling import AttentionPool
from vitrail.nn.probe import AttentionWeights, Probe
from vitrail.nn.query_decoder import QueryDecoder, QueryLayer
from vitrail.nn.sequence_attention import SequenceAttention
from vitrail.nn.soft_split import SoftSplit, TokenAttention, TokenBlock
from vitrail.nn.windows import WindowAttention
from vitrail.tasks.detect import Detect
from vitrail.tasks.detectors import C2fProjectorConfig, QueryDetector, QueryReadout
from vitrail.tasks.joint_segmenters import EncoderOnlyMaskTransformer, MaskTransformer
from vitrail.tasks.segment import Segment
from vitrail.tasks.segmenters import (
    ClassQuerySegmenter,
    MatchedQueriesReadout,
    MatchedQuerySegmenter,
)
from vitrail.tasks.transcribe import Transcribe
from vitrail.transformer import Transformer
from vitrail.types import Grid

AttentionModule = (
    Attention
    | WindowAttention
    | TokenAttention
    | AttentionPool
    | SequenceAttention
    | MemoryAttention
)
"""Every kind of attention; each has a `probe`."""

Explainable = Model | Backbone | Transformer
"""What has attention to look at."""


class Place(ABC):
    """How a layer's layout follows from the size of the model's input, (H, W) in pixels."""

    @abstractmethod
    def at(self, size: Grid) -> Layout:
        """The layout for an input of this size."""


@dataclass(frozen=True, slots=True)
class AtStride(Place):
    """Tokens `stride` pixels apart behind a prefix; `kind` says what the rows are.

    `multiple` is what the sides of the image are padded to, where that is more than the stride.
    """

    kind: type[OfTokens]
    stride: int
    prefix: tuple[str, ...] = ()
    multiple: int = 0

    def at(self, size: Grid) -> Layout:
        """One place a stride, the last one cut off or not."""
        multiple = self.multiple or self.stride
        rows, columns = (n * (multiple // self.stride) for n in cells(size, multiple))
        return self.kind((rows, columns), self.stride, self.prefix)


@dataclass(frozen=True, slots=True)
class InWindows(Place):
    """Places of a stage, `stride` pixels apart, as one of its blocks cuts them."""

    stage: SwinStage
    block: int
    stride: int

    def at(self, size: Grid) -> Layout:
        """The windows of a map for this size."""
        grid = cells(size, self.stride)
        return Windowed(grid, self.stride, self.stage.cut(self.block, grid))


@dataclass(frozen=True, slots=True)
class InText(Place):
    """Symbols; the image does not matter."""

    def at(self, size: Grid) -> Layout:
        """Always the same."""
        del size
        return Symbols()


@dataclass(frozen=True, slots=True)
class OnMaps(Place):
    """Cells of the maps that queries of a detector or a segmenter read.

    Attributes:
        stride: Pixels between two cells of the map that the projector starts from.
        scales: Of each map: twice as fine, as fine or half as fine as that one.
    """

    stride: int
    scales: tuple[float, ...]

    def at(self, size: Grid) -> Layout:
        """On the grid of the finest map; half a pixel is no stride."""
        rows, columns = cells(size, self.stride)
        grids = tuple((ceil(rows * scale), ceil(columns * scale)) for scale in self.scales)
        finer = 2 if 2.0 in self.scales and self.stride % 2 == 0 else 1
        return Searching((rows * finer, columns * finer), self.stride // finer, grids)


@dataclass(frozen=True, slots=True)
class AmongQueries(Place):
    """Queries for objects; the image does not matter."""

    def at(self, size: Grid) -> Layout:
        """Always the same."""
        del size
        return Searchers()


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One attention of a model.

    Attributes:
        index: Its number in the order in which they run, from 0.
        name: What people call it, e.g. `block 3` or `stage 2, block 4, shifted`; blocks and stages
            are counted from 1.
        key: What files and tables call it, e.g. `attn_2` or `attn_1_3`; counted from 0.
        module: The attention itself.
        heads: Number of heads.
        place: Where its rows and columns lie.
    """

    index: int
    name: str
    key: str
    module: AttentionModule
    heads: int
    place: Place


@dataclass(frozen=True, slots=True)
class _Found:
    """A layer before it has its number."""

    name: str
    key: str
    module: AttentionModule
    heads: int
    place: Place


def attention_layers(model: Explainable) -> tuple[AttentionLayer, ...]:
    """Every attention of a model in the order in which they run; none for a ResNet or an RNN."""
    match model:
        case Model():
            found = [*_of_backbone(model.backbone), *_of_task(model)]
        case Backbone():
            found = list(_of_backbone(model))
        case Transformer():
            found = [
                *_encoder(model.encoder.blocks),
                *_decoder(model.decoder, InText(), "attn_decoder"),
            ]
        case _:  # torch.compile wraps
            raise ExplainError(
                f"a {type(model).__name__} is no model of vitrail: give the model itself; what "
                "torch.compile or a wrapper made of it runs the same layers"
            )
    return tuple(
        AttentionLayer(i, one.name, one.key, one.module, one.heads, one.place)
        for i, one in enumerate(found)
    )


def insist_attention(model: Explainable) -> tuple[AttentionLayer, ...]:
    """Its attention, at least one.

    Raises:
        ExplainError: it has none; the message says what can be shown instead.
    """
    layers = attention_layers(model)
    if not layers:
        backbone = model.backbone if isinstance(model, Model) else model
        raise ExplainError(
            f"a {type(backbone).__name__} has no attention to look at: ViT, DeiT, T2T, hybrid and "
            "Swin have; what speaks for a class is shown by Grad-CAM and occlusion"
        )
    return layers


def choose_layers(
    layers: Sequence[AttentionLayer], wanted: Sequence[int] | None
) -> list[AttentionLayer]:
    """Some layers by number, negative ones from the end; None for all.

    Raises:
        ExplainError: a number out of range.
    """
    if wanted is None:
        return list(layers)
    count = len(layers)
    for number in wanted:
        if not -count <= number < count:
            raise ExplainError(
                f"layer {number}: this model has {count} layers of attention, 0 to {count - 1} "
                f"(or -{count} to -1 from the end)"
            )
    return [layers[number] for number in wanted]


def choose_heads(layer: AttentionLayer, wanted: Sequence[int] | None) -> list[int]:
    """Heads of a layer by number, negative ones from the end; None for all.

    Raises:
        ExplainError: a number out of range.
    """
    heads = range(layer.heads)
    if wanted is None:
        return list(heads)
    for number in wanted:
        if not -layer.heads <= number < layer.heads:
            raise ExplainError(
                f"head {number}: {layer.name} (layer {layer.index}) has {layer.heads} "
                f"head{'s' if layer.heads > 1 else ''}, 0 to {layer.heads - 1}"
            )
    return [heads[number] for number in wanted]


Watch = Callable[[AttentionLayer, AttentionWeights, Tensor, Tensor], None]
"""Called with the layer, its weights, the values and the fused output, as each layer runs."""


@contextmanager
def watching(layers: Iterable[AttentionLayer], watch: Watch) -> Generator[None]:
    """Call `watch` whenever one of the layers runs inside the block.

    Who watched before still does.
    """
    layers = list(layers)
    before = [layer.module.probe for layer in layers]
    # torch.compile cuts its graph here, and does not look into what watches.
    eager = cast("Watch", torch.compiler.disable(watch))  # pyright: ignore[reportUnknownMemberType]
    for layer, probe in zip(layers, before, strict=True):
        layer.module.probe = _Bound(layer, eager, probe)
    try:
        yield
    finally:
        for layer, probe in zip(layers, before, strict=True):
            layer.module.probe = probe


@dataclass(frozen=True, slots=True)
class _Bound:
    layer: AttentionLayer
    watch: Watch
    before: Probe | None

    def __call__(self, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        if self.before is not None:
            self.before(weights, v, out)
        self.watch(self.layer, weights, v, out)


def cells(size: Grid, stride: int) -> Grid:
    """Rows and columns of places for an input of this size: what is no multiple is padded."""
    return -(-size[0] // stride), -(-size[1] // stride)


def prefix_names(backbone: Backbone) -> tuple[str, ...]:
    """Names of the tokens that are no places, in their order."""
    match backbone:
        case ViT(config=config):
            names = ["class"] * config.class_token + ["distillation"] * config.distillation_token
            names += [f"register {i + 1}" for i in range(config.registers)]
            return (*names, *(f"query {i + 1}" for i in range(config.detection_tokens)))
        case WindowedViT(config=config):
            names = ["class"] * config.class_token
            names += [f"register {i + 1}" for i in range(config.registers)]
            if config.windows == 1:
                return tuple(names)
            windows = range(1, config.windows**2 + 1)
            return tuple(f"{name}, window {window}" for window in windows for name in names)
        case _:
            return ("class",) * backbone.prefix


def _of_backbone(backbone: Backbone) -> Iterable[_Found]:
    prefix, stride = prefix_names(backbone), backbone.strides[-1]
    match backbone:
        case ViT():
            yield from _blocks(backbone.blocks, stride, prefix)
            if isinstance(backbone.pool, AttentionPool):
                pool, place = backbone.pool, AtStride(Pooled, stride, prefix)
                yield _Found("attention pooling", "attn_pool", pool, pool.heads, place)
        case Hybrid():
            yield from _blocks(backbone.blocks, stride, prefix)
        case WindowedViT(config=config):
            multiple = config.multiple
            yield from _blocks(backbone.blocks, stride, prefix, multiple=multiple)
        case T2T():
            yield from _token_blocks(backbone)
            yield from _blocks(backbone.blocks, stride, prefix)
        case Swin():
            yield from _stages(backbone)
        case ResNet() | Recurrent():
            return
        case _:
            raise AssertionError(f"a family unknown here: {type(backbone).__name__}")


def _blocks(
    blocks: nn.ModuleList, stride: int, prefix: tuple[str, ...], *, multiple: int = 0
) -> Iterable[_Found]:
    for i, block in enumerate(blocks):
        assert isinstance(block, Block)
        place = AtStride(Whole, stride, prefix, multiple)
        yield _Found(f"block {i + 1}", f"attn_{i}", block.attn, block.attn.heads, place)


def _token_blocks(backbone: T2T) -> Iterable[_Found]:
    stride, stem = 1, backbone.patch_embed
    for i, (split, block) in enumerate(zip(stem.splits, stem.blocks, strict=False), start=1):
        assert isinstance(split, SoftSplit)
        assert isinstance(block, TokenBlock)
        stride *= split.stride
        place = AtStride(Whole, stride, multiple=stem.stride)
        yield _Found(f"tokens {i}", f"attn_t2t_{i}", block.attn, 1, place)


def _stages(backbone: Swin) -> Iterable[_Found]:
    for s, (stage, stride) in enumerate(zip(backbone.stages, backbone.strides, strict=True)):
        assert isinstance(stage, SwinStage)
        for i, block in enumerate(stage.blocks):
            shifted = ", shifted" if i % 2 and stage.windows.shift else ""
            attention = block.attn
            assert isinstance(attention, WindowAttention)
            yield _Found(
                f"stage {s + 1}, block {i + 1}{shifted}",
                f"attn_{s}_{i}",
                attention,
                attention.heads,
                InWindows(stage, i, stride),
            )


def _of_task(model: Model) -> Iterable[_Found]:
    backbone = model.backbone
    match model.task:
        case Transcribe(decoder=decoder):
            memory = AtStride(Reading, backbone.strides[-1], prefix_names(backbone))
            yield from _decoder(decoder, memory, "attn_decoder")
        case Detect(detector=QueryDetector() as detector, config=config):
            assert isinstance(config.readout, QueryReadout)
            yield from _detector(detector, _maps_read(config.readout, backbone.strides))
        case Segment(segmenter=MatchedQuerySegmenter() as head, config=config):
            assert isinstance(config.readout, MatchedQueriesReadout)
            strides = backbone.strides if head.memory is None else (head.memory,)
            yield from _detector(head.detector, _maps_read(config.readout.detector, strides))
        case Segment(segmenter=ClassQuerySegmenter() as head):
            yield from _searching(head.decoder, OnMaps(backbone.strides[-1], (1.0,)))
        case Segment(segmenter=MaskTransformer() as head, config=config):
            names = (*config.classes,)
            place = AtStride(Whole, backbone.strides[-1], names)
            for i, block in enumerate(head.blocks):
                yield _among(block, f"decoder block {i + 1}", f"attn_decoder_{i}", place)
        case Segment(segmenter=EncoderOnlyMaskTransformer() as head):
            before = sum(1 for _ in _of_backbone(backbone))
            names = tuple(f"query {i + 1}" for i in range(head.queries.shape[1]))
            place = AtStride(Whole, backbone.strides[-1], (*names, *prefix_names(backbone)))
            for i, block in enumerate(head.blocks, start=before):
                yield _among(block, f"block {i + 1}, with queries", f"attn_{i}", place)
        case _:
            return


def _among(block: nn.Module, name: str, key: str, place: Place) -> _Found:
    """A block in which queries and patches stand side by side."""
    assert isinstance(block, Block)
    return _Found(name, key, block.attn, block.attn.heads, place)


def _maps_read(readout: QueryReadout, strides: Sequence[int]) -> OnMaps:
    """Where the maps of a detector's projector lie, given those that it projects."""
    projector = readout.projector
    if isinstance(projector, C2fProjectorConfig):
        return OnMaps(strides[len(strides) // 2], projector.scales)
    return OnMaps(strides[-1], (1.0,))


def _detector(detector: QueryDetector, maps: OnMaps) -> Iterable[_Found]:
    for i, layer in enumerate(detector.encoder.layers):
        assert isinstance(layer, CellLayer)
        own, place = layer.attn, AtStride(Whole, maps.stride)
        yield _Found(f"encoder layer {i + 1}", f"attn_encoder_{i}_self", own, own.heads, place)
    yield from _searching(detector.decoder, maps)


def _searching(decoder: QueryDecoder, maps: OnMaps) -> Iterable[_Found]:
    """Queries among themselves, and to the image."""
    for i, layer in enumerate(decoder.layers):
        assert isinstance(layer, QueryLayer)
        own, cross = layer.self_attn, layer.cross_attn
        name, key = f"decoder layer {i + 1}", f"attn_decoder_{i}"
        yield _Found(f"{name}, queries", f"{key}_self", own, own.heads, AmongQueries())
        yield _Found(f"{name}, image", f"{key}_cross", cross, cross.heads, maps)


def _encoder(blocks: nn.ModuleList) -> Iterable[_Found]:
    for i, block in enumerate(blocks):
        assert isinstance(block, EncoderBlock)
        key = f"attn_encoder_{i}_self"
        yield _Found(f"encoder block {i + 1}", key, block.attn, block.attn.heads, InText())


def _decoder(decoder: Decoder, memory: Place, key: str) -> Iterable[_Found]:
    for i, block in enumerate(decoder.blocks):
        assert isinstance(block, DecoderBlock)
        own, cross, name = block.attn, block.cross, f"decoder block {i + 1}"
        yield _Found(f"{name}, itself", f"{key}_{i}_self", own, own.heads, InText())
        yield _Found(f"{name}, memory", f"{key}_{i}_cross", cross, cross.heads, memory)
