"""Detection: which places of the image made each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.data.preprocess import Preprocess
from vitrail.errors import ExplainError
from vitrail.explain.capture import AttentionRecord, capture
from vitrail.explain.layers import AttentionLayer, OnMaps, attention_layers, choose_layers
from vitrail.explain.layout import OnImage, Query
from vitrail.model import Model, pixel_mask
from vitrail.tasks.detect import Detect, DetectConfig
from vitrail.tasks.detectors import TokenDetector
from vitrail.types import Batch, Detection, Grid, Sample


def threshold_of(model: Model) -> float:
    """Score from which on a detector's objects are named to people."""
    task = model.config.task
    assert isinstance(task, DetectConfig), "only a detector has one"
    return task.threshold


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """The objects of one image, the surest first, and where the query of each looked.

    Attributes:
        found: What the model says, as `postprocess` gives it.
        maps: For each object the attention of its query on each place.
        elsewhere: For each what went to tokens that are no places, or beyond the edge of the maps;
            with it a map sums to 1.
        stride: Pixels of the model's input from one place to the next.
        extent: Rows and columns of the model's input that show the image; the rest was filled up.
        error: How far these weights are from what the model used (`LayerAttention.error`).
    """

    found: Detection
    maps: Float[Tensor, "K h w"]
    elsewhere: Float[Tensor, " K"]
    stride: int
    extent: Grid
    error: float

    def on_image(self, number: int) -> Float[Tensor, "H W"]:
        """The map of one object on the pixels that show the image, smoothed."""
        rows, columns = self.maps.shape[1:]
        size = (rows * self.stride, columns * self.stride)
        cells = self.maps[number][None, None]
        pixels = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
        return pixels[0, 0, : self.extent[0], : self.extent[1]]


def find_objects(
    model: Model,
    batch: Batch,
    *,
    layers: Sequence[int] = (-1,),
    heads: Sequence[int] | None = None,
) -> list[FoundObjects]:
    """Find the objects of each image and show what the queries that found them looked at.

    That is the decoder's cross-attention (Carion et al. 2020, Fig. 6): of dense attention its
    weights, of deformable attention the bilinear weights of its samples on the cells of all maps.
    A detector without a decoder (YOLOS) has the rows of its tokens in the backbone instead.

    Args:
        model: A detector in evaluation mode.
        batch: Prepared images with their sizes, as `alone` or a loader gives them.
        layers: Layers of the decoder (of YOLOS: blocks) from 0, negative from the end; their mean
            is shown.
        heads: Heads of each; None for all. Their mean is shown.

    Raises:
        ExplainError: the model finds no objects, or has no such layer or head.
    """
    task = _insist_detector(model)
    chosen = choose_layers(searching_layers(model), layers)
    if not chosen:
        raise ExplainError("no layer was asked for: name one of the decoder's layers, or -1")
    device = next(model.parameters()).device
    images, indices = batch.images.to(device), [layer.index for layer in chosen]
    looking = capture(model, indices, heads=heads, queries=_rows(model))
    with torch.no_grad(), looking as record:
        output = model(images, pixel_mask(batch, device))
    answers = task.postprocess(output, batch.sizes)
    layout = record.layers[0].layout
    assert isinstance(layout, OnImage)
    weights = torch.stack([seen.weights.mean(dim=1) for seen in record.layers]).mean(dim=0)
    whole = (images.shape[2], images.shape[3])
    return [
        _one(answer, layout.lay(0, rows[list(_queries(answer))]), layout.stride, extent, record)
        for answer, rows, extent in zip(
            answers, weights, batch.extents or [whole] * len(images), strict=True
        )
    ]


def alone(preprocess: Preprocess, sample: Sample) -> Batch:
    """A batch of one, as prediction shows it to the model."""
    view = preprocess.view(sample)
    size = (sample.image.shape[1], sample.image.shape[2])
    extents = () if view.extent is None else (view.extent,)
    return Batch((sample.id,), view.image[None], (view.target,), sizes=(size,), extents=extents)


def searching_layers(model: Model) -> list[AttentionLayer]:
    """The layers in which a detector's queries look at the image, in their order.

    Raises:
        ExplainError: the model finds no objects.
    """
    if isinstance(_insist_detector(model).detector, TokenDetector):
        return list(attention_layers(model.backbone))
    return [layer for layer in attention_layers(model) if isinstance(layer.place, OnMaps)]


def count_words(labels: Iterable[str]) -> str:
    """`3 cat, 1 dog`: how many of each class, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(labels).most_common())


def _insist_detector(model: Model) -> Detect:
    if not isinstance(model.task, Detect):
        raise ExplainError(
            f"this model does {model.config.task.kind}: only a model that detects finds objects"
        )
    return model.task


def _rows(model: Model) -> list[Query] | None:
    """Rows of the queries; None where there are no others."""
    config = model.config.backbone
    if isinstance(_insist_detector(model).detector, TokenDetector):
        assert config.kind == "vit", "only a ViT has tokens that find objects"
        return [_token(query) for query in range(config.detection_tokens)]
    return None


def _token(query: int) -> str:
    """Name of a token that finds an object (`prefix_names`)."""
    return f"query {query + 1}"


def _queries(answer: object) -> tuple[int, ...]:
    assert isinstance(answer, Detection)
    return answer.queries


def _one(
    answer: object,
    maps: Float[Tensor, "K h w"],
    stride: int,
    extent: Grid,
    record: AttentionRecord,
) -> FoundObjects:
    assert isinstance(answer, Detection)
    elsewhere = (1 - maps.sum(dim=(1, 2))).clamp_min(0)
    return FoundObjects(answer, maps, elsewhere, stride, extent, record.max_error)
