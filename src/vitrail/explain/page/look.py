"""One image through all methods: what a page shows of it, but for its attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import UInt8
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.explain.method import Method
from vitrail.explain.objects import count_words
from vitrail.explain.page.curves import random_curves
from vitrail.explain.page.found import view_objects
from vitrail.explain.page.regions import view_regions
from vitrail.explain.page.stream import write
from vitrail.explain.page.view import (
    AnswerView,
    ImageView,
    MapView,
    view_answer,
    view_features,
    view_map,
    view_norms,
    view_picture,
)
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.tasks.detect import Detect
from vitrail.tasks.segment import Segment
from vitrail.types import VOID, Boxes, Sample, Segments


def look(
    model: Model,
    dataset: Dataset,
    sample: Sample,
    image: UInt8[Tensor, "3 H W"],
    methods: Sequence[Method],
    about: int | None,
    *,
    curves: bool,
) -> ImageView:
    """All that a page shows of an image, but for its attention.

    Args:
        model: In evaluation mode.
        dataset: Where the image comes from: it knows the names of classes.
        sample: The image as it was read.
        image: The same, prepared.
        methods: Those that do not refuse the model.
        about: Class that is asked about; None for the predicted one, or for regions of all.
        curves: Whether to measure deletion and insertion.
    """
    truth = _truth(dataset, sample)
    answer = view_answer(model, image, truth)
    drawn, masks, note = image, None, ""
    if isinstance(model.task, Segment):
        name = None if about is None else model.task.config.classes[about]
        seen = view_regions(model, image, methods, name, curves=curves)
        drawn, maps, note = seen.drawn, seen.maps, seen.note
        masks = seen.masks.numpy(force=True)
    else:
        maps = tuple(_maps(model, image, methods, _targets(model, answer, about), curves=curves))
    if isinstance(model.task, Detect):
        drawn, found = view_objects(model, image)
        maps = (*found, *maps)
    return ImageView(
        sample.id,
        (image.shape[1], image.shape[2]),
        view_picture(drawn),
        answer,
        write(model, image),
        maps,
        view_features(model, image),
        view_norms(model, image),
        masks=masks,
        note=note,
    )


def _maps(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    methods: Sequence[Method],
    targets: Sequence[int | None],
    *,
    curves: bool,
) -> Iterator[MapView]:
    random = {
        target: random_curves(model, image, target) if curves and target is not None else None
        for target in targets
    }
    for method in methods:
        for target in targets if method.of_class else targets[:1]:
            yield view_map(model, image, method, target, random[target])


def _targets(model: Model, answer: AnswerView, about: int | None) -> list[int | None]:
    """Classes that are asked about: the one that was named or the predicted one, then the true."""
    task = model.task
    if not isinstance(task, Classify):
        return [None]
    classes = task.config.classes
    found = [classes.index(answer.best[0][0]) if about is None else about]
    true = [answer.truth] if answer.truth in classes else answer.truth.split(";")
    found += [classes.index(name) for name in true if name in classes]
    return list(dict.fromkeys(found))


def _truth(dataset: Dataset, sample: Sample) -> str:
    match sample.target:
        case None:
            return ""
        case int():
            return dataset.classes[sample.target]
        case str():
            return sample.target
        case Boxes(items=items):
            return count_words(dataset.classes[box.label] for box in items)
        case Segments(labels=labels):
            names = [dataset.classes[label] for label in labels if label != VOID]
            return ", ".join(names) if dataset.segments == "semantic" else count_words(names)
        case _:
            return ";".join(dataset.classes[i] for i in sample.target)
