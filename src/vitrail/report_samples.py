"""The samples that a report shows: worst errors with what the model looked at, augmented views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.augment import Augment, AugmentConfig
from vitrail.data.dataset import Dataset
from vitrail.data.order import sample_rng
from vitrail.errors import BadSampleError
from vitrail.evaluate import Evaluation
from vitrail.explain.capture import capture
from vitrail.explain.rollout import rollout
from vitrail.model import Model
from vitrail.report_figures import Picture, overlay, picture
from vitrail.types import Classification, Target


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        id: Name of the sample.
        true: Its labels.
        predicted: Labels given.
        confidence: Probability of the wrong answer: of the label given; multi-label: that the
            model gives to the side on which it is wrong.
        detail: What else there is to say.
        image: As the model saw it.
        looked: Attention rollout over it.
    """

    id: str
    true: str
    predicted: str
    confidence: float
    detail: str
    image: Picture
    looked: Picture


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


def worst_mistakes(
    model: Model, test: Dataset, evaluation: Evaluation, *, most: int = 12
) -> tuple[list[Mistake], float | None]:
    """The most confident errors, and the largest error of the attention shown.

    Args:
        model: In evaluation mode.
        test: What was evaluated; the samples shown are read again.
        evaluation: One row a sample of `test`, in its order.
        most: Errors to show at most.
    """
    wrong: list[tuple[float, int, str]] = []
    for i, row in enumerate(evaluation.rows):
        if row.prediction is not None:
            found = _wrong(model, row.prediction, _names(test, test.targets[i]))
            if found is not None:
                wrong.append((found[0], i, found[1]))
    wrong.sort(key=lambda entry: -entry[0])
    shown: list[Mistake] = []
    worst: float | None = None
    for confidence, i, detail in wrong:
        if len(shown) == most:
            break
        prediction = evaluation.rows[i].prediction
        image = _prepared(model, test, i)
        if image is None or prediction is None:
            continue
        heat, error = _looked_at(model, image)
        worst = max(worst or 0.0, error)
        shown.append(
            Mistake(
                id=test.ids[i],
                true=", ".join(_names(test, test.targets[i])) or "no label",
                predicted=prediction.label.replace(";", ", ") or "no label",
                confidence=confidence,
                detail=detail,
                image=picture(_pixels(image)),
                looked=overlay(_pixels(image), heat),
            )
        )
    return shown, worst


def _wrong(
    model: Model, prediction: Classification, true: Sequence[str]
) -> tuple[float, str] | None:
    """How confident a wrong prediction is and what to say of it; None for a right one."""
    task = model.config.task
    if not task.multilabel:
        if prediction.label in true:
            return None
        return prediction.score, f"{percent(prediction.scores[true[0]])} for the true label"
    sides = {
        name: score if score >= task.threshold else 1 - score
        for name, score in prediction.scores.items()
        if (score >= task.threshold) != (name in true)
    }
    if not sides:
        return None
    worst = max(sides, key=sides.__getitem__)
    return sides[worst], f"{'missed' if worst in true else 'wrongly named'}: {worst}"


def _looked_at(model: Model, image: Tensor) -> tuple[NDArray[Any], float]:
    """Rollout of one prepared image, and how far its attention is from the fused kernel's."""
    images = image[None].to(next(model.parameters()).device)
    with torch.no_grad(), capture(model) as record:
        model(images)
    return rollout(model, images)[0].float().cpu().numpy(), record.max_error


def augmented_views(
    model: Model, train: Dataset, config: AugmentConfig, *, seed: int, epochs: int, most: int = 6
) -> list[Views]:
    """Samples of different classes, each with its views in a few epochs of the run.

    Args:
        model: Whose preprocessing is used.
        train: The training split.
        config: The augmentation of the run.
        seed: Seed of the run.
        epochs: How many it had; at most five, evenly spread, are shown.
        most: Samples to show at most.
    """
    augment = Augment(config, model.config.preprocess)
    shown = sorted({round(e) for e in np.linspace(0, max(epochs, 1) - 1, 5)})
    result: list[Views] = []
    for i in _spread(train):
        if len(result) == most:
            break
        original = _prepared(model, train, i)
        if original is None:
            continue
        image = train.read(i).image
        views = [(e + 1, _pixels(augment(image, sample_rng(seed, e, i)))) for e in shown]
        result.append(
            Views(
                id=train.ids[i],
                label=", ".join(_names(train, train.targets[i])) or "no label",
                original=picture(_pixels(original), longest=160),
                views=tuple((epoch, picture(pixels, longest=160)) for epoch, pixels in views),
            )
        )
    return result


def is_grey(data: Dataset) -> bool:
    """Whether the colour channels of the first eight images that can be read are equal."""
    images: list[Tensor] = []
    for i in range(len(data)):
        if len(images) == 8:
            break
        with suppress(BadSampleError):
            images.append(data.read(i).image)
    return all(torch.equal(image[0], channel) for image in images for channel in image[1:])


def _spread(data: Dataset) -> Iterator[int]:
    """Indices with a new label each first, then the rest."""
    first: dict[Target, int] = {}
    for i, target in enumerate(data.targets):
        first.setdefault(target, i)
    yield from first.values()
    chosen = set(first.values())
    yield from (i for i in range(len(data)) if i not in chosen)


def _names(data: Dataset, target: Target) -> list[str]:
    if target is None:
        return []
    return [data.classes[i] for i in ([target] if isinstance(target, int) else target)]


def _prepared(model: Model, data: Dataset, index: int) -> Tensor | None:
    """A sample as evaluation shows it to the model; None where it cannot be read."""
    try:
        return model.config.preprocess.prepare(data.read(index).image)
    except BadSampleError:
        return None


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    return image.permute(1, 2, 0).numpy()
