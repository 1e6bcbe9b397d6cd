"""Choose a recipe from the data when none is given, and say why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from vitrail.data import planted, shapes
from vitrail.data.dataset import Dataset, Source
from vitrail.errors import BadSampleError, DataError
from vitrail.train.recipe import Recipe, load_recipe
from vitrail.types import VOID, Segments

LOOK = 32
"""Images whose size is looked at."""
SMALL_SIDE = 64
"""Images up to this side are small images: digits, clothes, icons."""
LINE = 32
"""Height that lines of text are brought to."""
MANY = 100_000
"""From so many photos on, a Vision Transformer learns from scratch by the published recipe."""
DETECT_AREA = 192 * 256
"""Pixels that a detector from scratch sees of an image."""
FINE_SIDE = 160
"""Up to this side a detector from scratch has a cell every 8 pixels, beyond it every 16."""
SEGMENT_SIDE = 256
"""Side of the tiles that a segmenter from scratch sees, and of the images in which it finds
objects."""
THIN = 12.0
"""Pixels up to which a mask of one class counts as thin: such things are narrower than a patch."""
VIEWS = 256
"""Random views of images an epoch of a segmenter has at least."""
ONE_SHAPE = 1.1
"""Greatest ratio of the aspect ratios of images that count as one shape."""
_RATES = {"head": 1e-2, "lora": 2e-3}
"""Learning rates of fine-tuning that trains little."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe and how it came about.

    Attributes:
        name: Preset or file.
        recipe: Complete: model, image size and epochs are set.
        reason: One sentence for people.
    """

    name: str
    recipe: Recipe
    reason: str


def choose_recipe(
    source: Source,
    *,
    name: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    method: str | None = None,
    overrides: Iterable[str] = (),
) -> Chosen:
    """The recipe for a data set.

    Args:
        source: The data.
        name: A preset or a TOML file; None chooses by image size and number of images.
        model: A variant to train instead of the recipe's own; with weights, the variant that they
            are, where they do not tell.
        weights: Weights to go on from; they bring their own model and image size.
        method: What is trained, as in `optim.method`.
        overrides: Dotted assignments; they win over everything.

    Raises:
        ConfigError: a wrong key, type or value.
        DataError: no image can be read.
    """
    train = source.splits["train"]
    height, width = typical_size(train)
    side = max(height, width)
    overrides = list(overrides)
    given = weights is not None or any(word.startswith("weights.") for word in overrides)
    reason, first = "as asked", list[str]()
    if name is None and given:
        name, reason, first = _fine_tuning(train, side, method)
    elif name is None:
        name, reason = _preset(source, side)
    first += [] if weights is None else [f"weights.file={json.dumps(weights)}"]
    first += [] if method is None else [f"optim.method={method}"]
    overrides = first + overrides
    if given:
        overrides += [] if model is None else [f"weights.variant={model}"]
    elif model is not None:
        overrides.insert(0, f"model.name={model}")
    elif name == "strips":
        overrides.insert(0, f"model.image_size=[{LINE}, {_line_width(train)}]")
    elif name == "detect":
        rows, columns = _detect_size(height, width)
        overrides.insert(0, f"model.image_size=[{rows}, {columns}]")
        overrides.insert(1, f"model.resize={_detect_resize(train)}")
        if max(rows, columns) <= FINE_SIDE:
            overrides.insert(2, "model.name=vit_nano_conv8_128")
    elif name in ("segment", "segment-thin", "segment-objects"):
        overrides = [*_segment_size(name, train, height, width), *overrides]
    elif name == "small-images":
        overrides.insert(0, f"model.name={_small_model(side)}")
        overrides.insert(1, f"model.image_size=[{height}, {width}]")
    recipe = load_recipe(name, overrides)
    epochs = recipe.schedule.epochs_for(len(train) * recipe.data.views)
    schedule = recipe.schedule.model_copy(update={"epochs": epochs})
    recipe = recipe.model_copy(update={"schedule": schedule})
    return Chosen(name, recipe, f"{reason}; {epochs} epochs for {len(train)} training images")


def typical_size(dataset: Dataset) -> tuple[int, int]:
    """Median height and width of some images spread over the data set.

    Raises:
        DataError: none of them can be read.
    """
    sizes = _some_sizes(dataset)
    return round(median(h for h, _ in sizes)), round(median(w for _, w in sizes))


def typical_width(train: Dataset) -> float | None:
    """Median width in pixels of what the masks of one class show, by area and skeleton.

    None where there are several classes, or no mask shows anything.
    """
    from vitrail.metrics.topology import skeleton

    if len(train.classes) > 1 or not train.background:
        return None
    widths: list[float] = []
    for index in range(0, len(train), max(1, len(train) // LOOK)):
        try:
            target = train.targets[index]
        except BadSampleError:
            continue
        assert isinstance(target, Segments), "data with masks"
        ours = np.array([False, *(label != VOID for label in target.labels)])
        mask = np.asarray(ours[target.ids.numpy()].any(axis=0), dtype=np.bool_)
        length = int(skeleton(mask).sum())
        widths += [int(mask.sum()) / length] if length else []
    return median(widths) if widths else None


def _some_sizes(dataset: Dataset) -> list[tuple[int, int]]:
    step = max(1, len(dataset) // LOOK)
    sizes: list[tuple[int, int]] = []
    for index in range(0, len(dataset), step):
        try:
            image = dataset.read(index).image
        except BadSampleError:
            continue
        sizes.append((image.shape[1], image.shape[2]))
        if len(sizes) == LOOK:
            break
    if not sizes:
        raise DataError("no training image can be read; `vitrail check` lists why")
    return sizes


def _preset(source: Source, side: int) -> tuple[str, str]:
    train = source.splits["train"]
    count = len(train)
    on_image = _on_image(source)
    if on_image is not None:
        return on_image
    if train.text:
        return "strips", "the labels are texts"
    if source.name.partition(":")[0] == planted.NAME:
        return planted.NAME, "the built-in data of that name"
    if side <= SMALL_SIDE:
        return "small-images", f"images are about {side} pixels large (up to {SMALL_SIDE})"
    if count < MANY:
        return "small-data", f"{count} photos of about {side} pixels, fewer than {MANY}"
    return "deit", f"{count} photos, enough for the published recipe"


def _on_image(source: Source) -> tuple[str, str] | None:
    """The preset for labels that lie on the image."""
    train = source.splits["train"]
    if train.segments == "semantic":
        wide = typical_width(train)
        if wide is not None and wide <= THIN:
            return "segment-thin", f"the labels are masks about {wide:.0f} pixels wide"
        return "segment", "the labels are masks of classes"
    if train.segments is not None:
        return "segment-objects", "the labels are masks of objects"
    if not train.boxes:
        return None
    if source.name == shapes.NAME:
        return shapes.NAME, "the built-in data of that name"
    return "detect", "the labels are boxes"


def _fine_tuning(train: Dataset, side: int, method: str | None) -> tuple[str, str, list[str]]:
    """Preset, reason and what the data and the method change of it."""
    if train.text:
        return "strips", "weights are given, and the labels are texts", ["optim.lr=5e-4"]
    if train.boxes:
        return "detect-fine-tune", "weights are given, and the labels are boxes", []
    if train.segments is not None:
        return "segment-fine-tune", "weights are given, and the labels are masks", []
    changes: list[str] = []
    if side <= SMALL_SIDE:  # nothing is mirrored there, as in `small-images`
        changes += ["augment.hflip=0.0", 'augment.geometry={kind="affine"}']
        changes += ["augment.geometry.degrees=10", "augment.geometry.translate=0.07"]
    if method in _RATES:  # what starts from nothing
        changes += [f"optim.lr={_RATES[method]}", "optim.layer_decay=1.0"]
    return "fine-tune", "weights are given", changes


def _line_width(train: Dataset) -> int:
    """Width of the widest line that was looked at, at the height of a line, in whole squares."""
    widest = max(width / height for height, width in _some_sizes(train))
    return max(1, math.ceil(widest)) * LINE


def _detect_size(height: int, width: int) -> tuple[int, int]:
    """About `DETECT_AREA` pixels in the shape of the images, no more than they have."""
    scale = min(1.0, math.sqrt(DETECT_AREA / (height * width)))
    rows, columns = (max(1, round(side * scale / 32)) * 32 for side in (height, width))
    return rows, columns


def _segment_size(name: str, train: Dataset, height: int, width: int) -> list[str]:
    """Tiles at the images' own scale for classes, whole images for objects."""
    views = f"data.views={-(-VIEWS // len(train))}"
    if name != "segment-objects":
        rows, columns = (min(SEGMENT_SIDE, max(1, -(-side // 32)) * 32) for side in (height, width))
        return [f"model.image_size=[{rows}, {columns}]", "model.resize=tiles", views]
    scale = min(1.0, math.sqrt(SEGMENT_SIDE**2 / (height * width)))
    rows, columns = (max(1, round(side * scale / 32)) * 32 for side in (height, width))
    return [f"model.image_size=[{rows}, {columns}]", f"model.resize={_detect_resize(train)}", views]


def _detect_resize(train: Dataset) -> str:
    """Images of one shape lose nothing by being stretched a little; others would be bent."""
    shapes = sorted(width / height for height, width in _some_sizes(train))
    low, high = shapes[len(shapes) // 10], shapes[-1 - len(shapes) // 10]
    return "stretch" if high / low <= ONE_SHAPE else "fit"


def _small_model(side: int) -> str:
    """The stem's stride grows with the images, so that 16 to 64 patches remain."""
    return "vit_nano_conv2_8" if side <= 16 else "vit_nano_conv4_28"
