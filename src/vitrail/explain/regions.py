"""Segmentation: which places of the image made each region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail import masks
from vitrail.errors import ExplainError
from vitrail.explain.capture import AttentionRecord, capture
from vitrail.explain.layers import AttentionLayer, OnMaps, attention_layers, choose_layers
from vitrail.explain.layout import OnImage
from vitrail.explain.target import RegionTarget
from vitrail.model import Model
from vitrail.tasks.joint_segmenters import EncoderOnlyMaskTransformer, MaskTransformer
from vitrail.tasks.placing import placed
from vitrail.tasks.segment import Segment
from vitrail.tasks.segmenters import ClassQuerySegmenter, MatchedQuerySegmenter
from vitrail.types import Grid, MaskQueries, PixelLogits, Region, Segmentation

FAINT = 0.5
"""Where there is no region, the nearest is where a class has this part of its peak."""


@dataclass(frozen=True, slots=True)
class RegionAttention:
    """Where the query of each region looked.

    Attributes:
        maps: Attention of the query on each place; where several queries voted, by their shares.
        elsewhere: What went to tokens that are no places, other queries among them; with it a map
            sums to 1.
        stride: Pixels of the model's input from one place to the next.
        error: How far these weights are from what the model used (`LayerAttention.error`).
    """

    maps: Float[Tensor, "K h w"]
    elsewhere: Float[Tensor, " K"]
    stride: int
    error: float


@dataclass(frozen=True, slots=True)
class FoundRegions:
    """The regions of one image, as what can be asked about.

    Attributes:
        found: Those that were asked for, on the pixels of the model's input.
        targets: Each as a target of a method.
        attention: Where their queries looked; None where a model has none.
        nearest: Whether the model told no such region, and `found` is where it came nearest.
    """

    found: Segmentation
    targets: tuple[RegionTarget, ...]
    attention: RegionAttention | None
    nearest: bool

    def only(self, kept: Sequence[int]) -> FoundRegions:
        """Some of them, by number."""
        regions = tuple(self.found.regions[i] for i in kept)
        attention = self.attention
        if attention is not None:
            rows = list(kept)
            attention = replace(
                attention, maps=attention.maps[rows], elsewhere=attention.elsewhere[rows]
            )
        targets = tuple(self.targets[i] for i in kept)
        return FoundRegions(replace(self.found, regions=regions), targets, attention, self.nearest)


@torch.no_grad()
def find_regions(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    *,
    about: str | None = None,
    layers: Sequence[int] = (-1,),
    heads: Sequence[int] | None = None,
) -> FoundRegions:
    """Find the regions of an image and show what the queries that told them looked at.

    Class queries and matched queries have the cross-attention of a decoder, the queries of
    Segmenter and EoMT the rows of blocks that they share with the patches; a linear head has none.
    Where the answer has no region, the class that comes nearest is shown where it does.

    Args:
        model: A segmenter in evaluation mode.
        image: Prepared, and not filled up.
        about: Regions of this class alone; None for all.
        layers: Layers in which queries look, from 0, negative from the end; their mean is shown.
        heads: Heads of each; None for all. Their mean is shown.

    Raises:
        ExplainError: the model tells no regions, or has no such class, layer or head.
    """
    task = insist_segmenter(model)
    classes = task.config.classes
    if about is not None and about not in classes:
        raise ExplainError(f"unknown class '{about}'; there are {', '.join(classes[:10])}")
    known, size = reading_layers(model), (image.shape[1], image.shape[2])
    record = AttentionRecord()
    if known:
        if not layers:
            raise ExplainError("no layer was asked for: name one in which queries look, or -1")
        indices = [layer.index for layer in choose_layers(known, layers)]
        with capture(model, indices, heads=heads, queries=_rows(task)) as record:
            output = model(image[None])
    else:
        output = model(image[None])
    (answer,) = task.postprocess(output, [size], [size])
    assert isinstance(answer, Segmentation)
    regions = [one for one in answer.regions if about in (None, one.label)]
    nearest = not regions
    if nearest:
        wanted = range(len(classes)) if about is None else [classes.index(about)]
        regions = [_nearest(output, wanted, task, size)]
    targets = tuple(_target(output, region, task, size) for region in regions)
    attention = _attention(record, targets) if record.layers else None
    return FoundRegions(Segmentation(size, tuple(regions)), targets, attention, nearest)


def reading_layers(model: Model) -> list[AttentionLayer]:
    """The layers in which a segmenter's queries look at the image, in their order.

    Raises:
        ExplainError: the model tells no regions.
    """
    task = insist_segmenter(model)
    own = list(attention_layers(model))[len(attention_layers(model.backbone)) :]
    match task.segmenter:
        case ClassQuerySegmenter() | MatchedQuerySegmenter():
            return [layer for layer in own if isinstance(layer.place, OnMaps)]
        case MaskTransformer() | EncoderOnlyMaskTransformer():
            return own
        case _:
            return []


def insist_segmenter(model: Model) -> Segment:
    """Its task.

    Raises:
        ExplainError: the model tells no regions.
    """
    if not isinstance(model.task, Segment):
        raise ExplainError(
            f"this model does {model.config.task.kind}: only a model that segments has regions"
        )
    return model.task


def _rows(task: Segment) -> list[int] | None:
    """Rows of the queries; None where there are no others."""
    match task.segmenter:
        case MaskTransformer(queries=queries) | EncoderOnlyMaskTransformer(queries=queries):
            return list(range(queries.shape[1]))
        case _:
            return None


def _target(
    output: PixelLogits | MaskQueries, region: Region, task: Segment, size: Grid
) -> RegionTarget:
    mask = torch.from_numpy(masks.decode(region.rle, size))  # pyright: ignore[reportUnknownMemberType]
    label = task.config.classes.index(region.label)
    match output:
        case PixelLogits(logits=logits):
            return RegionTarget(mask, _only(label, like=logits[0, :, 0, 0]))
        case MaskQueries(masks=maps):
            if region.query is not None:
                return RegionTarget(mask, _only(region.query, like=maps[0, :, 0, 0]))
            votes = _scores(output, task)[:, label]
            inside = mask.to(maps.device)
            for query, p in _placed(output, task, size):
                votes[query] *= p[inside].mean()
            return RegionTarget(mask, votes / votes.sum())


def _only(index: int, *, like: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    shares = torch.zeros_like(like, dtype=torch.float32)
    shares[index] = 1
    return shares


def _scores(output: MaskQueries, task: Segment) -> Float[Tensor, "Q C"]:
    """Probability of each class, as answers have it."""
    logits = output.logits[0].float()
    if logits.shape[1] > len(task.config.classes):
        return logits.softmax(-1)[:, :-1].clone()
    return logits.sigmoid()


def _placed(
    output: MaskQueries, task: Segment, size: Grid
) -> Iterator[tuple[int, Float[Tensor, "H W"]]]:
    """Probability of each query's mask at every pixel, one by one."""
    for query, own in enumerate(output.masks[0].float()):
        yield query, placed(own[None], task.segmenter.stride, size, size)[0].sigmoid()


