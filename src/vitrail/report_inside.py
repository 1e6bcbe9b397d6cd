"""What a report shows of the model itself: the pictures of Figure 7 of the ViT paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrail.data.dataset import Dataset, Source
from vitrail.explain.distance import attention_distance
from vitrail.explain.filters import stem_filters
from vitrail.explain.layers import attention_layers
from vitrail.explain.positions import describe_positions, position_similarity, relative_biases
from vitrail.model import Model
from vitrail.report_figures import distance_plot
from vitrail.report_pictures import bias_picture, similarity_picture, tiled
from vitrail.report_samples import is_grey, prepared

DISTANCE_IMAGES = 32
"""Test images that attention distances are a mean of."""


def inside_context(model: Model, source: Source) -> dict[str, Any]:
    """What the section "Inside the model" needs.

    Args:
        model: In evaluation mode.
        source: Training images tell whether colours matter, test images what heads look at.
    """
    return {
        "positions": _positions(model),
        "filters": _filters(model, grey=is_grey(source.splits["train"])),
        "distances": _distances(model, source.splits["test"]),
    }


def _distances(model: Model, test: Dataset) -> dict[str, Any] | None:
    """How far heads look; None without attention, or where no test image can be read."""
    if not attention_layers(model.backbone):
        return None
    images: list[Tensor] = []
    for index in range(len(test)):
        image = prepared(model, test, index)
        # Without a crop images keep their own sizes: those of the first one's are taken.
        if image is not None and (not images or image.shape == images[0].shape):
            images.append(image)
        if len(images) == DISTANCE_IMAGES:
            break
    if not images:
        return None
    batch = torch.stack(images).to(next(model.parameters()).device)
    found = attention_distance(model, batch)
    names = [heads.layer.name for heads in found]
    pixels = [heads.pixels for heads in found]
    title = "How far each head looks"
    return {
        "plot": distance_plot("distance", names, pixels, title),
        "images": len(images),
        "size": tuple(batch.shape[2:]),
    }


def _positions(model: Model) -> dict[str, Any]:
    similarity, biases = position_similarity(model), relative_biases(model)
    return {
        "words": describe_positions(model.config.backbone),
        "grid": None if similarity is None else tuple(similarity.shape[:2]),
        "similarity": None if similarity is None else similarity_picture(similarity.numpy()),
        "heads": 0 if biases is None else len(biases),
        "biases": None if biases is None else bias_picture(biases.numpy()),
    }


def _filters(model: Model, *, grey: bool) -> dict[str, Any] | None:
    filters = stem_filters(model, grey=grey)
    if filters is None:
        return None
    tiles = filters.images.permute(0, 2, 3, 1).numpy()
    return {
        "picture": tiled(tiles, -(-len(tiles) // -(-len(tiles) // 7))),
        "what": filters.what,
        "grey": grey,
        "count": len(tiles),
        "side": tiles.shape[1],
        "variance": sum(filters.variance) if filters.variance else None,
    }
