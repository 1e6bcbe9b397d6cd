"""The values that travel between the parts.

Glossary of shapes: B batch, N tokens, D width, H W height and width, P patch, h heads,
Q queries, C channels or classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int16, UInt8
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns of patches (or of pixels)."""

Corners = tuple[float, float, float, float]
"""A box as x1, y1, x2, y2 in pixels: from the left and upper edge of the image, right and lower
edges outside, so that a box around one pixel is 1 wide."""


@dataclass(frozen=True, slots=True)
class Box:
    """One object.

    Attributes:
        corners: Where it is.
        label: Index of its class.
        crowd: Whether it stands for many objects that nobody told apart (COCO `iscrowd`): it is
            neither learned nor missed.
        area: Pixels of the object itself, where the data know them (COCO `area`); the box else.
    """

    corners: Corners
    label: int
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class Boxes:
    """All objects of an image; there may be none.

    Attributes:
        items: One an object.
        size: Height and width of the image in whose pixels the corners are; None before it was
            decoded.
    """

    items: tuple[Box, ...] = ()
    size: Grid | None = None


VOID = -1
"""Label of a segment whose pixels are not judged: nobody knows what they show."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Which pixels of an image show what: classes, objects, or both.

    Attributes:
        ids: At each pixel the number of its segment, counted from 1; 0 where there is none, which
            is background. Objects that overlap lie on several layers.
        labels: Class of each segment, or `VOID`.
        crowds: Whether each stands for many objects that nobody told apart (COCO `iscrowd`);
            empty where none does.
    """

    ids: Int16[Tensor, "L H W"]
    labels: tuple[int, ...]
    crowds: tuple[bool, ...] = ()

    @property
    def size(self) -> Grid:
        """Height and width of the image."""
        return self.ids.shape[1], self.ids.shape[2]


Target = int | tuple[int, ...] | str | Boxes | Segments | None
"""A class index, the sorted indices of a multi-label sample, the text of an image to transcribe,
the objects of an image, its segments, or None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded image, upright, with its label; nothing has been augmented.

    Attributes:
        id: Stable name within the data set: a relative path, or `train/123` for array data.
        image: Pixels, RGB, 0 to 255.
        target: What the label file says.
        evidence: The pixels on which the label rests, where the data know them.
    """

    id: str
    image: UInt8[Tensor, "3 H W"]
    target: Target
    evidence: Bool[Tensor, "H W"] | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A sample as a model sees it: resized, perhaps augmented.

    Attributes:
        image: Pixels, RGB, 0 to 255.
        target: The label; boxes and segments are in pixels of this view.
        extent: Rows and columns, from the upper left, that show the image; what is right of and
            below them was filled up. None where nothing was.
    """

    image: UInt8[Tensor, "3 H W"]
    target: Target
    extent: Grid | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used, and why (contract 5: never silent)."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Prepared images of one size.

    Attributes:
        ids: One name an image.
        images: RGB, 0 to 255, not yet normalised.
        targets: One target an image.
        skipped: The samples of this batch that could not be read; they are not in `images`.
        sizes: Height and width of each image before it was prepared.
        extents: Rows and columns of each image that show it; empty where none was filled up.
    """

    ids: tuple[str, ...]
    images: UInt8[Tensor, "B 3 H W"]
    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...] = ()
    sizes: tuple[Grid, ...] = ()
    extents: tuple[Grid, ...] = ()


@dataclass(frozen=True, slots=True)
class Features:
    """What a backbone gives to a task.

    Attributes:
        maps: Feature maps from fine to coarse; `maps[i]` has stride `strides[i]`.
        tokens: All tokens after the last norm, prefix tokens (class, registers) first.
        pooled: One vector an image, what a classifier consumes.
        distilled: The distillation token's vector, where the backbone has one (DeiT).
        queries: Tokens that were given to find one object each, where it has them (YOLOS).
        pixel_mask: True where a pixel shows the image, False where it was filled up; None where
            no image of the batch was.
        images: The normalised images, for heads that look at details which no map has.
    """

    maps: tuple[Float[Tensor, "B _C _H _W"], ...]
    tokens: Float[Tensor, "B N D"]
    pooled: Float[Tensor, "B D"]
    distilled: Float[Tensor, "B D"] | None = None
    queries: Float[Tensor, "B Q D"] | None = None
    pixel_mask: Bool[Tensor, "B H W"] | None = None
    images: Float[Tensor, "B 3 H W"] | None = None


