"""What a page shows of a detector's answer: the objects drawn, and a map for each."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from vitrail.draw import draw_boxes
from vitrail.explain.objects import find_objects, threshold_of
from vitrail.explain.page.view import MapView
from vitrail.model import Model
from vitrail.types import Batch

FEWEST, MOST = 3, 24
"""Objects with a map: the sure ones, but so many at least and at most."""


def view_objects(
    model: Model, image: UInt8[Tensor, "3 H W"]
) -> tuple[UInt8[Tensor, "3 H W"], tuple[MapView, ...]]:
    """The image with its objects, and where the query of each looked.

    Args:
        model: A detector in evaluation mode.
        image: Prepared, and not filled up.
    """
    size = (image.shape[1], image.shape[2])
    batch = Batch(("",), image[None], (None,), sizes=(size,))
    (seen,), least = find_objects(model, batch), threshold_of(model)
    found, sure = seen.found, sum(score >= least for score in seen.found.scores)
    count = min(max(sure, FEWEST), MOST, len(found.boxes))
    drawn = draw_boxes(image.cpu(), found.boxes[:sure], found.labels[:sure], found.scores[:sure])
    cell = (seen.stride, seen.stride)
    maps = tuple(
        MapView(
            "objects",
            "Where each object was found",
            "Carion et al. 2020, Fig. 6; Zhu et al. 2021, equation 2",
            f"{i + 1}. {found.labels[i]}, {found.scores[i]:.0%}",
            seen.maps[i].float().numpy(force=True),
            cell,
        )
        for i in range(count)
    )
    return drawn, maps
