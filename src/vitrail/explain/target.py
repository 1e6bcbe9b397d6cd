"""What is asked about: a class of an image, or a region of an answer. One number an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.tasks.classify import Classify
from vitrail.tasks.placing import placed
from vitrail.tasks.segment import Segment
from vitrail.tasks.task import Task
from vitrail.types import Features, MaskQueries, PixelLogits


@dataclass(frozen=True, slots=True)
class RegionTarget:
    """A region of a segmenter's answer.

    Attributes:
        mask: Its pixels, on the model's input.
        shares: How much each map of the output has to do with it; they sum to 1. Of a class told
            pixel by pixel and of a query that is one map. A class that several queries voted for
            has the share of the votes that each gave in the region.
    """

    mask: Bool[Tensor, "H W"]
    shares: Float[Tensor, " C"]


Target = int | RegionTarget
"""A class by its number, or a region."""


def logit(output: Any, targets: Sequence[Target], task: Task[Any, Any]) -> Float[Tensor, " B"]:
    """The logit of the class; of a region, the mean logit of its pixels.

    Args:
        output: Raw output of the task.
        targets: One an image.
        task: A classifier or a segmenter.
    """
    if isinstance(task, Segment):
        rows = zip(_maps(output), _regions(targets), strict=True)
        return torch.stack([_mean(_share(maps, one), one, task) for maps, one in rows])
    chosen = torch.tensor(_classes(targets), device=output.device)
    return output[torch.arange(len(output)), chosen]


def log_odds(output: Any, targets: Sequence[Target], task: Task[Any, Any]) -> Float[Tensor, " B"]:
    """log(p / (1 - p)): what speaks for the class rather than for any other.

    p is at temperature 1. Where an image may have several labels that is the logit itself, and so
    it is of the mask of a query. Of a region it is the mean over its pixels.
    """
    match task:
        case Segment():
            if isinstance(output, PixelLogits):
                output = PixelLogits(_against_others(task.scores(output.logits), task))
            return logit(output, targets, task)
        case Classify():
            chosen = logit(output, targets, task)
            if task.config.multilabel or output.shape[1] == 1:
                return chosen
            one = torch.tensor(_classes(targets), device=output.device)[:, None]
            return chosen - output.scatter(1, one, -torch.inf).logsumexp(dim=1)
        case _:
            raise AssertionError("neither classes nor regions")


def probability(
    output: Any, targets: Sequence[Target], task: Task[Any, Any]
) -> Float[Tensor, " B"]:
    """Of the class at the model's temperature; of a region, the mean over its pixels."""
    match task:
        case Segment():
            if isinstance(output, PixelLogits):
                scores = task.scores(output.logits.float()).softmax(1)
                maps = scores[:, -output.logits.shape[1] :]
            else:
                maps = _maps(output).float().sigmoid()
            rows = zip(maps, _regions(targets), strict=True)
            return torch.stack([_mean(_share(own, one), one, task) for own, one in rows])
        case Classify():
            rows = task.probabilities(output)
            chosen = torch.tensor(_classes(targets), device=rows.device)
            return rows.gather(1, chosen[:, None])[:, 0]
        case _:
            raise AssertionError("neither classes nor regions")


def through_tokens(features: Features, prefix: int, images: Float[Tensor, "B 3 H W"]) -> Features:
    """Features whose last map is laid out from the tokens, so that gradients pass through these.

    Args:
        features: Of a backbone.
        prefix: Tokens that are no places.
        images: Normalised; heads that look at details have them from here.
    """
    last = features.maps[-1]
    laid: Tensor = features.tokens[:, prefix:].mT.reshape(last.shape)
    return replace(features, maps=(*features.maps[:-1], laid), images=images)


def _against_others(scores: Float[Tensor, "B K h w"], task: Segment) -> Float[Tensor, "B C h w"]:
    """Log-odds of each class but the background."""
    first = scores.shape[1] - len(task.config.classes)
    found: list[Tensor] = []
    for k in range(first, scores.shape[1]):
        others = torch.cat([scores[:, :k], scores[:, k + 1 :]], dim=1)
        found.append(scores[:, k] - others.logsumexp(dim=1))
    return torch.stack(found, dim=1)


def _share(maps: Float[Tensor, "C h w"], target: RegionTarget) -> Float[Tensor, "1 h w"]:
    shares = target.shares.to(maps)
    own = shares.nonzero()[:, 0]
    return (shares[own, None, None] * maps[own]).sum(dim=0, keepdim=True)


def _mean(cells: Float[Tensor, "1 h w"], target: RegionTarget, task: Segment) -> Float[Tensor, ""]:
    """Over the pixels of the region, brought there as answers are."""
    size = (target.mask.shape[0], target.mask.shape[1])
    pixels = placed(cells, task.segmenter.stride, size, size)[0]
    return pixels[target.mask.to(pixels.device)].mean()


def _maps(output: PixelLogits | MaskQueries) -> Float[Tensor, "B C _h _w"]:
    return output.logits if isinstance(output, PixelLogits) else output.masks


def _regions(targets: Sequence[Target]) -> Sequence[RegionTarget]:
    assert all(isinstance(one, RegionTarget) for one in targets), "a segmenter is asked of regions"
    return cast("Sequence[RegionTarget]", targets)


def _classes(targets: Sequence[Target]) -> Sequence[int]:
    assert all(isinstance(one, int) for one in targets), "a classifier is asked of classes"
    return cast("Sequence[int]", targets)
