"""Folders of images and folders of masks: `images/1.jpg` and `masks/1.png`.

The folders have names like these, with those of splits above, below or in them (`train/images`,
`images/train`, `train_images`), or masks lie beside their images. A mask has the name of its image,
perhaps with an ending of its own (`1_mask.png`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vitrail.data.folder import SPLIT_FOLDERS, is_image
from vitrail.data.mask_classes import class_files
from vitrail.data.mask_kinds import Pair, look_at, semantic
from vitrail.data.segments import MaskFiles
from vitrail.data.storage import Storage
from vitrail.errors import DataError
from vitrail.types import Skipped

IMAGE_WORDS = frozenset(
    (
        *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture"),
        *("pictures", "input", "inputs"),
    )
)
MASK_WORDS = frozenset(
    (
        *("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots"),
        *("gt", "groundtruth", "segmentation", "segmentations", "segmentationclass", "seg"),
    )
)
"""Words in the names of folders; the last folder that has one of either kind decides."""

MASK_ENDINGS = frozenset(
    (
        *("mask", "masks", "label", "labels", "seg", "segmentation", "gt", "groundtruth"),
        *("annotation", "l", "manual1", "1stho", "2ndho"),
    )
)
IMAGE_ENDINGS = frozenset(("image", "img", "sat"))
"""What a name may end in after `_`, `-` or `.`: `7_sat.jpg` and `7_mask.png`."""

_LOOKED_AT = 5  # masks that must look like masks
_MOST_VALUES = 128
_MOSTLY = 0.9


@dataclass(frozen=True, slots=True)
class _File:
    """An image file.

    Attributes:
        path: Of the file.
        folders: Names of those above, without the words that tell images from masks or splits.
        stem: Of its name.
        mask: Whether its folders say that it is a mask.
        split: That its folders name.
    """

    path: str
    folders: tuple[str, ...]
    stem: str
    mask: bool
    split: str | None


def detect_mask_folder(storage: Storage) -> MaskFiles | None:
    """Pair images with masks; None where there are no masks.

    Raises:
        DataError: there are, but they cannot be used; one line with the way out.
    """
    files = [_file(path) for path in storage.paths if is_image(path)]
    masks = [file for file in files if file.mask]
    images = [file for file in files if not file.mask]
    beside = not masks
    if beside:
        masks, images = _beside(images)
    if not masks or not images:
        return None
    pairs, unmatched = _pairs(storage, images, masks)
    fewest = len(images) if beside else min(len(masks), len(images))
    if 2 * len(pairs) < fewest or not pairs:
        return None
    named_by = class_files(storage)
    told = not beside and all(_says_image(pair.image) for pair in pairs)
    if not (named_by and told) and not _look_like_masks(storage, pairs):
        if not told:
            return None
        raise DataError(
            f"{storage.location}: {pairs[0].mask} is named like a mask, but has as many colours as "
            "a photograph; save masks as PNG from their source: JPEG smears their values"
        )
    paired = {pair.image for pair in pairs}
    left = [file.path for file in images if file.path not in paired]
    folders = "beside their images" if beside else f"in {_folders([pair.mask for pair in pairs])}"
    note = f", {len(left):,} images without a mask were left out" if left else ""
    return MaskFiles(
        semantic(
            storage,
            pairs,
            named_by,
            name="image and mask folders",
            layout=f"{len(pairs):,} masks {folders}, by name{note}",
            unlabelled=left,
            unmatched=[Skipped(path, "a mask without an image of its name") for path in unmatched],
        )
    )


def _file(path: str) -> _File:
    *above, name = PurePosixPath(path).parts
    mask, split = False, None
    folders: list[str] = []
    for part in above:
        words = _words(part)
        if MASK_WORDS.intersection(words):
            mask = True
        elif IMAGE_WORDS.intersection(words):
            mask = False
        split = next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), split)
        rest = [word for word in words if word not in MASK_WORDS | IMAGE_WORDS | {*SPLIT_FOLDERS}]
        folders += ["_".join(rest)] * bool(rest)
    return _File(path, tuple(folders), PurePosixPath(name).stem, mask, split)


def _says_image(path: str) -> bool:
    return any(IMAGE_WORDS.intersection(_words(part)) for part in PurePosixPath(path).parts[:-1])


def _words(folder: str) -> list[str]:
    """`train_masks`, `train2017` and SegNet's `trainannot` in words."""
    name = re.sub("(?<=.)annot$", "_annot", folder.lower().rstrip("0123456789"))
    return re.split(r"[_\-\s.]+", name)