class Found(NamedTuple):
    """Objects as a decoder layer sees them.

    Attributes:
        logits: One a class; with a softmax the last is "no object".
        boxes: Centre x, centre y, width and height as shares of the image, without what was
            filled up, 0 to 1.
    """

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]


class Detections(NamedTuple):
    """Raw output of a detector.

    Attributes:
        logits: Of the last layer, as in `Found`.
        boxes: Likewise.
        earlier: While training, of the layers before it, first layer first.
        proposals: While training, of the tokens from which the queries were chosen; None where
            queries are learned.
    """

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]
    earlier: tuple[Found, ...] = ()
    proposals: Found | None = None


class PixelLogits(NamedTuple):
    """Raw output of a model that tells the class of every pixel.

    Attributes:
        logits: One a class at each cell of a map that covers the image. Where there is a
            background its logit is 0, so that one class alone is a sigmoid.
    """

    logits: Float[Tensor, "B C _H _W"]


class MaskQueries(NamedTuple):
    """Raw output of a model whose queries each tell a segment.

    Attributes:
        logits: Class of each query; with a softmax the last is "no segment".
        masks: Logit of each query at each cell of a map that covers the image.
        boxes: As in `Found`, where queries know them.
        earlier: While training, of the layers before.
    """

    logits: Float[Tensor, "B Q C"]
    masks: Float[Tensor, "B Q _H _W"]
    boxes: Float[Tensor, "B Q 4"] | None = None
    earlier: tuple[MaskQueries, ...] = ()


class MaskVectors(NamedTuple):
    """What masks follow from while training, when most queries have none to learn.

    Attributes:
        found: Classes and boxes of the queries after each layer, first layer first.
        vectors: After each layer, what is compared with every pixel.
        places: After each layer, boxes as shares of the whole view, with what was filled up.
        pixels: The embedding of pixels.
        foreground: Logit of each cell to be of any segment, which all masks share.
        proposals: As in `Detections`.
    """

    found: tuple[Found, ...]
    vectors: tuple[Float[Tensor, "B Q _E"], ...]
    places: tuple[Float[Tensor, "B Q 4"], ...]
    pixels: Float[Tensor, "B _P _H _W"]
    foreground: Float[Tensor, "B 1 _H _W"]
    proposals: Found | None


@dataclass(frozen=True, slots=True)
class Classification:
    """The prediction for one image.

    Attributes:
        label: Name of the best class; for multi-label data all classes over the threshold,
            joined with `;` as they are written in the CSV.
        score: Probability of that class; for multi-label data the highest score.
        scores: Probability of every class by name, in the order of the model's classes.
    """

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Transcription:
    """The text read from one image.

    Attributes:
        text: The symbols, without the end mark.
        score: Probability of the whole text under the model, 0 to 1.
    """

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Detection:
    """The objects found in one image, the surest first.

    Attributes:
        boxes: Where each is, in pixels of the original upright image.
        labels: Name of each one's class.
        scores: Probability of each, 0 to 1.
        queries: The query that found each, which is what its attention is asked of.
    """

    boxes: tuple[Corners, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    queries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Region:
    """One segment of an answer.

    Attributes:
        label: Name of its class.
        score: How sure the model is, 0 to 1; of a class, the mean over its pixels.
        rle: Its pixels, as COCO's compressed run lengths (pycocotools `counts`).
        query: The query that told it; None where classes are told pixel by pixel.
    """

    label: str
    score: float
    rle: bytes
    query: int | None = None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The segments of one image.

    Attributes:
        size: Height and width of the original upright image, in whose pixels regions are.
        regions: Of classes one each, in the order of the classes; of objects the surest first.
            Objects may overlap, other regions do not.
        confidence: Probability of foreground at each pixel in steps of 1/255, rows packed by
            zlib, where there is one class and a background; else None.
    """

    size: Grid
    regions: tuple[Region, ...]
    confidence: bytes | None = None


Prediction = Classification | Transcription | Detection | Segmentation
