"""Large images in overlapping tiles, blended without seams.

A model with `Tiles` or `Windows` for its resize rule was made for tiles: what it answers for an
image is what its tiles say together. A Transformer looks everywhere in a tile, so that the whole
image at once would give another answer, from a scene and from positions that it has never learned;
only a network whose reach is short gives the same, away from borders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vitrail.data.tiles import Tiles, Windows
from vitrail.mask_merge import Tile, merge_objects
from vitrail.model import Model, pixel_mask
from vitrail.nn.pixel_decoder import magnified
from vitrail.tasks.placing import placed
from vitrail.tasks.segment import Segment
from vitrail.types import Batch, Grid, MaskQueries, PixelLogits, Prediction, Segmentation

BATCH = 8
"""Tiles a forward pass."""
LEAST_WEIGHT = 1e-6
"""What a pixel at the border of a tile counts, where no other tile shows it better."""


class _Place(NamedTuple):
    """A tile and how much it counts, row by row and column by column."""

    top: int
    left: int
    rows: Float[Tensor, "h"]
    columns: Float[Tensor, "w"]


def tiled(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    rule: Tiles | Windows,
    *,
    mask: Bool[Tensor, "H W"] | None = None,
    batch: int = BATCH,
) -> Float[Tensor, "C H W"]:
    """What all tiles of a prepared image say of the classes at every pixel.

    What a tile says fades out towards its borders, where it has seen least of the surroundings;
    windows count alike wherever they overlap. The weights sum to 1 at each pixel. Logits are
    blended, not probabilities: a background stays at 0, nothing is lost where a model is sure, and
    it is what sliding windows do elsewhere (Segmenter, mmsegmentation, nnU-Net). Queries are
    blended as their votes, which `Segment.of_votes` takes.

    Beside the result, which lies in the main memory, only one batch of tiles is held.

    Args:
        model: A segmenter that answers semantically, on any device.
        image: As `Preprocess` gives it, at least as large as a tile.
        rule: Size and places of tiles.
        mask: True where a pixel shows the image, False where it was filled up.
        batch: Tiles a forward pass.
    """
    task = model.task
    assert isinstance(task, Segment), "a segmenter"
    total: Tensor | None = None
    for places, output in _outputs(model, image, rule, mask, batch):
        for place, own in zip(places, _scores(task, output, rule.size), strict=True):
            if total is None:
                total = torch.zeros((len(own), *image.shape[1:]))
            _cut(total, place, rule.size).add_(own.cpu() * place.rows[:, None] * place.columns)
    assert total is not None, "an image has at least one tile"
    return total


def tiled_answers(model: Model, batch: Batch, *, tiles: int = BATCH) -> list[Prediction]:
    """One answer an image, in the pixels of the original.

    Args:
        model: A segmenter whose resize rule is `Tiles` or `Windows`, in evaluation mode.
        batch: Prepared images.
        tiles: Tiles a forward pass.
    """
    task, rule = model.task, model.config.preprocess.resize
    assert isinstance(task, Segment), "a segmenter"
    assert isinstance(rule, Tiles | Windows), "a model made for tiles"
    device = next(model.parameters()).device
    masks = pixel_mask(batch, torch.device("cpu"))
    whole = batch.images.shape[2], batch.images.shape[3]
    extents = batch.extents or (whole,) * len(batch.ids)
    if whole == rule.size and isinstance(rule, Tiles):
        shown = None if masks is None else masks.to(device)
        with torch.inference_mode():
            output = model(batch.images.to(device), shown)
        return task.postprocess(output, batch.sizes, extents)
    answers: list[Prediction] = []
    for i, (size, extent) in enumerate(zip(batch.sizes, extents, strict=True)):
        image, mask = batch.images[i], None if masks is None else masks[i]
        if task.config.answer == "semantic":
            scores = tiled(model, image, rule, mask=mask, batch=tiles)
            scores = placed(scores[:, : extent[0], : extent[1]], 1, size, extent)
            matched = task.segmenter.matched
            answers.append(task.of_votes(scores) if matched else task.of_pixels(scores))
        else:
            found = list(_objects(model, image, rule, mask, extent, tiles))
            answers.append(merge_objects(found, extent, size, task.config))
    return answers


def _outputs(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    rule: Tiles | Windows,
    mask: Bool[Tensor, "H W"] | None,
    batch: int,
) -> Iterator[tuple[Sequence[_Place], PixelLogits | MaskQueries]]:
    """What the model gives for some tiles after others."""
    device = next(model.parameters()).device
    places = _places((image.shape[1], image.shape[2]), rule)
    for start in range(0, len(places), batch):
        part = places[start : start + batch]
        images = torch.stack([_cut(image, place, rule.size) for place in part])
        masks = None
        if mask is not None:
            masks = torch.stack([_cut(mask, place, rule.size) for place in part]).to(device)
        with torch.inference_mode():
            output = model(images.to(device), masks)
        yield part, output


def _cut(pixels: Tensor, place: _Place, size: Grid) -> Tensor:
    return pixels[..., place.top : place.top + size[0], place.left : place.left + size[1]]


def _places(size: Grid, rule: Tiles | Windows) -> list[_Place]:
    """All tiles of a prepared image, row by row."""
    weights = _equal if isinstance(rule, Windows) else _faded
    rows, columns = (
        list(zip(starts, weights(starts, length, side), strict=True))
        for starts, length, side in zip(rule.starts(*size), size, rule.size, strict=True)
    )
    return [_Place(top, left, down, across) for top, down in rows for left, across in columns]


def _equal(starts: list[int], length: int, side: int) -> list[Tensor]:
    """How much each window counts along one axis: as much as the others that show a pixel."""
    total = torch.zeros(length)
    for start in starts:
        total[start : start + side] += 1
    return [1 / total[start : start + side] for start in starts]


def _faded(starts: list[int], length: int, side: int) -> list[Tensor]:
    """How much each tile counts along one axis.

    Next to nothing in the outer quarter of what two tiles share, where a tile lacks the
    surroundings, then a raised cosine. They sum to 1 at each pixel, so that no sum of weights has
    to be kept for a whole image: those of tiles are products of two such lines.
    """
    steps = [after - before for before, after in itertools.pairwise(starts)]
    shared = side - max(steps, default=side)
    near = torch.arange(side, dtype=torch.float64) + 0.5
    near = torch.minimum(near, side - near) / max(1.0, min(shared, side / 2))
    angle = ((near - 0.25) * 2).clamp(0, 1) * (math.pi / 2)
    ramp = torch.sin(angle).square().clamp_min(LEAST_WEIGHT)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + side] += ramp
    return [(ramp / total[start : start + side]).float() for start in starts]


def _scores(
    task: Segment, output: PixelLogits | MaskQueries, size: Grid
) -> Float[Tensor, "n C h w"]:
    """What each tile says of the classes at each of its pixels."""
    stride = task.segmenter.stride
    if isinstance(output, PixelLogits):
        return magnified(output.logits.float(), stride, 1, size)
    softmax = output.logits.shape[-1] > len(task.config.classes)
    logits = output.logits.float()
    scores = logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()
    votes = [
        torch.einsum("qc,qhw->chw", own, placed(masks.float(), stride, size, size).sigmoid())
        for own, masks in zip(scores, output.masks, strict=True)
    ]
    return torch.stack(votes)


def _objects(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    rule: Tiles | Windows,
    mask: Bool[Tensor, "H W"] | None,
    extent: Grid,
    batch: int,
) -> Iterator[Tile]:
    """What the model finds in each tile."""
    # The image is filled up only along an axis where one tile shows all of it.
    shown = min(rule.size[0], extent[0]), min(rule.size[1], extent[1])
    for places, output in _outputs(model, image, rule, mask, batch):
        sizes = [shown] * len(places)
        answers: list[Any] = model.task.postprocess(output, sizes, sizes)
        for place, answer in zip(places, cast("list[Segmentation]", answers), strict=True):
            yield Tile(place.top, place.left, answer)
