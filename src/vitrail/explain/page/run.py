"""Explain some images: one page, and beside it arrays and pictures for papers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import torch
from jaxtyping import UInt8
from torch import Tensor

from vitrail.config import nearest
from vitrail.data.dataset import Dataset
from vitrail.errors import BadSampleError, ExplainError, ImageSizeError
from vitrail.explain.distance import attention_distance
from vitrail.explain.layers import attention_layers
from vitrail.explain.method import Method
from vitrail.explain.methods import METHODS
from vitrail.explain.occlusion import Occlusion
from vitrail.explain.page.arrays import write_arrays
from vitrail.explain.page.budget import FINEST, Plan, make_plan
from vitrail.explain.page.html import DistanceView, PageView, image_bytes, render_page, write_page
from vitrail.explain.page.look import look
from vitrail.explain.page.notes import facts, notes_on
from vitrail.explain.page.packed import Bits, Packed
from vitrail.explain.page.prints import write_prints
from vitrail.explain.page.stream import layers_shown
from vitrail.explain.page.view import ImageView, view_attention
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.tasks.detect import Detect
from vitrail.tasks.segment import Segment
from vitrail.types import Sample, Skipped

MAX_BYTES = 12_000_000
"""Of a page: it still opens at once, and can be sent by mail."""

IMAGES_SHARE = 0.6
"""Of the room on a page, for images and maps; the rest is for attention."""

DISTANCES = 16
"""Most images over which attention distances are averaged."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        about: Class that the maps are about; None for the predicted one. The true class is added
            where the data knows it. Of a segmenter: regions of this class alone.
        methods: Class maps; None for all that serve the model, without the baselines, and of a
            segmenter without occlusion: that is a pass for each place and region.
        curves: Whether to measure deletion and insertion: 34 forward passes a map; of regions, of
            the default method alone.
        png: Whether to write pictures at print size beside the page.
        npz: Whether to write an archive of arrays an image beside the page.
        max_bytes: Most bytes of the page.
    """

    about: str | None = None
    methods: tuple[Method, ...] | None = None
    curves: bool = True
    png: bool = False
    npz: bool = False
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True, slots=True)
class Explained:
    """What was written.

    Attributes:
        page: The page.
        images: Names of the images on it.
        left_out: Names of those that had no room on it.
        skipped: Images that could not be used.
        files: Arrays and pictures.
        notes: What the page says of what is left out or coarser.
        error: Largest relative difference between `weights @ v` and the fused output.
    """

    page: Path
    images: tuple[str, ...]
    left_out: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    error: float


@dataclass(slots=True)
class _Seen:
    """What the first pass over the images leaves."""

    views: list[ImageView]
    prepared: list[UInt8[Tensor, "3 H W"]]
    left_out: list[str]
    skipped: list[Skipped]
    files: list[Path]


def explain(
    model: Model,
    dataset: Dataset,
    *,
    out: Path,
    name: str = "model",
    wanted: Wanted | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _done: None,
) -> Explained:
    """Write a page to look into a model at some images.

    One image and one layer are in memory at a time. What does not fit into the page is named on it.

    Args:
        model: It is put into evaluation mode.
        dataset: Labels are not needed (`vitrail.data.images.open_images`).
        out: File of the page; arrays and pictures go to a folder beside it, `<name>-files`.
        name: Of the model, for people.
        wanted: What to show.
        notes: What has to be said on the page beside what follows from the data.
        progress: Called after each image with the number done.

    Raises:
        ExplainError: an unknown class, a method that cannot explain this model, too little room for
            a page, or no image that can be read.
        ModelFileError: the page cannot be written.
    """
    wanted = wanted or Wanted()
    model.eval()
    methods, refused = _methods(model, wanted)
    about = _class_named(model, wanted.about)
    layers = layers_shown(model)
    empty = PageView(name, facts(model), layers, notes=tuple(notes), refused=refused)
    frame = len(render_page(empty).encode())
    if frame >= wanted.max_bytes:
        raise ExplainError(
            f"--max-mb {wanted.max_bytes / 1e6:g}: a page without any image has {frame / 1e6:.2f} "
            "MB; give more"
        )
    room = IMAGES_SHARE * (wanted.max_bytes - frame)
    seen = _look(model, dataset, methods, about, wanted, out, room, progress)
    if not seen.views:
        reasons = "; ".join(f"{bad.id}: {bad.reason}" for bad in seen.skipped[:3])
        raise ExplainError(f"no image could be used ({reasons or 'the data set is empty'})")
    page = replace(
        empty,
        images=tuple(seen.views),
        distances=_distances(model, seen.prepared),
        skipped=tuple(seen.skipped),
    )
    page = _with_attention(model, page, seen, wanted)
    write_page(page, out)
    errors = [one.error for view in page.images for one in view.attention if one]
    return Explained(
        out,
        tuple(view.id for view in page.images),
        tuple(seen.left_out),
        page.skipped,
        tuple(seen.files),
        page.notes,
        max(errors, default=0.0),
    )


def _look(
    model: Model,
    dataset: Dataset,
    methods: Sequence[Method],
    about: int | None,
    wanted: Wanted,
    out: Path,
    room: float,
    progress: Callable[[int], None],
) -> _Seen:
    """All but attention, image by image, while there is room; the first one always has."""
    seen, full = _Seen([], [], [], [], []), False
    device = next(model.parameters()).device
    folder = out.with_name(f"{out.stem}-files")
    for number in range(len(dataset)):
        progress(number)
        if full and not (wanted.npz or wanted.png):
            seen.left_out.append(dataset.ids[number])
            continue
        try:
            sample = dataset.read(number)
            image = _alone(model, sample).to(device)
            view = look(model, dataset, sample, image, methods, about, curves=wanted.curves)
        except (BadSampleError, ImageSizeError) as bad:
            seen.skipped.append(Skipped(dataset.ids[number], str(bad)))
            continue
        seen.files += _write_beside(model, view, image, folder, number, wanted)
        room -= image_bytes(view)
        full = full or (room < 0 and bool(seen.views))
        if full:
            seen.left_out.append(view.id)
            continue
        seen.views.append(view)
        seen.prepared.append(image)
    return seen


def _alone(model: Model, sample: Sample) -> UInt8[Tensor, "3 H W"]:
    """The model's input for one image: nothing has to be filled up beside it."""
    view = model.config.preprocess.view(sample)
    rows, columns = view.extent or (view.image.shape[1], view.image.shape[2])
    return view.image[:, :rows, :columns].contiguous()


