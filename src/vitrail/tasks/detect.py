"""Detection: boxes and classes of the objects in an image, by queries of a Transformer decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from vitrail.config import Config
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError
from vitrail.metrics.detection import DetectionMetrics, detection_metrics
from vitrail.nn.boxes import suppress, to_xyxy
from vitrail.tasks.classify import class_index
from vitrail.tasks.detect_loss import detection_loss
from vitrail.tasks.detectors import QueryReadout, Readout, build_detector
from vitrail.tasks.matching import Truth
from vitrail.tasks.task import Task
from vitrail.types import (
    Box,
    Boxes,
    Corners,
    Detection,
    Detections,
    Features,
    Grid,
    Prediction,
    Target,
)


class DetectConfig(Config):
    """A detector.

    Attributes:
        classes: Class names; their order is the order of the outputs.
        category_ids: What the data call each class by number, in that order; None where they have
            names only.
        readout: From features to queries that know objects.
        scoring: Each class alone (`sigmoid`), or all against "no object" (`softmax`).
        max_detections: Objects kept an image, the surest first.
        nms: Overlap (IoU) with a surer box of its class beyond which a box is left out; None leaves
            out none, since each object is taught to one query.
        threshold: Score from which on people are told of an object; files have all. Training takes
            the one with the best F1 on the validation part.
    """

    kind: Literal["detect"] = "detect"
    classes: tuple[str, ...] = Field(min_length=1)
    category_ids: tuple[int, ...] | None = None
    readout: Readout = QueryReadout()
    scoring: Literal["sigmoid", "softmax"] = "sigmoid"
    max_detections: PositiveInt = 100
    nms: float | None = Field(default=None, gt=0, le=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _distinct(self) -> DetectConfig:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"class names must differ; twice: {', '.join(twice)}")
        if self.category_ids is not None and len(set(self.category_ids)) != len(self.classes):
            raise ValueError(
                f"category_ids: {len(set(self.category_ids))} different numbers for "
                f"{len(self.classes)} classes; give each class its own"
            )
        return self

    @property
    def outputs(self) -> int:
        """Numbers a query gives: one a class, and with a softmax one for none."""
        return len(self.classes) + (self.scoring == "softmax")


class Detect(Task[Detections, list[Truth]]):
    """Objects by queries, whoever gives them.

    Args:
        config: The task.
        channels: Width of each map of the backbone, fine to coarse.
    """

    def __init__(self, config: DetectConfig, channels: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.detector = build_detector(config.readout, channels, config.outputs)

    def forward(self, features: Features) -> Detections:
        """What every query found; while training, every layer's opinion too."""
        return self.detector(features)

    def encode(self, targets: Sequence[Target], device: torch.device | str = "cpu") -> list[Truth]:
        """Objects of each view; crowds, and boxes without area, are not learned."""
        return [_truth(target, device) for target in targets]

    def loss(self, output: Detections, targets: list[Truth]) -> Float[Tensor, "B"]:
        """Classes, L1 and GIoU of all layers, of one image each."""
        groups = self.detector.groups if self.training else 1
        return detection_loss(output, targets, groups=groups, scoring=self.config.scoring)

    def postprocess(
        self, output: Detections, sizes: Sequence[Grid] = (), extents: Sequence[Grid] = ()
    ) -> list[Prediction]:
        """The surest answers of each image, in its own pixels.

        Without a softmax a query may stand for several classes (Deformable DETR).
        """
        del extents  # boxes are shares of what shows the image
        logits = output.logits.float()
        corners = to_xyxy(output.boxes.float()).clamp(0, 1)
        if self.config.scoring == "softmax":
            scores, labels = logits.softmax(-1)[..., :-1].max(-1)
            top = scores.topk(min(self.config.max_detections, scores.shape[1]), dim=1)
            queries, labels = top.indices, labels.gather(1, top.indices)
        else:
            flat = logits.sigmoid().flatten(1)
            top = flat.topk(min(self.config.max_detections, flat.shape[1]), dim=1)
            classes = logits.shape[-1]
            queries, labels = top.indices // classes, top.indices % classes
        rows = zip(top.values, labels, queries, corners, sizes, strict=True)
        return [self._detection(*row) for row in rows]

    def _detection(
        self, scores: Tensor, labels: Tensor, queries: Tensor, corners: Tensor, size: Grid
    ) -> Detection:
        if self.config.nms is not None:
            kept = suppress(corners[queries], labels, self.config.nms)
            scores, labels, queries = scores[kept], labels[kept], queries[kept]
        scale = torch.tensor([size[1], size[0], size[1], size[0]], device=corners.device)
        boxes = cast("list[Corners]", _numbers(corners[queries] * scale))
        return Detection(
            boxes=tuple((a, b, c, d) for a, b, c, d in boxes),
            labels=tuple(
                self.config.classes[label] for label in cast("list[int]", _numbers(labels))
            ),
            scores=tuple(cast("list[float]", _numbers(scores))),
            queries=tuple(cast("list[int]", _numbers(queries))),
        )

    def adapt(self, dataset: Dataset) -> list[Target]:
        """Objects with the model's own class numbers; classes are matched by name.

        Raises:
            DataError: the data have no boxes, or a class that the model does not know.
        """
        if not dataset.boxes:
            raise DataError(
                "the data has no boxes, which is what the model gives; give COCO, VOC, YOLO, "
                "or a CSV 'path,x1,y1,x2,y2,label'"
            )
        index = class_index(self.config.classes, dataset.classes)
        return [_translate(target, index) for target in dataset.targets]

    def measure(
        self, predictions: Sequence[Prediction], targets: Sequence[Target], *, intervals: bool
    ) -> DetectionMetrics:
        """COCO's average precisions and their kin."""
        return detection_metrics(
            cast("Sequence[Detection]", predictions),
            cast("Sequence[Boxes]", targets),
            self.config.classes,
            intervals=intervals,
        )


def _numbers(tensor: Tensor) -> list[Any]:
    numbers: list[Any] = tensor.numpy(force=True).tolist()
    return numbers


def _truth(target: Target, device: torch.device | str) -> Truth:
    assert isinstance(target, Boxes), "a detector learns from boxes"
    assert target.size is not None, "a view knows its size"
    height, width = target.size
    kept = [box for box in target.items if not box.crowd and _has_area(box.corners)]
    corners = torch.tensor([box.corners for box in kept], dtype=torch.float32).reshape(-1, 4)
    corners = corners / torch.tensor([width, height, width, height])
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    labels = torch.tensor([box.label for box in kept], dtype=torch.long)
    return Truth(labels.to(device), boxes.to(device))


def _has_area(corners: Corners) -> bool:
    return corners[2] > corners[0] and corners[3] > corners[1]


def _translate(target: Target, index: list[int]) -> Boxes:
    if not isinstance(target, Boxes):
        raise DataError("evaluation needs a label for every sample; to label new images: predict")
    items: tuple[Box, ...] = tuple(replace(box, label=index[box.label]) for box in target.items)
    return replace(target, items=items)
