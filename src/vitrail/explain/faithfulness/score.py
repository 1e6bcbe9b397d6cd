"""Measure how far maps are true to a model: many methods, the same images, baselines beside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.errors import BadSampleError, DataError, ExplainError
from vitrail.explain.baselines import CentreMap, RandomMap
from vitrail.explain.faithfulness.curves import STEPS, curves
from vitrail.explain.faithfulness.erasing import FILLINGS
from vitrail.explain.faithfulness.intervals import mean_of
from vitrail.explain.faithfulness.localisation import chance, energy, pointing, prepared_mask
from vitrail.explain.faithfulness.pixels import cell_side, ranks, stretch
from vitrail.explain.faithfulness.randomisation import cascade, correlation
from vitrail.explain.faithfulness.saco import saco
from vitrail.explain.faithfulness.scores import MEASURES, Explained, Row, Scores, label
from vitrail.explain.method import Method
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.types import Skipped

Mask = Bool[Tensor, "H W"] | None

_CASCADE = "fresh: "
"""What stands before the name of a stage where it is kept beside the measures."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Prepared images of one size.

    Attributes:
        images: On the model's device.
        classes: The class that is explained, one an image.
        masks: Evidence, one an image, where it is known and in sight.
    """

    images: UInt8[Tensor, "B 3 H W"]
    classes: list[int]
    masks: list[Mask]


@dataclass(slots=True)
class _Found:
    """What was measured of one method so far.

    Attributes:
        values: One an image for each measure.
        seconds: Spent on maps.
    """

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    seconds: float = 0.0

    def add(self, key: str, values: Float[Tensor, "B"]) -> None:
        """Append what was found of some images."""
        self.values.setdefault(key, []).extend(float(value) for value in values)


def score(
    model: Model,
    dataset: Dataset,
    methods: Sequence[Method],
    *,
    samples: int = 200,
    seed: int = 0,
    explained: Explained = "predicted",
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Measure maps of each method on the same images; Random and Centre are always among them.

    Memory is bounded: no more than `batch_size` images and twice as many changed copies at a time,
    beside two copies of the weights. All but the seconds depends on the arguments alone.

    Args:
        model: A classifier on any device; it is put into evaluation mode.
        dataset: Labels are needed only to explain them; `Sample.evidence` adds localisation.
        methods: Those that cannot explain the model are named in `Scores.refused`.
        samples: How many images are drawn; all where there are fewer. A larger draw holds the
            smaller one.
        seed: Of the draw, of ties, of fresh weights and of resamples.
        explained: Whether maps explain the predicted class (as in RISE) or the label.
        batch_size: Images at a time.
        progress: Called with the number of images done.

    Raises:
        ExplainError: no classifier, or an image without a single label where it is to be explained.
        DataError: no image can be read.
    """
    if not isinstance(model.task, Classify):
        raise ExplainError(
            f"scores follow the probability of a class; this model does {model.config.task.kind}"
        )
    model.eval()
    targets = model.task.adapt(dataset) if explained == "label" else None
    baselines = (RandomMap(seed), CentreMap())
    asked = dict.fromkeys([*(m for m in methods if not m.baseline), *baselines])
    refused = {label(m): reason for m in asked if (reason := m.refuses(model))}
    found = {method: _Found() for method in asked if label(method) not in refused}
    indices = np.random.default_rng(seed).permutation(len(dataset))[:samples].tolist()
    skipped: list[Skipped] = []
    areas: list[float] = []
    count = 0
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        for group in _groups(model, dataset, part, targets, skipped):
            count += len(group.images)
            areas += [chance(mask) for mask in group.masks if mask is not None]
            for method, so_far in found.items():
                _measure(model, group, method, so_far, seed, batch_size)
        if progress is not None:
            progress(start + len(part))
    if not count:
        raise DataError(f"none of {len(indices)} images can be read; `vitrail check` lists why")
    return Scores(
        rows=tuple(_row(method, found, count, seed) for method in found),
        refused=refused,
        asked=len(indices),
        count=count,
        skipped=tuple(skipped),
        chance=float(np.mean(areas)) if areas else None,
        explained=explained,
        seed=seed,
        steps=STEPS,
    )