def _nearest(
    output: PixelLogits | MaskQueries, wanted: Sequence[int], task: Segment, size: Grid
) -> Region:
    """Where one of the classes is most probable."""
    match output:
        case PixelLogits(logits=logits):
            cells = placed(logits[0].float(), task.segmenter.stride, size, size)
            p = task.scores(cells).softmax(0)[-len(cells) :]
            label = max(wanted, key=lambda one: float(p[one].max()))
            query, found = None, p[label]
        case MaskQueries():
            scores = _scores(output, task)[:, list(wanted)]
            peaks = torch.stack([p.max() for _, p in _placed(output, task, size)])
            query, place = divmod(int((scores * peaks[:, None]).argmax()), scores.shape[1])
            label, own = wanted[place], output.masks[0, query].float()
            p = placed(own[None], task.segmenter.stride, size, size)[0].sigmoid()
            found = p * scores[query, place]
    peak = float(found.max())
    inside = (found >= FAINT * peak).numpy(force=True)
    return Region(task.config.classes[label], peak, masks.encode(inside), query)


def _attention(record: AttentionRecord, targets: Sequence[RegionTarget]) -> RegionAttention:
    layout = record.layers[0].layout
    assert isinstance(layout, OnImage)
    weights = torch.stack([seen.weights[0].mean(dim=0) for seen in record.layers]).mean(dim=0)
    shares = torch.stack([one.shares for one in targets]).to(weights)
    maps = layout.lay(0, shares @ weights)
    elsewhere = (1 - maps.sum(dim=(1, 2))).clamp_min(0)
    return RegionAttention(maps, elsewhere, layout.stride, record.max_error)
