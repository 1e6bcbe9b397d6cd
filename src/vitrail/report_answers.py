"""Test images with objects and answers drawn over them, and where the model looked for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.data.dataset import Dataset
from vitrail.errors import BadSampleError
from vitrail.explain.objects import FoundObjects, alone, find_objects
from vitrail.metrics.detection_pairs import Judged, overlaps
from vitrail.model import Model
from vitrail.report_judged import area_of
from vitrail.report_pictures import Mark, Picture, mark, marked, overlay, picture
from vitrail.report_samples import as_pixels, percent
from vitrail.types import Box, Boxes, Corners, Detection, Grid, Sample

LONGEST = 448
"""Longest side of a picture in pixels."""

NEAR = 0.1
"""IoU from which on an answer below the threshold may have meant an object."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One test image that was answered.

    Attributes:
        index: Its number in the split.
        found: What the model says.
        target: Its objects.
        judged: What is right and wrong at the threshold.
    """

    index: int
    found: Detection
    target: Boxes
    judged: Judged


@dataclass(frozen=True, slots=True)
class Case:
    """One miss or one false alarm.

    Attributes:
        id: Name of the sample.
        label: Class of the object that was missed, or that was answered.
        score: Of the answer; None for a miss.
        detail: What else there is to say.
        image: Truth and answer over the image.
        looked: What the query looked at; None where no query came near.
    """

    id: str
    label: str
    score: float | None
    detail: str
    image: Picture
    looked: Picture | None


@dataclass(frozen=True, slots=True)
class Scene:
    """A test image of the gallery.

    Attributes:
        id: Name of the sample.
        image: Truth and answers over it.
        objects: How many it has.
        right: How many of them were found.
        wrong: Answers that are wrong.
    """

    id: str
    image: Picture
    objects: int
    right: int
    wrong: int


def worst_misses(
    model: Model, test: Dataset, shown: Sequence[Shown], *, most: int = 12
) -> tuple[list[Case], float | None]:
    """The largest objects that no answer is about, of as many classes as there are.

    Args:
        model: In evaluation mode.
        test: What was measured; the samples shown are read again.
        shown: All images that were answered.
        most: Objects to show at most.

    Returns:
        The largest error of the attention shown; None where none is.
    """
    by_class: defaultdict[int, list[tuple[float, int, Shown, int]]] = defaultdict(list)
    for order, one in enumerate(shown):
        for number in one.judged.missed:
            box = one.target.items[number]
            by_class[box.label].append((area_of(box), -order, one, number))
    share = ceil(most / max(len(by_class), 1))
    kept = [
        entry
        for entries in by_class.values()
        for entry in sorted(entries, key=_rank, reverse=True)[:share]
    ]
    kept.sort(key=_rank, reverse=True)
    names = _names(model)
    cases: list[Case] = []
    worst: float | None = None
    for _, _, one, number in kept:
        if len(cases) == most:
            break
        sample = _read(test, one.index)
        if sample is None:
            continue
        looking = find_objects(model, alone(model.config.preprocess, sample))[0]
        box = one.target.items[number]
        near = _nearest(looking.found, box.corners, least=NEAR)
        worst = max(worst or 0.0, looking.error)
        cases.append(
            Case(
                id=sample.id,
                label=names[box.label],
                score=None,
                detail=_size(box) + _nearest_words(looking.found, near),
                image=_scene_picture(sample, one, names, missed=number),
                looked=_looked(sample, looking, near, [_missed(box, sample, names)]),
            )
        )
    return cases, worst


def worst_answers(
    model: Model, test: Dataset, shown: Sequence[Shown], *, most: int = 12
) -> tuple[list[Case], float | None]:
    """The surest answers that are about nothing, or about an object of another class.

    Args and returns are those of `worst_misses`.
    """
    wrong = [
        (one.found.scores[answer.number], -order, one, answer)
        for order, one in enumerate(shown)
        for answer in one.judged.answers
        if answer.verdict in ("other", "nothing")
    ]
    wrong.sort(key=_rank, reverse=True)
    names = _names(model)
    cases: list[Case] = []
    worst: float | None = None
    for score, _, one, answer in wrong:
        if len(cases) == most:
            break
        sample = _read(test, one.index)
        if sample is None:
            continue
        corners, label = one.found.boxes[answer.number], one.found.labels[answer.number]
        looking = find_objects(model, alone(model.config.preprocess, sample))[0]
        # Alone an image may be answered in another order than in its batch.
        near = _nearest(looking.found, corners, label=label)
        worst = max(worst or 0.0, looking.error)
        if answer.about is None:
            detail = _background_words(corners, one.target, names)
        else:
            detail = f"it is {names[one.target.items[answer.about].label]}"
        text = f"{label} {percent(score, 0)}"
        size = (sample.image.shape[1], sample.image.shape[2])
        cases.append(
            Case(
                id=sample.id,
                label=label,
                score=score,
                detail=detail,
                image=_scene_picture(sample, one, names, only=answer.number),
                looked=_looked(sample, looking, near, [mark(corners, size, "wrong", text)]),
            )
        )
    return cases, worst


def random_images(
    model: Model, test: Dataset, shown: Sequence[Shown], *, most: int = 12, seed: int = 0
) -> list[Scene]:
    """Images as they come: drawn, not chosen."""
    names = _names(model)
    scenes: list[Scene] = []
    for place in np.random.default_rng(seed).permutation(len(shown)):
        if len(scenes) == most:
            break
        one = shown[int(place)]
        sample = _read(test, one.index)
        if sample is None:
            continue
        verdicts = [answer.verdict for answer in one.judged.answers]
        scenes.append(
            Scene(
                id=sample.id,
                image=_scene_picture(sample, one, names),
                objects=sum(not box.crowd for box in one.target.items),
                right=verdicts.count("right"),
                wrong=verdicts.count("other") + verdicts.count("nothing"),
            )
        )
    return scenes


def _rank(entry: tuple[float, int, Any, Any]) -> tuple[float, int]:
    return entry[0], entry[1]


def _names(model: Model) -> tuple[str, ...]:
    task = model.config.task
    assert task.kind == "detect", "only a detector has boxes"
    return task.classes


def _read(test: Dataset, index: int) -> Sample | None:
    try:
        return test.read(index)
    except BadSampleError:
        return None


def _small(sample: Sample) -> NDArray[np.uint8]:
    """Pixels of the original image, made smaller where it is large."""
    image = Image.fromarray(as_pixels(sample.image))
    image.thumbnail((LONGEST, LONGEST))
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels


def _scene_picture(
    sample: Sample,
    one: Shown,
    names: Sequence[str],
    *,
    missed: int | None = None,
    only: int | None = None,
) -> Picture:
    """Objects and answers over an image.

    Args:
        sample: The image.
        one: Its objects and answers.
        names: Of the classes.
        missed: Mark this object alone as missed.
        only: Show no wrong answer but this one.
    """
    size = (sample.image.shape[1], sample.image.shape[2])
    lost = one.judged.missed if missed is None and only is None else (missed,)
    return marked(
        picture(_small(sample), longest=LONGEST),
        [
            *_truth(one.target.items, size, names, lost),
            *_answers(one, size, only=only, wrong=missed is None),
        ],
    )


def _truth(
    items: Iterable[Box], size: Grid, names: Sequence[str], missed: Sequence[int | None]
) -> Iterator[Mark]:
    for i, box in enumerate(items):
        name = names[box.label]
        text = f"{name} (a crowd)" if box.crowd else name
        yield mark(box.corners, size, "missed" if i in missed else "truth", text)


def _answers(one: Shown, size: Grid, *, only: int | None, wrong: bool) -> Iterator[Mark]:
    """The least sure first, so that the surest lie on top."""
    for answer in reversed(one.judged.answers):
        right = answer.verdict in ("right", "crowd")
        if right or (wrong and only in (None, answer.number)):
            text = (
                f"{one.found.labels[answer.number]} {percent(one.found.scores[answer.number], 0)}"
            )
            kind = "right" if right else "wrong"
            yield mark(one.found.boxes[answer.number], size, kind, text)


def _missed(box: Box, sample: Sample, names: Sequence[str]) -> Mark:
    size = (sample.image.shape[1], sample.image.shape[2])
    return mark(box.corners, size, "missed", names[box.label])


def _looked(
    sample: Sample, looking: FoundObjects, near: int | None, marks: Sequence[Mark]
) -> Picture | None:
    """The attention of one query over the image, with the box that it is about."""
    if near is None:
        return None
    heat: NDArray[Any] = looking.on_image(near).float().numpy(force=True)
    return marked(overlay(_small(sample), heat, longest=LONGEST), marks)


def _nearest(
    found: Detection, corners: Corners, *, label: str | None = None, least: float = 0.0
) -> int | None:
    """The answer that overlaps a box most, of a class if one is named; None where none does."""
    shares = overlaps(found.boxes, Boxes((Box(corners, 0),)))[:, 0]
    if label is not None:
        shares = shares * np.array([name == label for name in found.labels])
    if not len(shares) or float(shares.max()) <= least:
        return None
    return int(shares.argmax())


def _size(box: Box) -> str:
    x1, y1, x2, y2 = box.corners
    return f"{x2 - x1:.0f} x {y2 - y1:.0f} pixels"


def _nearest_words(found: Detection, near: int | None) -> str:
    if near is None:
        return "; no query came near"
    return f"; nearest answer: {found.labels[near]}, {percent(found.scores[near])}"


def _background_words(corners: Corners, target: Boxes, names: Sequence[str]) -> str:
    """What a false alarm is about, as far as the data know."""
    shares = overlaps([corners], target)[0]
    if not len(shares) or float(shares.max()) < NEAR:
        return "nothing is labelled there"
    nearest = int(shares.argmax())
    name = names[target.items[nearest].label]
    share = float(shares[nearest])
    if share >= 0.5:
        return f"that {name} was found already"
    return f"it fits {name} by {percent(share, 0)} only"
