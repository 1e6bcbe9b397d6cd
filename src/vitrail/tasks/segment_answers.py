"""From scores and masks to the regions that people are told of."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.masks import encode
from vitrail.tasks.placing import placed
from vitrail.types import Grid, Region, Segmentation

CHUNK = 16
"""Masks that are brought to the size of an image at once."""
HALF = 0.5
"""Votes of a background: more for a class than this are more than for none."""
WHOLE = 0.8
"""Share of a segment that must be left when surer ones have taken theirs (Cheng et al. 2021)."""


def pixel_answer(
    probabilities: Float[Tensor, "K H W"],
    classes: Sequence[str],
    *,
    background: bool,
    threshold: float | None,
) -> Segmentation:
    """Regions of classes from the probabilities of every pixel.

    Args:
        probabilities: Of each output, the background's first where there is one. Votes may be more
            than 1; a score is not.
        classes: Names of the others.
        background: Whether there is one.
        threshold: With one class, the probability from which on a pixel is of it; None takes the
            most probable output.
    """
    size = (probabilities.shape[1], probabilities.shape[2])
    if threshold is not None:
        p = probabilities[1].clamp_max(1.0)
        mask = p >= threshold
        levels = (p * 255).round().to(torch.uint8).numpy(force=True)
        confidence = zlib.compress(levels.tobytes(), level=1)
        return Segmentation(size, tuple(_class_regions(mask[None], p[None], classes)), confidence)
    best = probabilities.argmax(0)
    outputs = torch.arange(background, len(probabilities), device=best.device)
    masks = best[None] == outputs[:, None, None]
    return Segmentation(size, tuple(_class_regions(masks, probabilities[outputs], classes)))


def _class_regions(
    masks: Bool[Tensor, "C H W"], p: Float[Tensor, "C H W"], classes: Sequence[str]
) -> Iterator[Region]:
    for mask, own, name in zip(masks, p, classes, strict=True):
        if bool(mask.any()):
            score = float(own[mask].clamp_max(1.0).mean(dtype=torch.float64))
            yield Region(name, score, encode(mask.numpy(force=True)))


@dataclass(frozen=True, slots=True)
class Queries:
    """What the queries of a model say of one image.

    Attributes:
        scores: Probability of each class, "no segment" left away.
        masks: Logits at each cell.
        stride: Pixels of the view a cell.
        size: Height and width of the image.
        extent: Rows and columns of the view that show it.
        edge: Probability from which on a pixel belongs to a query.
    """

    scores: Float[Tensor, "Q C"]
    masks: Float[Tensor, "Q h w"]
    stride: int
    size: Grid
    extent: Grid
    edge: float = 0.5

    def at(self, queries: Sequence[int]) -> Iterator[tuple[int, Float[Tensor, "H W"]]]:
        """Probabilities of masks at every pixel of the image, some at a time."""
        for start in range(0, len(queries), CHUNK):
            part = list(queries[start : start + CHUNK])
            maps = placed(self.masks[part], self.stride, self.size, self.extent)
            yield from zip(part, maps.sigmoid(), strict=True)


def semantic_answer(
    found: Queries, classes: Sequence[str], *, background: bool, threshold: float | None
) -> Segmentation:
    """Every pixel takes the class that its queries speak for most (Cheng et al. 2021, 3.4).

    Args:
        found: What queries say.
        classes: Names.
        background: Whether a pixel may be of none: it is where all classes have few votes.
        threshold: As in `pixel_answer`.
    """
    votes = found.scores.new_zeros(found.scores.shape[1], *found.size)
    for query, mask in found.at(range(len(found.scores))):
        votes += found.scores[query][:, None, None] * mask
    return vote_answer(votes, classes, background=background, threshold=threshold)


def vote_answer(
    votes: Float[Tensor, "C H W"],
    classes: Sequence[str],
    *,
    background: bool,
    threshold: float | None,
) -> Segmentation:
    """Every pixel takes the class with the most votes; a background has half a vote.

    Args:
        votes: Of all queries, for each class.
        classes: Names.
        background: As in `pixel_answer`.
        threshold: As in `pixel_answer`.
    """
    if background:
        votes = torch.cat([votes.new_full((1, *votes.shape[1:]), HALF), votes])
    return pixel_answer(votes, classes, background=background, threshold=threshold)


def instance_answer(
    found: Queries, classes: Sequence[str], *, most: int, min_area: int
) -> Segmentation:
    """The surest objects; a query may stand for several classes.

    An object's score is that of its class times the mean probability of its pixels.
    """
    C = found.scores.shape[1]
    top = found.scores.flatten().topk(min(most, found.scores.numel()))
    pairs = [(index // C, index % C) for index in _numbers(top.indices)]
    masks = dict(_kept(found, sorted({query for query, _ in pairs}), min_area))
    regions = [
        Region(classes[label], float(found.scores[query, label]) * masks[query][1], rle, query)
        for query, label in pairs
        if query in masks
        for rle in (masks[query][0],)
    ]
    return Segmentation(found.size, tuple(sorted(regions, key=lambda one: -one.score)))


def _kept(
    found: Queries, queries: Sequence[int], min_area: int
) -> Iterator[tuple[int, tuple[bytes, float]]]:
    """Pixels of each query, and how sure it is of them; none of specks."""
    for query, p in found.at(queries):
        mask = p > found.edge
        area = int(mask.sum())
        if area >= max(min_area, 1):
            yield query, (encode(mask.numpy(force=True)), float(p[mask].mean()))


def panoptic_answer(
    found: Queries,
    classes: Sequence[str],
    things: Sequence[bool],
    *,
    threshold: float,
    min_area: int,
) -> Segmentation:
    """Every pixel goes to one of the sure queries at most; stuff of one class is one region."""
    scores, labels = found.scores.max(1)
    sure = [
        query for query in _numbers(scores.argsort(descending=True)) if scores[query] >= threshold
    ]
    best = found.scores.new_zeros(found.size)
    owner = torch.full(found.size, -1, dtype=torch.int32, device=best.device)
    whole: dict[int, int] = {}
    for query, p in found.at(sure):
        whole[query] = int((p > found.edge).sum())
        share = p * scores[query]
        mine = share > best
        owner[mine & (p > found.edge)] = query
        owner[mine & (p <= found.edge)] = -1
        best = torch.maximum(best, share)
    parts: dict[tuple[int, int], Tensor] = {}
    weights: dict[tuple[int, int], float] = {}
    for query in sure:
        mask = owner == query
        area = int(mask.sum())
        if area < max(min_area, 1) or area < WHOLE * whole[query]:
            continue
        label = int(labels[query])
        key = (label, query if things[label] else -1)
        parts[key] = mask | parts[key] if key in parts else mask
        weights[key] = max(weights.get(key, 0.0), float(scores[query]))
    regions = [
        Region(
            classes[label],
            weights[label, query],
            encode(mask.numpy(force=True)),
            query if query >= 0 else None,
        )
        for (label, query), mask in parts.items()
    ]
    return Segmentation(found.size, tuple(regions))


def _numbers(tensor: Tensor) -> list[int]:
    numbers: list[Any] = tensor.numpy(force=True).tolist()
    return numbers
