"""Patch features as colours: their first three principal components (DINOv2, Fig. 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.errors import ExplainError
from vitrail.model import Model


def patch_rgb(
    model: Model,
    images: UInt8[Tensor, "B 3 H W"],
    *,
    feature_map: int = -1,
    jointly: bool = False,
) -> Float[Tensor, "B 3 h w"]:
    """Like features, like colours: the first three components of a feature map as red, green, blue.

    Oquab et al. 2024, "PCA of patch features" (Fig. 1); the background is not cut off.
    Each component is stretched from 0 to 1; one without variance is 0.5 everywhere. The sign of a
    component is free; it is set so that its largest weight is positive.

    Args:
        model: In evaluation mode.
        images: Prepared.
        feature_map: Which of `Features.maps`, negative from the end.
        jointly: Whether the components are those of all images together, so that colours mean the
            same in all of them, or of each image by itself.

    Raises:
        ExplainError: no such map.
    """
    count = len(model.backbone.strides)
    if not -count <= feature_map < count:
        raise ExplainError(
            f"feature map {feature_map}: this model has {count}, 0 to {count - 1} "
            f"(or -{count} to -1 from the end)"
        )
    with torch.no_grad():
        chosen = model.backbone(model.normalise(images)).maps[feature_map]
    height, width = chosen.shape[-2:]
    cells = chosen.flatten(2).transpose(1, 2)  # B N C
    groups = [cells.flatten(0, 1)] if jointly else list(cells)
    colours = torch.cat([_components(group) for group in groups])
    return colours.view(-1, height, width, 3).permute(0, 3, 1, 2).contiguous()


def _components(vectors: Float[Tensor, "n C"]) -> Float[Tensor, "n 3"]:
    """Three columns from 0 to 1; in float64 on the CPU, where the result is always the same."""
    table = vectors.detach().cpu().double()
    table = table - table.mean(dim=0)
    _, singular, directions = torch.svd(table)
    # What is no more than rounding errors of the features has no direction of its own.
    kept = int((singular[:3] > 1e-5 * singular[0].clamp_min(1e-30)).sum())
    directions = directions.T[:kept]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    values = table @ (directions * largest.sign()).T
    low, high = values.amin(dim=0), values.amax(dim=0)
    colours = torch.full((len(table), 3), 0.5, dtype=torch.float64)
    colours[:, :kept] = ((values - low) / (high - low)).clamp(0, 1)
    return colours.float().to(vectors.device)