def bare_stem(stem: str, endings: frozenset[str]) -> str:
    """A stem without one of some endings; as it is where it has none."""
    found = re.fullmatch(r"(.+)[_\-.]([A-Za-z0-9]+)", stem)
    return found[1] if found and found[2].lower() in endings else stem


def _beside(files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """Masks and images that lie in one folder and differ in their endings."""
    stems = {(f.split, f.folders, bare_stem(f.stem, IMAGE_ENDINGS)) for f in files}
    masks = [
        file
        for file in files
        if (bare := bare_stem(file.stem, MASK_ENDINGS)) != file.stem
        and (file.split, file.folders, bare) in stems
    ]
    known = {file.path for file in masks}
    return masks, [file for file in files if file.path not in known]


def _pairs(
    storage: Storage, images: Sequence[_File], masks: Sequence[_File]
) -> tuple[list[Pair], list[str]]:
    """Images with their masks, in the order of the images, and masks that have none."""
    exact: dict[tuple[object, ...], _File] = {}
    by_stem: defaultdict[str, list[_File]] = defaultdict(list)
    for image in images:
        for stem in {image.stem, bare_stem(image.stem, IMAGE_ENDINGS)}:
            exact.setdefault((image.split, image.folders, stem), image)
            by_stem[stem].append(image)
    found: dict[str, Pair] = {}
    unmatched: list[str] = []
    for mask in masks:
        image = _image_of(mask, exact, by_stem)
        if image is None:
            unmatched.append(mask.path)
            continue
        pair = Pair(image.path, mask.path, image.split or mask.split)
        other = found.setdefault(image.path, pair)
        if other != pair:
            raise DataError(
                f"{storage.location}: {image.path} has the masks {other.mask} and {mask.path}; "
                "keep one an image, or write a CSV 'path,mask' that says which"
            )
    return [found[image.path] for image in images if image.path in found], unmatched


def _image_of(
    mask: _File,
    exact: Mapping[tuple[object, ...], _File],
    by_stem: Mapping[str, Sequence[_File]],
) -> _File | None:
    """The image in the same folders; where there is none, the only one of this name."""
    for stem in (mask.stem, bare_stem(mask.stem, MASK_ENDINGS)):
        image = exact.get((mask.split, mask.folders, stem))
        if image is not None:
            return image
        near = [
            i
            for i in by_stem.get(stem, ())
            if None in {i.split, mask.split} or i.split == mask.split
        ]
        if len(near) == 1:
            return near[0]
    return None


def _look_like_masks(storage: Storage, pairs: Sequence[Pair]) -> bool:
    """Whether most of a few files show few values or colours; photographs show many."""
    looks = [look_at(storage, p.mask) for p in pairs[:: max(1, len(pairs) // _LOOKED_AT)]]
    seen = [look for look in looks if not look.error]
    flat = sum(
        len(look.values or look.colours) <= _MOST_VALUES or look.soft >= _MOSTLY for look in seen
    )
    return 2 * flat >= len(seen)


def _folders(files: Sequence[str]) -> str:
    """Folders of some files, for people."""
    found = list(dict.fromkeys(path.rpartition("/")[0] for path in files))
    return ", ".join(found[:3]) + ", ..." * (len(found) > 3)
