"""Agreement within a few pixels: of areas, and of the boundaries between them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

Mask = Bool[np.ndarray, "H W"]


def dilate(mask: Mask, radius: int) -> Mask:
    """All pixels at most so far from a mask, in a straight line between centres of pixels."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    result = np.zeros_like(mask)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                result |= padded[radius + y :, radius + x :][:height, :width]
    return result


def within(answer: Mask, truth: Mask, tolerance: int) -> Int[np.ndarray, "4"]:
    """Count the pixels of one mask that are near the other, as `f_measure` takes them.

    Args:
        answer: One mask.
        truth: The other.
        tolerance: Pixels, the radius of a disc.
    """
    return np.array(
        [
            np.count_nonzero(answer & dilate(truth, tolerance)),
            np.count_nonzero(answer),
            np.count_nonzero(truth & dilate(answer, tolerance)),
            np.count_nonzero(truth),
        ]
    )


def boundary(mask: Mask) -> Mask:
    """Pixels that differ from the one to the right, below, or both (Perazzi et al. 2016)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ both)


def boundary_within(answer: Mask, truth: Mask, tolerance: int) -> Int[np.ndarray, "4"]:
    """Count as `within` on the boundaries alone.

    The F measure of that is DAVIS's boundary accuracy F (Perazzi et al. 2016, "A Benchmark Dataset
    and Evaluation Methodology for Video Object Segmentation"), with a bound in pixels.
    """
    return within(boundary(answer), boundary(truth), tolerance)
