"""What becomes of segments when an image is cut out, resampled and filled up.

Numbers of segments are never mixed: each pixel of a view takes the number that stands under its
centre, where the filter of the image has its centre too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from vitrail.types import VOID, Grid, Segments

Number = TypeVar("Number", bound=np.generic)


def resampled(segments: Segments, size: Grid) -> Segments:
    """The segments of an image after it was stretched to another height and width."""
    if segments.size == size:
        return segments
    return replace(segments, ids=_tensor(nearest(segments.ids.numpy(), size)))


def filled_void(segments: Segments, size: Grid) -> Segments:
    """More rows below and columns on the right, which are not judged."""
    rows, columns = segments.size
    if (rows, columns) == size:
        return segments
    ids = segments.ids.numpy()
    whole = canvas(ids.shape[0], size, len(segments.labels) + 1)
    whole[:, :rows, :columns] = ids
    return with_void(whole, segments)


def nearest(ids: NDArray[Number], size: Grid) -> NDArray[Number]:
    """Values under the centres of the pixels of another grid over the same image.

    Args:
        ids: Layers, height, width.
        size: Height and width of the result.
    """
    height, width = ids.shape[1], ids.shape[2]
    if height != size[0]:
        ids = ids[:, _under_centres(height, size[0])]
    return ids if width == size[1] else ids[:, :, _under_centres(width, size[1])]


def _under_centres(side: int, length: int) -> NDArray[np.intp]:
    """For each pixel of a line that was stretched to a length, the one that lies under it."""
    return (2 * np.arange(length) + 1) * side // (2 * length)


def canvas(layers: int, size: Grid, number: int) -> NDArray[np.int16]:
    """Layers of which the first is all of one segment, and the others are empty."""
    ids = np.zeros((layers, *size), dtype=np.int16)
    ids[0] = number
    return ids


def with_void(ids: NDArray[np.int16], segments: Segments) -> Segments:
    """Segments with one more, which has the next number and is not judged."""
    crowds = (*segments.crowds, False) if segments.crowds else ()
    return Segments(_tensor(ids), (*segments.labels, VOID), crowds)


def compact(segments: Segments, least: Float[np.ndarray, "K"] | None = None) -> Segments:
    """Segments that have pixels, numbered from 1 without gaps, on layers that are not empty.

    Args:
        segments: Some may have lost their pixels.
        least: Pixels that each must have; what is left of a smaller one becomes void, for it is
            no background either.
    """
    ids, labels = segments.ids.numpy(), segments.labels
    counts = np.bincount(ids.ravel(), minlength=len(labels) + 1)[1:]
    crowds = segments.crowds or (False,) * len(labels)
    numbers = np.zeros(len(labels) + 1, dtype=np.int16)
    kept: list[tuple[int, bool]] = []
    void = 0
    for k, (label, crowd) in enumerate(zip(labels, crowds, strict=True)):
        if counts[k] == 0:
            continue
        judged = label != VOID and (least is None or counts[k] >= least[k])
        if judged or not void:
            kept.append((label, crowd) if judged else (VOID, False))
            void = void if judged else len(kept)
        numbers[k + 1] = len(kept) if judged else void
    if len(kept) < len(labels) or void:
        ids = numbers[ids]
    if len(ids) > 1:
        used = [layer for layer in ids if layer.any()] or [ids[0]]
        ids = np.stack(used) if len(used) < len(ids) else ids
    return Segments(
        _tensor(ids),
        tuple(label for label, _ in kept),
        tuple(crowd for _, crowd in kept) if any(crowd for _, crowd in kept) else (),
    )


def _tensor(ids: NDArray[np.int16]) -> torch.Tensor:
    # Torch wants memory that can be written to, in the order of growing addresses.
    return torch.from_numpy(np.ascontiguousarray(ids))  # pyright: ignore[reportUnknownMemberType]