def _refuses(model: Model, method: Method) -> str:
    """Why a map would say nothing of this model's answers; empty where it does."""
    if isinstance(model.task, Detect) and not method.of_class:
        return "a detector has many answers; “Where each object was found” has a map for each"
    if isinstance(model.task, Segment) and not method.of_class:
        return "a segmenter has many answers; the other maps are of one region each"
    return method.refuses(model)


def _methods(
    model: Model, wanted: Wanted
) -> tuple[tuple[Method, ...], tuple[tuple[str, str], ...]]:
    """Those that serve the model, and why others do not.

    Raises:
        ExplainError: a method that was asked for by name does not.
    """
    chosen = wanted.methods
    if chosen is None:
        chosen = tuple(method for method in METHODS if not method.baseline)
        if isinstance(model.task, Segment):
            chosen = tuple(method for method in chosen if not isinstance(method, Occlusion))
    refused = tuple((one.name, why) for one in chosen if (why := _refuses(model, one)))
    if refused and wanted.methods is not None:
        raise ExplainError(f"{refused[0][0]}: {refused[0][1]}")
    return tuple(one for one in chosen if not _refuses(model, one)), refused


def _class_named(model: Model, name: str | None) -> int | None:
    """Number of a class.

    Raises:
        ExplainError: the model has no such class, or none at all.
    """
    if name is None:
        return None
    task = model.task
    if not isinstance(task, Classify | Segment):
        kind = model.config.task.kind
        raise ExplainError(
            f"class '{name}': only a classifier is asked so, and this model does {kind}; give none"
        )
    classes = task.config.classes
    if name not in classes:
        shown = ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")
        raise ExplainError(f"unknown class '{name}'{nearest(name, classes)}; there are {shown}")
    return classes.index(name)


def _with_attention(model: Model, page: PageView, seen: _Seen, wanted: Wanted) -> PageView:
    """The page with as much attention as has room, and notes on the rest."""
    extents = [view.extent for view in page.images]
    room = wanted.max_bytes - len(render_page(page).encode()) - 4096  # notes come
    plan = make_plan(page.layers, extents, room)
    if plan.images < len(extents) or plan.bits == 8:
        plan = make_plan(page.layers, extents, room, _shrunk(model, page, seen, room))
    views = list(page.images)
    for i, image in enumerate(seen.prepared[: plan.images]):
        found = view_attention(model, image, page.layers, plan, views[i].written)
        room -= _bytes(found)
        if room < 0:
            break
        views[i] = replace(views[i], attention=found)
    notes = notes_on(page.layers, views, plan, seen.left_out, wanted.max_bytes)
    return replace(page, images=tuple(views), notes=(*page.notes, *notes))


def _shrunk(model: Model, page: PageView, seen: _Seen, room: int) -> Mapping[Bits, float]:
    """What deflate leaves of the first image's attention, with a margin for the others."""
    view, found = page.images[0], dict[Bits, float]()
    choices: tuple[Bits, ...] = (16, 8)
    for bits in choices:
        plan = Plan(bits, FINEST, 0, 1)
        most = plan.cost(page.layers, view.extent)
        if most < 4 * room:
            packed = view_attention(model, seen.prepared[0], page.layers, plan, view.written)
            found[bits] = min(1.0, 1.1 * _bytes(packed) / most)
    return found


def _bytes(attention: Sequence[Packed | None]) -> int:
    """What it takes on the page: in base64, with a description each."""
    return sum(len(one.data) * 4 // 3 + 512 for one in attention if one)


def _distances(model: Model, images: Sequence[UInt8[Tensor, "3 H W"]]) -> DistanceView | None:
    """How far heads look, over the first images of one size."""
    if not attention_layers(model.backbone):
        return None
    same = [image for image in images if image.shape == images[0].shape][:DISTANCES]
    found = attention_distance(model, torch.stack(same))
    names = tuple(one.layer.name for one in found)
    numbers = tuple(one.layer.index for one in found)
    return DistanceView(names, numbers, tuple(one.pixels for one in found), len(same))


def _write_beside(
    model: Model,
    view: ImageView,
    image: UInt8[Tensor, "3 H W"],
    folder: Path,
    number: int,
    wanted: Wanted,
) -> list[Path]:
    stem = f"{number:03d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', PurePath(view.id).stem)[:60]}"
    files: list[Path] = []
    if wanted.npz:
        files.append(write_arrays(model, view, image, folder / f"{stem}.npz"))
    if wanted.png:
        files += write_prints(model, view, image, folder, stem)
    return files