def _groups(
    model: Model,
    dataset: Dataset,
    indices: Sequence[int],
    targets: Sequence[object] | None,
    skipped: list[Skipped],
) -> Iterator[_Group]:
    """Read and prepare images; those of one size together."""
    preprocess, device = model.config.preprocess, next(model.parameters()).device
    sizes: dict[tuple[int, ...], list[tuple[int, Tensor, Mask]]] = {}
    for index in indices:
        try:
            sample = dataset.read(index)
            image = preprocess.prepare(sample.image)
        except BadSampleError as error:
            skipped.append(Skipped(dataset.ids[index], str(error)))
            continue
        mask = None if sample.evidence is None else prepared_mask(sample.evidence, preprocess)
        if mask is not None and not mask.any():
            mask = None
        sizes.setdefault(image.shape, []).append((index, image, mask))
    for same in sizes.values():
        images = torch.stack([image for _, image, _ in same]).to(device)
        if targets is None:
            with torch.inference_mode():
                classes = model(images).argmax(dim=1).tolist()
        else:
            classes = [_one_label(targets[index], dataset.ids[index]) for index, _, _ in same]
        yield _Group(images, classes, [mask for _, _, mask in same])


def _measure(
    model: Model, group: _Group, method: Method, found: _Found, seed: int, batch_size: int
) -> None:
    """All measures of one method on some images."""
    images, classes = group.images, group.classes
    size = (images.shape[2], images.shape[3])
    start = time.perf_counter()
    maps = method.explain(model, images, classes).detach()
    found.seconds += time.perf_counter() - start
    assert bool((maps >= 0).all() and maps.isfinite().all()), "maps are finite and not negative"
    cell = cell_side(model, size, (maps.shape[1], maps.shape[2]))
    order = ranks(maps, images, cell, seed=seed)
    forward = 2 * batch_size
    for filling in FILLINGS:
        both = curves(model, images, classes, order, filling, batch_size=forward)
        found.add(f"deletion_{filling}", both.deletion_area)
        found.add(f"insertion_{filling}", both.insertion_area)
    values = stretch(maps, size, cell)
    found.add("saco", saco(model, images, classes, order, values, batch_size=forward))
    for heat, mask in zip(maps, group.masks, strict=True):
        if mask is not None:
            found.add("pointing", torch.tensor([pointing(heat, mask, cell)]))
            found.add("energy", torch.tensor([energy(heat, mask, cell)]))
    again = replace(method, seed=method.seed + 1) if isinstance(method, RandomMap) else method
    for stage, changed in cascade(model, seed=seed):
        after = again.explain(changed, images, classes).detach()
        found.add(_CASCADE + stage, correlation(maps, after))


def _row(method: Method, found: Mapping[Method, _Found], count: int, seed: int) -> Row:
    ours = found[method]
    values = {key: mean_of(np.array(all_), seed=seed) for key, all_ in ours.values.items()}
    stages = {k.removeprefix(_CASCADE): v for k, v in values.items() if k.startswith(_CASCADE)}
    measures = {k: v for k, v in values.items() if not k.startswith(_CASCADE)}
    *_, whole = stages.values()
    gaps = {
        other.key: {
            m.key: mean_of(np.subtract(ours.values[m.key], theirs.values[m.key]), seed=seed)
            for m in MEASURES
            if m.decides
        }
        for other, theirs in found.items()
        if other.baseline and not method.baseline
    }
    return Row(method, measures | {"randomised": whole}, gaps, stages, ours.seconds / count)


def _one_label(target: object, name: str) -> int:
    if not isinstance(target, int):
        raise ExplainError(f"{name}: has no single label; explain the predicted class instead")
    return target
