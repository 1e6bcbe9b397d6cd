"""Images with the objects that a detector found drawn on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from vitrail.data.dataset import Dataset
from vitrail.draw import draw_boxes
from vitrail.errors import BadSampleError, UserError
from vitrail.predict import Row
from vitrail.prediction_boxes import below, new_folder
from vitrail.types import Detection

WRITTEN = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def draw_predictions(rows: Iterable[Row], dataset: Dataset, folder: Path) -> int:
    """Draw each image with its objects.

    Args:
        rows: One an image of the data set, in its order; all their objects are drawn.
        dataset: The images.
        folder: A new or empty folder, so that no image can be overwritten. Files are named as the
            originals; a format that cannot be written becomes PNG.

    Returns:
        How many were drawn; images that cannot be read are not.

    Raises:
        UserError: the folder holds something, or no room on the disk.
    """
    new_folder(folder)
    count = 0
    for index, (row, place) in enumerate(zip(rows, below(dataset.ids), strict=True)):
        if not isinstance(row.prediction, Detection):
            continue
        found = row.prediction
        try:
            image = dataset.read(index).image
        except BadSampleError:  # it was readable before: somebody took it away
            continue
        drawn = draw_boxes(image, found.boxes, found.labels, found.scores)
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
