"""Segmentation: the class of every pixel, or every object with its own mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from vitrail.config import Config
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError
from vitrail.metrics.segmentation import SegmentationMetrics, segmentation_metrics
from vitrail.nn.pixel_decoder import magnified
from vitrail.tasks.classify import class_index
from vitrail.tasks.mask_loss import MaskTruth, boxed_loss, foreground_loss, query_loss
from vitrail.tasks.placing import placed
from vitrail.tasks.segment_answers import (
    Queries,
    instance_answer,
    panoptic_answer,
    pixel_answer,
    semantic_answer,
    vote_answer,
)
from vitrail.tasks.segment_loss import PixelLossConfig, PixelTruth, pixel_loss
from vitrail.tasks.segment_targets import Relabelled, mask_truths, pixel_truth
from vitrail.tasks.segmenters import (
    ClassQueriesReadout,
    MatchedReadout,
    SegmentReadout,
    build_segmenter,
)
from vitrail.tasks.task import Task
from vitrail.types import (
    Features,
    Grid,
    MaskQueries,
    MaskVectors,
    PixelLogits,
    Prediction,
    Segmentation,
    Segments,
    Target,
)


class SegmentConfig(Config):
    """A segmenter.

    Attributes:
        classes: Class names; their order is the order of the outputs.
        category_ids: What the data call each class by number, in that order; None where they have
            names only.
        answer: Regions of classes (`semantic`), objects that may overlap (`instance`), or both
            without overlap (`panoptic`).
        background: Whether a pixel may be of no class. Its logit is then 0, and one class alone is
            a sigmoid.
        things: Of `panoptic`, whether each class is one of objects.
        readout: From features to masks.
        threshold: Of one class and a background: probability from which on a pixel is of it. Of
            objects: score from which on people are told of one; files have all. Training takes
            what is best on the validation part. Of panoptic answers: score from which on a query
            counts, which stays as it is.
        mask_threshold: Of objects: probability from which on a pixel belongs to one.
        max_regions: Objects kept an image, the surest first.
        min_area: Pixels that an object has at least; smaller ones are specks.
    """

    kind: Literal["segment"] = "segment"
    classes: tuple[str, ...] = Field(min_length=1)
    category_ids: tuple[int, ...] | None = None
    answer: Literal["semantic", "instance", "panoptic"] = "semantic"
    background: bool = True
    things: tuple[bool, ...] | None = None
    readout: SegmentReadout = ClassQueriesReadout()
    threshold: float = Field(default=0.5, gt=0, lt=1)
    mask_threshold: float = Field(default=0.5, gt=0, lt=1)
    max_regions: PositiveInt = 100
    min_area: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> SegmentConfig:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"class names must differ; twice: {', '.join(twice)}")
        if len(self.classes) == 1 and not self.background:
            raise ValueError("background = false: with one class every pixel would be of it")
        if self.things is not None and len(self.things) != len(self.classes):
            raise ValueError(
                f"things: {len(self.things)} for {len(self.classes)} classes; give each its own"
            )
        if self.answer != "semantic" and not isinstance(self.readout, MatchedReadout):
            raise ValueError(
                f"answer = '{self.answer}' needs queries that are matched with objects; take "
                "readout.kind = 'matched_queries'"
            )
        return self

    @property
    def binary(self) -> bool:
        """Whether there is one class and a background, so that a threshold decides."""
        return self.answer == "semantic" and self.background and len(self.classes) == 1

    @property
    def pixel_threshold(self) -> float | None:
        """Of a `binary` one; None where the most probable class is taken."""
        return self.threshold if self.binary else None


Output = PixelLogits | MaskQueries | MaskVectors
Encoded = PixelTruth | list[MaskTruth]


class Segment(Task[Output, Encoded]):
    """Masks by whichever head.

    Args:
        config: The task.
        channels: Width of each map of the backbone, fine to coarse.
        strides: Their strides.
    """

    def __init__(
        self, config: SegmentConfig, channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.config = config
        self.segmenter = build_segmenter(config.readout, channels, strides, len(config.classes))

    def forward(self, features: Features) -> Output:
        """What the head gives."""
        return self.segmenter(features)

    def encode(
        self,
        targets: Sequence[Target],
        device: torch.device | str = "cpu",
        extents: Sequence[Grid] = (),
    ) -> Encoded:
        """Classes of pixels, or segments one by one.

        Args:
            targets: Segments of each view.
            device: Where tensors go.
            extents: Rows and columns of each view that show its image; empty where all do.
        """
        if self.segmenter.matched:
            semantic = self.config.answer == "semantic"
            return mask_truths(targets, extents, semantic=semantic, device=device)
        return pixel_truth(targets, background=self.config.background, device=device)

    def loss(
        self,
        output: Output,
        targets: Encoded,
        *,
        pixels: PixelLossConfig | None = None,
        weights: Float[Tensor, "K"] | None = None,
    ) -> Float[Tensor, "B"]:
        """One loss an image.

        Args:
            output: Of the head.
            targets: As `encode` gives them.
            pixels: Terms of heads that tell the class of pixels.
            weights: Of each output of those, the background's first where there is one.
        """
        stride = self.segmenter.stride
        match output:
            case PixelLogits(logits=logits):
                assert isinstance(targets, PixelTruth)
                size = (targets.classes.shape[1], targets.classes.shape[2])
                scores = self.scores(magnified(logits.float(), stride, 1, size))
                return pixel_loss(
                    scores,
                    targets,
                    pixels or PixelLossConfig(),
                    background=self.config.background,
                    weights=weights,
                )
            case MaskVectors():
                assert isinstance(targets, list)
                own = boxed_loss(output, targets, groups=self.segmenter.groups, stride=stride)
                return own + foreground_loss(output.foreground, targets, stride=stride)
            case MaskQueries():
                assert isinstance(targets, list)
                assert output.boxes is None, "queries with boxes learn while training alone"
                return query_loss(output, targets, stride=stride)

    def scores(self, logits: Float[Tensor, "*B C H W"]) -> Float[Tensor, "*B _K H W"]:
        """Logits with the background's in front, where there is one."""
        if not self.config.background:
            return logits
        return torch.cat([torch.zeros_like(logits[..., :1, :, :]), logits], dim=-3)

    def postprocess(
        self, output: Output, sizes: Sequence[Grid] = (), extents: Sequence[Grid] = ()
    ) -> list[Prediction]:
        """Segments of each image, in its own pixels.

        Args:
            output: Of the head, not in training.
            sizes: Height and width of each image before it was prepared.
            extents: Rows and columns of each view that show it.
        """
        stride = self.segmenter.stride
        places = list(zip(sizes, extents, strict=True))
        match output:
            case PixelLogits(logits=logits):
                return [
                    self.of_pixels(placed(own.float(), stride, *place))
                    for own, place in zip(logits, places, strict=True)
                ]
            case MaskQueries():
                rows = zip(output.logits, output.masks, places, strict=True)
                return [
                    self.of_queries(logits.float(), masks.float(), *place)
                    for logits, masks, place in rows
                ]
            case MaskVectors():
                raise AssertionError("a model in training gives no answers")

    def of_pixels(self, logits: Float[Tensor, "C H W"]) -> Segmentation:
        """Regions of classes from their logits at every pixel of an image."""
        classes, background = self.config.classes, self.config.background
        return pixel_answer(
            self.scores(logits).softmax(0),
            classes,
            background=background,
            threshold=self.config.pixel_threshold,
        )

    def of_votes(self, votes: Float[Tensor, "C H W"]) -> Segmentation:
        """Regions of classes from what queries say together at every pixel of an image."""
        return vote_answer(
            votes,
            self.config.classes,
            background=self.config.background,
            threshold=self.config.pixel_threshold,
        )

    def of_queries(
        self, logits: Float[Tensor, "Q C"], masks: Float[Tensor, "Q h w"], size: Grid, extent: Grid
    ) -> Segmentation:
        """Regions from queries, of the kind that is asked for."""
        config = self.config
        softmax = logits.shape[-1] > len(config.classes)
        scores = logits.softmax(-1)[:, :-1] if softmax else logits.sigmoid()
        stride, edge = self.segmenter.stride, config.mask_threshold
        found = Queries(scores, masks, stride, size, extent, edge)
        match config.answer:
            case "semantic":
                return semantic_answer(
                    found,
                    config.classes,
                    background=config.background,
                    threshold=config.pixel_threshold,
                )
            case "instance":
                most, least = config.max_regions, config.min_area
                return instance_answer(found, config.classes, most=most, min_area=least)
            case "panoptic":
                things = config.things or (True,) * len(config.classes)
                sure, least = config.threshold, config.min_area
                return panoptic_answer(
                    found, config.classes, things, threshold=sure, min_area=least
                )

    def adapt(self, dataset: Dataset) -> Sequence[Target]:
        """Segments with the model's own class numbers; classes are matched by name.

        A model that knows no background is not judged where the data say background: so ADE20K's
        150 classes are measured, whose masks have 0 for all else.

        Raises:
            DataError: the data have no masks, or a class that the model does not know.
        """
        if dataset.segments is None:
            raise DataError(
                "the data has no masks, which is what the model gives; give images and masks, COCO "
                "or YOLO polygons"
            )
        if dataset.segments == "semantic" and self.config.answer != "semantic":
            raise DataError(
                "the masks of the data are of classes, the model tells objects apart; give masks "
                "of single objects"
            )
        return Relabelled(dataset.targets, class_index(self.config.classes, dataset.classes))

    def measure(
        self, predictions: Sequence[Prediction], targets: Sequence[Target], *, intervals: bool
    ) -> SegmentationMetrics:
        """Overlap of regions, and what else belongs to the answer."""
        return segmentation_metrics(
            cast("Sequence[Segmentation]", predictions),
            cast("Sequence[Segments]", targets),
            self.config.classes,
            answer=self.config.answer,
            background=self.config.background,
            things=self.config.things,
            threshold=self.config.threshold,
            intervals=intervals,
            full=intervals,
        )
