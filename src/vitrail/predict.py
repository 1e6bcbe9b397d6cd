"""Predictions: one row an image, in the order of the images, an error row for a bad file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail import masks
from vitrail.data.dataset import Dataset, Subset
from vitrail.data.loader import Loader
from vitrail.data.open import open_images, open_labelled
from vitrail.data.order import Sequential
from vitrail.data.tiles import Tiles, Windows
from vitrail.data.workers import Auto, Workers, workers_for
from vitrail.errors import DataError, UserError
from vitrail.model import Model, pixel_mask
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.tiling import tiled_answers
from vitrail.types import (
    Batch,
    Classification,
    Detection,
    Grid,
    Prediction,
    Region,
    Sample,
    Segmentation,
    Transcription,
    View,
)


@dataclass(frozen=True, slots=True)
class Row:
    """The answer for one image: a prediction, or the reason why there is none.

    Attributes:
        path: The image, as the data set names it.
        prediction: The answer.
        error: Why there is none.
        size: Height and width of the upright image; None where it could not be read.
    """

    path: str
    prediction: Prediction | None = None
    error: str | None = None
    size: Grid | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in a prediction file."""
        if self.prediction is None:
            return {"path": self.path, "error": self.error}
        match self.prediction:
            case Classification(label=label, score=score, scores=scores):
                return {"path": self.path, "label": label, "score": score, "scores": scores}
            case Transcription(text=text, score=score):
                return {"path": self.path, "text": text, "score": score}
            case Detection(boxes=boxes, labels=labels, scores=scores):
                table = {"boxes": list(map(list, boxes)), "labels": list(labels)}
                return {"path": self.path, **table, "scores": list(scores)}
            case Segmentation(size=size, regions=regions):
                whole = masks.union([region.rle for region in regions], size)
                segments = [segment_to_dict(region, size) for region in regions]
                mask = rle_to_dict(whole, size)
                return {"path": self.path, "mask": mask, "segments": segments}

    @property
    def answer(self) -> str:
        """The row as a person reads it; of a detector all objects, so `above` comes first."""
        match self.prediction:
            case Classification(label=label, score=score):
                return f"{label or '(none)'}  {score:.3f}"
            case Transcription(text=text, score=score):
                return f"{text or '(nothing)'}  {score:.3f}"
            case Detection(labels=labels):
                found = Counter(labels)
                return ", ".join(f"{n} {label}" for label, n in found.items()) or "(nothing)"
            case Segmentation():
                return _shares(self.prediction) or "(nothing)"
            case None:
                return f"error: {self.error}"

    def above(self, threshold: float) -> Row:
        """The row with the objects or regions of at least this score; other answers stay."""
        if isinstance(self.prediction, Segmentation):
            regions = tuple(one for one in self.prediction.regions if one.score >= threshold)
            return replace(self, prediction=replace(self.prediction, regions=regions))
        if not isinstance(self.prediction, Detection):
            return self
        found = self.prediction
        kept = [i for i, score in enumerate(found.scores) if score >= threshold]
        sure = Detection(
            tuple(found.boxes[i] for i in kept),
            tuple(found.labels[i] for i in kept),
            tuple(found.scores[i] for i in kept),
            tuple(found.queries[i] for i in kept) if found.queries else (),
        )
        return replace(self, prediction=sure)


def rle_to_dict(rle: bytes, size: Grid) -> dict[str, Any]:
    """Pixels as COCO's JSON has them."""
    return {"size": list(size), "counts": rle.decode("ascii")}


def segment_to_dict(region: Region, size: Grid) -> dict[str, Any]:
    """A region as it stands in a prediction file; `bbox` is x, y, width and height, as in COCO."""
    x1, y1, x2, y2 = masks.corners(region.rle, size)
    return {
        "label": region.label,
        "score": region.score,
        "area": masks.area(region.rle, size),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "rle": rle_to_dict(region.rle, size),
    }


