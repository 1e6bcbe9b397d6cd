"""Images with the objects or regions that a model found drawn on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vitrail.data.dataset import Dataset
from vitrail.draw import draw_boxes
from vitrail.draw_masks import draw_masks
from vitrail.errors import BadSampleError, UserError
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers, below, new_folder
from vitrail.prediction_masks import MaskForm
from vitrail.types import Detection, Segmentation

WRITTEN = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def draw_predictions(
    rows: Iterable[Row], dataset: Dataset, folder: Path, form: Numbers | MaskForm
) -> int:
    """Draw each image with its objects or regions.

    Args:
        rows: One an image of the data set, in its order; all their objects are drawn.
        dataset: The images.
        folder: A new or empty folder, so that no image can be overwritten. Files are named as the
            originals; a format that cannot be written becomes PNG.
        form: What regions are, and the classes whose colours they have.

    Returns:
        How many were drawn; images that cannot be read are not.

    Raises:
        UserError: the folder holds something, or no room on the disk.
    """
    new_folder(folder)
    count = 0
    for index, (row, place) in enumerate(zip(rows, below(dataset.ids), strict=True)):
        if not isinstance(row.prediction, Detection | Segmentation):
            continue
        try:
            image = dataset.read(index).image
        except BadSampleError:  # it was readable before: somebody took it away
            continue
        drawn = _drawn(image, row.prediction, form)
        known = place.suffix.lower() in WRITTEN
        file = folder / (place if known else place.with_name(f"{place.name}.png"))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy()).save(file, quality=95)
        except OSError as error:
            raise UserError(
                f"{file}: cannot write ({error.strerror or error}); give another --draw"
            ) from error
        count += 1
    return count


def _drawn(
    image: UInt8[Tensor, "3 H W"], found: Detection | Segmentation, form: Numbers | MaskForm
) -> UInt8[Tensor, "3 _H _W"]:
    match found:
        case Detection():
            return draw_boxes(image, found.boxes, found.labels, found.scores)
        case Segmentation():
            assert isinstance(form, MaskForm), "regions come from a segmenter"
            return draw_masks(image, found, list(form.numbers.classes), form.things)
