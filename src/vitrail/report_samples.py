"""The samples that a report shows: how they are read, named and augmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.augment import Augment, AugmentConfig
from vitrail.data.box_augment import BoxAugment, BoxAugmentConfig
from vitrail.data.dataset import Dataset
from vitrail.data.loader import Transform, on_image
from vitrail.data.mask_augment import MaskAugment, MaskAugmentConfig
from vitrail.data.order import sample_rng
from vitrail.errors import BadSampleError
from vitrail.model import Model
from vitrail.report_pictures import Picture, mark, marked, picture
from vitrail.report_regions import segments_picture
from vitrail.types import VOID, Boxes, Segments, Target, View

AugmentConfigs = AugmentConfig | BoxAugmentConfig | MaskAugmentConfig
"""How training images were augmented."""

LOOKED_AT = 40
"""Samples of segments that are looked at for different classes: their masks lie in files."""


@dataclass(frozen=True, slots=True)
class Views:
    """A training sample and the random views that epochs made of it."""

    id: str
    label: str
    original: Picture
    views: tuple[tuple[int, Picture], ...]


def percent(value: float, digits: int = 1) -> str:
    """`0.9861` as `98.6 %`; what only rounds to 0 or 100 is written `<0.1 %` and `>99.9 %`."""
    least = 10.0**-digits
    if 1e-9 < 100 * value < least / 2:
        return f"<{least:.{digits}f}\u00a0%"
    if least / 2 > 100 * (1 - value) > 1e-9:
        return f">{100 - least:.{digits}f}\u00a0%"
    return f"{100 * value:.{digits}f}\u00a0%"


def augmented_views(
    model: Model,
    train: Dataset,
    config: AugmentConfigs,
    *,
    seed: int,
    epochs: int,
    most: int = 6,
) -> list[Views]:
    """Samples of different labels, each with its views in a few epochs of the run.

    Args:
        model: Whose preprocessing is used.
        train: The training split.
        config: The augmentation of the run.
        seed: Seed of the run.
        epochs: How many it had; at most five, evenly spread, are shown.
        most: Samples to show at most.
    """
    augment = _transform(model, train, config)
    shown = sorted({round(e) for e in np.linspace(0, max(epochs, 1) - 1, 5)})
    nothing = "no object" if train.boxes or train.segments else "no label"
    result: list[Views] = []
    for i in _spread(train):
        if len(result) == most:
            break
        try:
            sample = train.read(i)
        except BadSampleError:
            continue
        views = [(e + 1, augment(sample, sample_rng(seed, e, i))) for e in shown]
        result.append(
            Views(
                id=train.ids[i],
                label=", ".join(label_names(train, sample.target)) or nothing,
                original=_picture(train, model.config.preprocess.view(sample)),
                views=tuple((epoch, _picture(train, view)) for epoch, view in views),
            )
        )
    return result


def _transform(model: Model, train: Dataset, config: AugmentConfigs) -> Transform:
    match config:
        case AugmentConfig():
            return on_image(Augment(config, model.config.preprocess))
        case BoxAugmentConfig():
            return BoxAugment(config, model.config.preprocess, train)
        case MaskAugmentConfig():
            return MaskAugment(config, model.config.preprocess, train)


def _picture(data: Dataset, view: View) -> Picture:
    """A view with its boxes or segments, if it has such."""
    if isinstance(view.target, Segments):
        # With one class colours are free to tell objects apart.
        alone = len(data.classes) == 1 and data.segments != "semantic"
        return segments_picture(view.image, view.target, data.classes, alone=alone)
    pixels = as_pixels(view.image)
    if not isinstance(view.target, Boxes):
        return picture(pixels, longest=160)
    size = (pixels.shape[0], pixels.shape[1])
    names = ((box, data.classes[box.label]) for box in view.target.items)
    marks = [mark(box.corners, size, "truth", name) for box, name in names]
    return marked(picture(pixels, longest=256), marks)


def is_grey(data: Dataset) -> bool:
    """Whether the colour channels of the first eight images that can be read are equal."""
    images: list[Tensor] = []
    for i in range(len(data)):
        if len(images) == 8:
            break
        with suppress(BadSampleError):
            images.append(data.read(i).image)
    return all(torch.equal(image[0], channel) for image in images for channel in image[1:])


def label_names(data: Dataset, target: Target) -> list[str]:
    """The labels of a sample as people read them: of a text the text, of objects how many."""
    match target:
        case None:
            return []
        case Boxes(items=items):
            counts = Counter(box.label for box in items)
            return [f"{count} {data.classes[label]}" for label, count in counts.most_common()]
        case Segments(labels=labels):
            known = [label for label in labels if label != VOID]
            counts = Counter(known).most_common()
            alone = data.segments == "semantic"
            return [data.classes[i] if alone else f"{n} {data.classes[i]}" for i, n in counts]
        case str():
            return [target]
        case int():
            return [data.classes[target]]
        case _:
            return [data.classes[i] for i in target]


def prepared(model: Model, data: Dataset, index: int) -> Tensor | None:
    """A sample as evaluation shows it to the model; None where it cannot be read."""
    try:
        return model.config.preprocess.prepare(data.read(index).image)
    except BadSampleError:
        return None


def as_pixels(image: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) of (3, H, W)."""
    pixels: NDArray[Any] = image.permute(1, 2, 0).numpy()
    return pixels


def _spread(data: Dataset) -> Iterator[int]:
    """Indices with a new label each first (a text: a new length), then the rest."""
    first: dict[Hashable, int] = {}
    looked_at = len(data) if data.segments is None else min(len(data), LOOKED_AT)
    places: list[int] = np.linspace(0, len(data) - 1, looked_at).round().astype(int).tolist()
    for i in places:
        with suppress(BadSampleError):
            first.setdefault(_kind(data.targets[i]), i)
    yield from first.values()
    chosen = set(first.values())
    yield from (i for i in range(len(data)) if i not in chosen)


def _kind(target: Target) -> Hashable:
    match target:
        case str():
            return len(target)
        case Boxes(items=items):
            return frozenset(box.label for box in items)
        case Segments(labels=labels):
            return frozenset(labels)
        case _:
            return target
