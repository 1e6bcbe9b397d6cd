"""What a page shows of one image: the answer, maps with their curves, attention. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vitrail.explain.faithfulness.curves import Curves
from vitrail.explain.faithfulness.pixels import cell_side
from vitrail.explain.layers import AttentionLayer
from vitrail.explain.method import Method
from vitrail.explain.objects import count_words, threshold_of
from vitrail.explain.page.budget import Extent, Plan
from vitrail.explain.page.curves import CurveView, view_curves
from vitrail.explain.page.packed import Packed, pack
from vitrail.explain.page.stream import Written, stream_attention
from vitrail.explain.patch_pca import patch_rgb
from vitrail.explain.token_norms import token_norms
from vitrail.model import Model
from vitrail.report_pictures import Picture, picture
from vitrail.tasks.classify import Classify
from vitrail.tasks.segment import Segment
from vitrail.types import Classification, Detection, Grid, Region, Segmentation, Transcription

LONGEST = 640
"""Longest side of an image on the page in pixels; a model's input is rarely larger."""


@dataclass(frozen=True, slots=True)
class MapView:
    """A map over an image.

    Attributes:
        key: Short name of the method.
        name: What people call it.
        paper: Where it comes from.
        target: The class or region that it is about; "" where it is about none.
        cells: Values, greater where more speaks for the class.
        cell: Height and width of a cell in pixels of the model's input.
        curves: How the model's answer changes with what the map calls important.
        said: What else there is to say of this one.
    """

    key: str
    name: str
    paper: str
    target: str
    cells: Float[np.ndarray, "h w"]
    cell: Grid
    curves: tuple[CurveView, ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True)
class ColourView:
    """Patch features in three colours.

    Attributes:
        cells: Red, green and blue, 0 to 255.
        cell: Height and width of a cell in pixels.
    """

    cells: UInt8[np.ndarray, "h w 3"]
    cell: Grid


@dataclass(frozen=True, slots=True)
class NormView:
    """Lengths of the tokens' vectors at one point of the model.

    Attributes:
        name: After which block, or `output`.
        cells: Of the places.
        cell: Height and width of a cell in pixels.
        tokens: Name and length of each token that is no place.
        outliers: Share of the places that are far longer than the median, 0 to 1.
    """

    name: str
    cells: Float[np.ndarray, "h w"]
    cell: Grid
    tokens: tuple[tuple[str, float], ...]
    outliers: float


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What a model says of an image.

    Attributes:
        label: In one word.
        score: Probability, 0 to 1.
        best: The most probable classes with their probabilities.
        truth: What the data says; "" where nothing is known.
    """

    label: str
    score: float
    best: tuple[tuple[str, float], ...] = ()
    truth: str = ""


@dataclass(frozen=True, slots=True)
class ImageView:
    """One image of a page.

    Attributes:
        id: Its name.
        size: Height and width of the model's input.
        picture: That input.
        answer: What the model says.
        written: The text, for a transcriber.
        maps: One a method and class, or region.
        masks: Pixels of the regions that maps are about, in their order; None where there are none.
        note: What has to be said of the answer; empty where there is nothing.
        features: Patch features as colours.
        norms: Lengths of the tokens after each block.
        attention: One a layer of the model, or None where it was left out; () where all were.
    """

    id: str
    size: Grid
    picture: Picture
    answer: AnswerView
    written: Written | None = None
    maps: tuple[MapView, ...] = ()
    features: ColourView | None = None
    norms: tuple[NormView, ...] = ()
    attention: tuple[Packed | None, ...] = ()
    masks: Bool[np.ndarray, "K H W"] | None = None
    note: str = ""

    @property
    def extent(self) -> Extent:
        """What decides how many weights it has."""
        return Extent(self.size, 0 if self.written is None else len(self.written.symbols))


@torch.no_grad()
def view_answer(model: Model, image: UInt8[Tensor, "3 H W"], truth: str = "") -> AnswerView:
    """The model's answer for a prepared image."""
    size = _size(image)
    (prediction,) = model.task.postprocess(model(image[None]), [size], [size])
    match prediction:
        case Classification(label=label, score=score, scores=scores):
            best = sorted(scores.items(), key=lambda one: -one[1])[:5]
            return AnswerView(label, score, tuple(best), truth)
        case Transcription(text=text, score=score):
            return AnswerView(text, score, truth=truth)
        case Detection(labels=labels, scores=scores):
            best = tuple(zip(labels[:5], scores[:5], strict=True))
            least = threshold_of(model)
            sure = [name for name, score in zip(labels, scores, strict=True) if score >= least]
            return AnswerView(count_words(sure), max(scores, default=0.0), best, truth)
        case Segmentation(regions=regions):
            return _answer_of_regions(model, regions, truth)


