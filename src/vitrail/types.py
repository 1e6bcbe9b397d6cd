"""The values that travel between the parts.

Glossary of shapes: B batch, N tokens, D width, H W height and width, P patch, h heads,
Q queries, C channels or classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Target = int | tuple[int, ...] | str | None
"""A class index, the sorted indices of a multi-label sample, the text of an image to transcribe,
or None where nothing is known."""

Grid = tuple[int, int]
"""Rows and columns of patches (or of pixels)."""


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
    """

    ids: tuple[str, ...]
    images: UInt8[Tensor, "B 3 H W"]
    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class Features:
    """What a backbone gives to a task.

    Attributes:
        maps: Feature maps from fine to coarse; `maps[i]` has stride `strides[i]`.
        tokens: All tokens after the last norm, prefix tokens (class, registers) first.
        pooled: One vector an image, what a classifier consumes.
        distilled: The distillation token's vector, where the backbone has one (DeiT).
    """

    maps: tuple[Float[Tensor, "B _C _H _W"], ...]
    tokens: Float[Tensor, "B N D"]
    pooled: Float[Tensor, "B D"]
    distilled: Float[Tensor, "B D"] | None = None


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


Prediction = Classification | Transcription