def _shares(found: Segmentation) -> str:
    """How many regions of each class there are, and how much of the image they cover."""
    parts: dict[str, list[bytes]] = {}
    for region in found.regions:
        parts.setdefault(region.label, []).append(region.rle)
    pixels = found.size[0] * found.size[1]
    return ", ".join(
        f"{len(rles)} {label} {masks.area(masks.union(rles, found.size), found.size) / pixels:.1%}"
        for label, rles in parts.items()
    )


def predict(
    model: Model, dataset: Dataset, *, batch_size: int = 32, workers: Workers | None = None
) -> Iterator[Row]:
    """Predict every image of a data set; nothing is skipped silently.

    Evaluation runs this very function, so that both give the same answer.

    Args:
        model: In evaluation mode, on any device.
        dataset: Labels are not needed.
        batch_size: Images a forward pass.
        workers: How images are decoded; measured by default.

    Yields:
        One row an image in the order of `dataset.ids`.
    """
    model.eval()
    preprocess = model.config.preprocess

    def prepare(sample: Sample, rng: np.random.Generator) -> View:
        del rng
        return preprocess.view(sample)

    loader = Loader(
        dataset,
        prepare,
        batch_size=batch_size,
        order=Sequential(),
        seed=0,
        workers=workers_for(workers or Auto(), next(model.parameters()).device),
        drop_last=False,
        strict=False,
    )
    # Images of other sizes come in batches of their own, so that rows may overtake each other. The
    # same file may be asked for twice: a list a name.
    waiting: dict[str, list[Row]] = {}
    order = iter(dataset.ids)
    next_id = next(order, None)
    for batch in loader.epoch(0):
        for row in _answer(model, batch):
            waiting.setdefault(row.path, []).append(row)
        while next_id is not None and waiting.get(next_id):
            yield waiting[next_id].pop(0)
            next_id = next(order, None)
    assert next_id is None, f"no answer for {next_id}"


def open_for(model: Model, images: Sequence[str]) -> Dataset:
    """The images that a person named.

    A data set with numbers for its images (COCO), given alone to a detector or segmenter, is read
    as such: its images and no other files, with the numbers that results need to be scored by.

    Raises:
        DataError: nothing is found.
    """
    task = model.config.task
    if isinstance(task, DetectConfig | SegmentConfig) and len(images) == 1:
        path = Path(images[0]).expanduser()
        if path.suffix.lower() == ".json":
            return open_labelled(images[0], task=task.kind)
        if path.is_dir():
            with suppress(DataError):  # a folder without labels is one of images
                labelled = open_labelled(images[0], task=task.kind)
                if labelled.image_ids is not None:
                    return labelled
    return open_images(images)


def shard_of(dataset: Dataset, shard: str) -> Dataset:
    """Part `i/n` of a data set, counted from 0: every n-th image from the i-th on.

    Raises:
        UserError: not of that form, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard {shard}: write it as i/n with i from 0 to n - 1, e.g. 0/4")
    part, parts = int(match[1]), int(match[2])
    return dataset if parts == 1 else Subset(dataset, range(part, len(dataset), parts))


def extents_of(batch: Batch) -> Sequence[Grid]:
    """Rows and columns of each view of a batch that show its image."""
    return batch.extents or [(batch.images.shape[2], batch.images.shape[3])] * len(batch.ids)


def _answer(model: Model, batch: Batch) -> Iterator[Row]:
    for skipped in batch.skipped:
        yield Row(skipped.id, error=skipped.reason)
    if not batch.ids:
        return
    for path, prediction, size in zip(
        batch.ids, answers_of(model, batch), batch.sizes, strict=True
    ):
        yield Row(path, prediction, size=size)


def answers_of(model: Model, batch: Batch) -> list[Prediction]:
    """One answer for each image of a prepared batch, by tiles where the model has them."""
    if isinstance(model.config.preprocess.resize, Tiles | Windows):
        return tiled_answers(model, batch)
    device = next(model.parameters()).device
    with torch.inference_mode():
        output = model(batch.images.to(device), pixel_mask(batch, device))
    return model.task.postprocess(output, batch.sizes, extents_of(batch))