def _answer_of_regions(model: Model, regions: Sequence[Region], truth: str) -> AnswerView:
    """Classes by name, objects counted."""
    task = model.task
    assert isinstance(task, Segment), "only a segmenter has regions"
    least = task.config.threshold if task.config.answer == "instance" else 0.0
    sure = [one.label for one in regions if one.score >= least]
    label = ", ".join(sure) if task.config.answer == "semantic" else count_words(sure)
    ranked = sorted(regions, key=lambda one: -one.score)
    best = tuple((one.label, one.score) for one in ranked[:5])
    return AnswerView(label, best[0][1] if best else 0.0, best, truth)


def view_picture(image: UInt8[Tensor, "3 H W"]) -> Picture:
    """A prepared image for the page."""
    return picture(image.permute(1, 2, 0).numpy(force=True), longest=LONGEST)


def view_map(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    method: Method,
    target: int | None,
    random: Curves | None,
) -> MapView:
    """The map of a method, and what becomes of the answer along it.

    Args:
        model: In evaluation mode; a classifier, or the method asks for no class.
        image: Prepared.
        method: One that does not refuse the model.
        target: The class that is asked about; None for a task without classes.
        random: Curves of a random map for that class, from `random_curves`; None for no curves.
    """
    cells = method.explain(model, image[None], [] if target is None else [target]).detach()
    cell = cell_side(model, _size(image), (cells.shape[1], cells.shape[2]))
    found: tuple[CurveView, ...] = ()
    if random is not None and target is not None:
        found = view_curves(model, image, target, cells, random)
    task, name = model.task, ""
    if method.of_class and isinstance(task, Classify) and target is not None:
        name = task.config.classes[target]
    values = cells[0].float().numpy(force=True)
    return MapView(method.key, method.name, method.paper, name, values, cell, found)


def view_features(model: Model, image: UInt8[Tensor, "3 H W"]) -> ColourView:
    """Patch features as colours, of this image by itself."""
    colours = patch_rgb(model, image[None])[0].permute(1, 2, 0)
    cells = (255 * colours).round().to(torch.uint8).numpy(force=True)
    return ColourView(cells, cell_side(model, _size(image), cells.shape[:2]))


def view_norms(model: Model, image: UInt8[Tensor, "3 H W"]) -> tuple[NormView, ...]:
    """Lengths of tokens after each block, and of the output."""
    return tuple(
        NormView(
            one.name,
            one.norms[0].numpy(force=True),
            cell_side(model, _size(image), (one.norms.shape[1], one.norms.shape[2])),
            tuple((name, float(length)) for name, length in one.prefix.items()),
            float(one.share()),
        )
        for one in token_norms(model, image[None])
    )


def view_attention(
    model: Model,
    image: UInt8[Tensor, "3 H W"],
    layers: Sequence[AttentionLayer],
    plan: Plan,
    written: Written | None = None,
) -> tuple[Packed | None, ...]:
    """Attention of every layer that the plan keeps; one layer in memory at a time."""
    extent = Extent(_size(image), 0 if written is None else len(written.symbols))
    wanted = [layer.index for layer in layers[plan.first :]]
    found: list[Packed | None] = [None] * plan.first
    for seen in stream_attention(model, image, wanted, written):
        block = plan.block(seen.layer, extent)
        found.append(
            pack(seen.weights[0], seen.layout, block=block, bits=plan.bits, error=seen.error)
        )
    return tuple(found)


def _size(image: UInt8[Tensor, "3 H W"]) -> Grid:
    return image.shape[1], image.shape[2]
