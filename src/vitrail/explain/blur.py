"""A blurred copy: what stands for "nothing to be seen here" without tearing an edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


def blurred(images: Float[Tensor, "*B H W"], sigma: float) -> Float[Tensor, "*B H W"]:
    """Gaussian blur of each channel, edges mirrored, cut off at three standard deviations.

    Args:
        images: Any channels.
        sigma: Standard deviation in pixels.
    """
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    # The types of scipy leave out what comes back.
    gaussian: Callable[..., NDArray[Any]] = cast("Any", ndimage).gaussian_filter
    pixels: NDArray[Any] = images.numpy(force=True)
    done = gaussian(pixels, sigma, mode="mirror", truncate=3, axes=(-2, -1))
    return torch.from_numpy(done).to(images.device)  # pyright: ignore[reportUnknownMemberType]
