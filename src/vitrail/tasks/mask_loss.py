"""What queries with masks cost: each answers for the segment that it is matched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitrail.tasks.detect_loss import NO_OBJECT, layer_loss
from vitrail.tasks.matching import Matches, Truth, assign
from vitrail.tasks.segmenters import boxed_masks
from vitrail.types import MaskQueries, MaskVectors

MASK_WEIGHT, DICE_WEIGHT = 5.0, 5.0
"""Of the masks of queries without boxes (Cheng et al. 2022, Mask2Former)."""
CLASS_WEIGHT = 2.0
"""Of their classes (the same)."""
FOREGROUND_WEIGHT = 8.0
"""Of what all masks share: edges come out better with it than with 2, and no worse than with 25."""
BOXED_MASK_WEIGHT, BOXED_DICE_WEIGHT = 1.0, 2.0
"""Of the masks of queries that have boxes too, beside the weights of boxes and classes."""


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """The segments of one view as a loss takes them.

    Attributes:
        truth: Classes and boxes; boxes are shares of what shows the image.
        masks: Pixels of each segment.
        judged: Where somebody knows what is there.
    """

    truth: Truth
    masks: Bool[Tensor, "T H W"]
    judged: Bool[Tensor, "H W"]


def boxed_loss(
    output: MaskVectors,
    truths: Sequence[MaskTruth],
    *,
    groups: int,
    stride: int,
) -> Float[Tensor, "B"]:
    """Classes, boxes and masks of all layers, one loss an image.

    Args:
        output: Of a model in training, with `groups` groups of queries side by side.
        truths: The segments of each view.
        groups: Groups of queries.
        stride: Pixels a cell of the embedding.
    """
    told = [one.truth for one in truths]
    total = output.pixels.new_zeros(len(truths), dtype=torch.float32)
    pairs: list[Matches] = []
    for found in output.found:
        losses, matched = layer_loss(found, told, groups, softmax=False)
        total = total + losses
        pairs.append(matched)
    # Image by image: a slice of a batch would have a gradient of the size of the whole batch.
    vectors = torch.stack(output.vectors, dim=1).float().unbind()
    boxes = torch.stack(output.places, dim=1).float().unbind()
    pixels, foreground = output.pixels.float().unbind(), output.foreground.float().unbind()
    costs: list[Tensor] = []
    for image, truth in enumerate(truths):
        layers, queries, objects = _pairs_of(image, pairs)
        masks = boxed_masks(
            vectors[image][layers, queries][None],
            boxes[image][layers, queries][None],
            pixels[image][None],
        )[0]
        wanted, judged = _shares(truth, stride)
        entropy, overlap = _mask_costs(masks + foreground[image], wanted[objects], judged)
        costs.append((BOXED_MASK_WEIGHT * entropy + BOXED_DICE_WEIGHT * overlap).sum())
    total = total + torch.stack(costs)
    if output.proposals is not None:
        total = total + layer_loss(output.proposals, told, groups, softmax=False)[0]
    return total * len(truths) / (max(sum(len(one.labels) for one in told), 1) * groups)


def _pairs_of(image: int, pairs: Sequence[Matches]) -> tuple[Tensor, Tensor, Tensor]:
    """Layer, query and object of each pair of one image, of all layers."""
    own = [layer.images == image for layer in pairs]
    queries = [layer.queries[mine] for layer, mine in zip(pairs, own, strict=True)]
    objects = [layer.objects[mine] for layer, mine in zip(pairs, own, strict=True)]
    layers = [torch.full_like(each, number) for number, each in enumerate(queries)]
    return torch.cat(layers), torch.cat(queries), torch.cat(objects)


def foreground_loss(
    foreground: Float[Tensor, "B 1 h w"], truths: Sequence[MaskTruth], *, stride: int
) -> Float[Tensor, "B"]:
    """Cross-entropy and 1 - Dice of all segments of an image together.

    Args:
        foreground: Logit of each cell to be of any segment.
        truths: The segments of each view.
        stride: Pixels a cell.
    """
    costs: list[Tensor] = []
    for own, truth in zip(foreground[:, 0].float(), truths, strict=True):
        masks, judged = _shares(truth, stride)
        wanted = masks.sum(0).clamp_max(1.0)
        entropy = F.binary_cross_entropy_with_logits(own, wanted, reduction="none") * judged
        p, true = own.sigmoid(), wanted * judged
        overlap = (2 * (p * true).sum() + 1) / ((p * judged).sum() + true.sum() + 1)
        costs.append(entropy.sum() / judged.sum().clamp_min(1) + 1 - overlap)
    return FOREGROUND_WEIGHT * torch.stack(costs)


def query_loss(
    output: MaskQueries, truths: Sequence[MaskTruth], *, stride: int
) -> Float[Tensor, "B"]:
    """Classes and masks of all layers of queries without boxes (Mask2Former), one loss an image.

    Args:
        output: With "no segment" as the last class.
        truths: The segments of each view.
        stride: Pixels a cell of the masks.
    """
    shares = [_shares(one, stride) for one in truths]
    count = max(sum(len(one.truth.labels) for one in truths), 1)
    total = output.logits.new_zeros(len(truths), dtype=torch.float32)
    for layer in (*output.earlier, output):
        each = [
            _image_loss(layer.logits[i].float(), layer.masks[i].float(), one.truth, *shares[i])
            for i, one in enumerate(truths)
        ]
        # Classes are a mean over the queries of the batch, masks a mean over its segments.
        weight = sum(float(classes[1]) for classes, _ in each)
        total = total + torch.stack(
            [
                CLASS_WEIGHT * classes[0] * len(truths) / weight + masks * len(truths) / count
                for classes, masks in each
            ]
        )
    return total


def _image_loss(
    logits: Float[Tensor, "Q C"],
    masks: Float[Tensor, "Q h w"],
    truth: Truth,
    wanted: Float[Tensor, "T h w"],
    judged: Float[Tensor, "h w"],
) -> tuple[tuple[Tensor, float], Tensor]:
    """Sum of the classes' costs and of their weights; sum of the masks' costs."""
    masks = masks[:, : judged.shape[0], : judged.shape[1]]  # a view may end within a patch
    queries, objects = _matched(logits, masks, truth, wanted, judged)
    nothing = logits.shape[1] - 1
    labels = torch.full((len(logits),), nothing, device=logits.device)
    labels[queries] = truth.labels[objects]
    weights = logits.new_ones(nothing + 1)
    weights[nothing] = NO_OBJECT
    classes = F.cross_entropy(logits, labels, weights, reduction="sum")
    cost = _mask_costs(masks[queries], wanted[objects], judged)
    own = MASK_WEIGHT * cost[0].sum() + DICE_WEIGHT * cost[1].sum()
    return (classes, float(weights[labels].sum())), own


@torch.no_grad()
def _matched(
    logits: Float[Tensor, "Q C"],
    masks: Float[Tensor, "Q h w"],
    truth: Truth,
    wanted: Float[Tensor, "T h w"],
    judged: Float[Tensor, "h w"],
) -> tuple[Tensor, Tensor]:
    """Queries and segments, one each, at the least cost in all."""
    flat, true = masks.flatten(1), (wanted * judged).flatten(1)
    seen = judged.flatten()
    pixels = seen.sum().clamp_min(1)
    entropy = (F.softplus(-flat) @ true.T + F.softplus(flat) @ (seen - true).T) / pixels
    p = flat.sigmoid()
    overlap = (2 * (p @ true.T) + 1) / ((p @ seen)[:, None] + true.sum(1)[None] + 1)
    classes = -logits.softmax(-1)[:, truth.labels]
    costs = CLASS_WEIGHT * classes + MASK_WEIGHT * entropy + DICE_WEIGHT * (1 - overlap)
    rows, columns = assign(cast("NDArray[np.float32]", costs.numpy(force=True)))
    return tuple(  # pyright: ignore[reportReturnType]
        torch.tensor(found, dtype=torch.long, device=logits.device) for found in (rows, columns)
    )


def _mask_costs(
    masks: Float[Tensor, "M h w"], wanted: Float[Tensor, "M h w"], judged: Float[Tensor, "h w"]
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"]]:
    """Cross-entropy of each mask, for as many pixels as its segment has twice, and 1 - Dice."""
    seen, true = judged.flatten(), (wanted * judged).flatten(1)
    flat, area = masks.flatten(1), true.sum(1)
    # Cross-entropy of a logit x with a share y is softplus(x) - x * y.
    entropy = F.softplus(flat) @ seen - (flat * true).sum(1)
    p = flat.sigmoid()
    overlap = (2 * (p * true).sum(1) + 1) / (p @ seen + area + 1)
    return entropy / (2 * area + 1), 1 - overlap


def _shares(truth: MaskTruth, stride: int) -> tuple[Float[Tensor, "T h w"], Float[Tensor, "h w"]]:
    """The share of what is judged of each cell that a segment covers, and the share judged."""
    both = torch.cat([truth.masks & truth.judged, truth.judged[None]]).float()[None]
    if stride > 1:
        both = F.avg_pool2d(both, stride, ceil_mode=True, count_include_pad=False)
    covered, judged = both[0, :-1], both[0, -1]
    return covered / judged.clamp_min(1e-6), judged
