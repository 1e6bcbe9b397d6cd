"""One folder an image: `7/images/7.png`, and in `7/masks` a binary mask for each of its objects.

Such are the nuclei of the Data Science Bowl 2018. All objects are of one class, called `object`
unless a `classes.txt` has its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool

from vitrail.data.folder import is_image
from vitrail.data.label_files import split_of_folders
from vitrail.data.mask_classes import class_files, named
from vitrail.data.mask_folder import MASK_ENDINGS, bare_stem
from vitrail.data.mask_values import mask_values
from vitrail.data.segments import (
    Drawing,
    MaskAnnotations,
    MaskEntry,
    MaskFiles,
    Piece,
    hashed,
    stack,
)
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Grid, Segments, Skipped

OBJECT = "object"

_IMAGES, _MASKS = "images", "masks"


@dataclass(frozen=True)
class ObjectMasks(Drawing):
    """Mask files of one object each, in the order of their names."""

    costly = True
    storage: Storage
    paths: tuple[str, ...]

    def draw(self) -> Segments:
        """Read all of them; they must have one size, and each shows something."""
        pieces: list[Piece] = []
        size: Grid | None = None
        for path in self.paths:
            mask = self._mask(path)
            size = size or (mask.shape[0], mask.shape[1])
            if mask.shape != size:
                raise BadSampleError(
                    f"the mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, others of its "
                    f"image {size[1]} x {size[0]}; give all one size"
                )
            pieces.append(Piece(mask, 0))
        assert size is not None, "an image with masks"
        return stack(pieces, size)

    def digest(self) -> str:
        """A hash of the files."""
        return hashed(*(self._bytes(path) for path in self.paths))

    def _bytes(self, path: str) -> bytes:
        try:
            return self.storage.read(path)
        except BadSampleError as error:
            return str(error).encode()

    def _mask(self, path: str) -> Bool[np.ndarray, "H W"]:
        try:
            values = mask_values(self.storage.read(path))
        except BadSampleError as error:
            raise BadSampleError(f"the mask {path}: {error}") from error
        mask = values > (127 if values.max() > 1 else 0)
        if not mask.any() and values.any():
            raise BadSampleError(
                f"the mask {path} has values up to {values.max()}; one object a file is 0 and 255"
            )
        if not mask.any():
            raise BadSampleError(f"the mask {path} is empty; take it out")
        return mask


def detect_instance_folder(storage: Storage) -> MaskFiles | None:
    """Read the layout; None where there is no image with a folder of masks of its own.

    Raises:
        DataError: the names of its classes cannot be used.
    """
    images, masks = _folders(storage)
    whole = [folder for folder in images if folder in masks]
    own = all(len(files) == 1 for files in images.values())
    told_apart = any(
        len(masks[folder]) > 1 or not _of_image(masks[folder][0], images[folder][0])
        for folder in whole
    )
    if not whole or not own or not told_apart:
        return None
    left = [image for folder, (image, *_) in images.items() if folder not in masks]
    count = sum(len(masks[folder]) for folder in whole)
    name = _class(storage)
    note = f"; {len(left):,} images without a folder of masks were left out" if left else ""
    return MaskFiles(
        MaskAnnotations(
            format="folder of masks an image",
            reason=f"{len(whole):,} folders with an image and a mask file for each of its objects: "
            f"{count:,} masks of the class '{name}'{note}",
            location=str(storage.location),
            entries=[
                MaskEntry(
                    (storage, images[folder][0]),
                    ObjectMasks(storage, tuple(masks[folder])),
                    folder,
                    split=split_of_folders(images[folder][0]),
                )
                for folder in whole
            ],
            classes=(name,),
            segments="instance",
            unlabelled=left,
            unmatched=[
                Skipped(f"{folder}/{_MASKS}", "masks without an image beside their folder")
                for folder in masks
                if folder not in images
            ],
        )
    )


def _folders(storage: Storage) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Images and masks by the folder above their `images` and `masks`."""
    found: dict[str, defaultdict[str, list[str]]] = {
        _IMAGES: defaultdict(list),
        _MASKS: defaultdict(list),
    }
    for path in storage.paths:
        folder, _, _ = path.rpartition("/")
        above, _, kind = folder.rpartition("/")
        if kind in found and is_image(path):
            found[kind][above].append(path)
    return dict(found[_IMAGES]), dict(found[_MASKS])


def _of_image(mask: str, image: str) -> bool:
    """Whether the name of a mask is that of its image, perhaps with an ending of its own."""
    stem = PurePosixPath(mask).stem
    return PurePosixPath(image).stem in {stem, bare_stem(stem, MASK_ENDINGS)}


def _class(storage: Storage) -> str:
    names = [named(file.names).classes for file in class_files(storage)]
    found: Sequence[str] = sorted({name for own in names for name in own})
    if len(found) > 1:
        raise DataError(
            f"{storage.location}: {len(found)} classes are named, but masks in folders of an image "
            "say no class; name one"
        )
    return found[0] if found else OBJECT
