"""Whether thin things hold together: centrelines and pieces instead of areas."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

Mask = Bool[np.ndarray, "H W"]


def skeleton(mask: Mask) -> Mask:
    """The centreline of a mask, one pixel wide."""
    from skimage import morphology

    library: Any = morphology  # it says little of its types
    # Bools of 1-bit PNGs may be stored as 255, at which the library stumbles.
    return np.asarray(library.skeletonize(mask.view(np.uint8) != 0), dtype=np.bool_)


def centrelines(answer: Mask, truth: Mask) -> Int[np.ndarray, "4"]:
    """Count the pixels of each centreline that the other mask covers, as `f_measure` takes them.

    The F measure of that is clDice (Shit et al. 2021, eq. 1 and 2): topology precision
    |S_P ∩ V_L| / |S_P|, topology sensitivity |S_L ∩ V_P| / |S_L|, with the skeletons S of the
    answer P and the truth L, and their masks V.
    """
    ours, theirs = skeleton(answer), skeleton(truth)
    return np.array(
        [
            np.count_nonzero(ours & truth),
            np.count_nonzero(ours),
            np.count_nonzero(theirs & answer),
            np.count_nonzero(theirs),
        ]
    )


def pieces(mask: Mask) -> int:
    """Connected components, Betti number 0; pixels that touch at a corner are connected."""
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    library: Any = ndimage  # it says little of its types
    _, count = library.label(mask, np.ones((3, 3)))
    return int(count)


def betti0_error(answer: Mask, truth: Mask) -> int:
    """By how many pieces too many or too few the answer has."""
    return abs(pieces(answer) - pieces(truth))
