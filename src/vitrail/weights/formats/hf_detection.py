"""What Hugging Face's detectors share: heads with names, and processors that keep the aspect ratio.

`pixel_values` are filled up on the right and below, and `pixel_mask` says so: `Fit` of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from vitrail.config import build, merge
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Fit, Preprocess, Squash
from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.types import Grid
from vitrail.weights.formats.hf import HfReader
from vitrail.weights.formats.hf_processor import check_colours, colours, colours_json, resampling
from vitrail.weights.formats.hf_settings import LARGEST, Settings
from vitrail.weights.formats.shapes import outputs
from vitrail.weights.reader import Given, Reader

SHORT, LONG = 800, 1333
"""Sides of an image for DETR: the short one, and the most that the long one may have."""


class HfDetectorReader(HfReader):
    """A folder of Hugging Face with a detector.

    Attributes:
        cut_to: What the processor shortens sides to multiples of.
    """

    cut_to: ClassVar[int] = 1

    def detector(self, fields: Mapping[str, Any], head: str, given: Given) -> DetectConfig:
        """The task; see `detector_config`."""
        return detector_config(self, fields, head, given, self.labels())

    def preprocess(self, image_size: tuple[int, int]) -> tuple[Preprocess, tuple[str, ...]]:
        """From `preprocessor_config.json`, else as DETR's processor does by default."""
        del image_size
        source = f"{self.checkpoint.path}: preprocessor_config.json"
        preprocess, notes = read_detection_processor(
            Settings(source, self.checkpoint.preprocessor), cut_to=self.cut_to
        )
        if self.checkpoint.preprocessor:
            return preprocess, notes
        note = f"no preprocessor_config.json: images have a short side of {SHORT}, as in DETR"
        return preprocess, (note,)


def detector_config(
    reader: Reader, fields: Mapping[str, Any], head: str, given: Given, names: Mapping[int, str]
) -> DetectConfig:
    """The task whose class head that is.

    Args:
        reader: The file.
        fields: All of the task but its classes.
        head: The class head, without `.weight` and `.bias`.
        given: What the user says; it wins.
        names: Of outputs, as far as the file has them. What has no name has its number.

    Raises:
        CheckpointError: the head is missing, or contradicts what was given.
    """
    path = reader.checkpoint.path
    count = outputs(reader.checkpoint, (f"{head}.weight", f"{head}.bias"))
    count -= fields.get("scoring") == "softmax"  # the last output stands for no object
    if not 1 <= count <= LARGEST:
        raise CheckpointError(f"{path}: tensor '{head}.bias' names {count} classes")
    table = {
        "classes": reader.class_names(count, given, names),
        # The number of an output is what the data call the class: COCO's ids, gaps and all.
        "category_ids": tuple(range(count)),
        **fields,
    }
    return build(DetectConfig, merge(table, given.task), source=str(path))


def read_detection_processor(
    settings: Settings, *, cut_to: int = 1
) -> tuple[Preprocess, tuple[str, ...]]:
    """A table of a processor as our rule, and what is to be said of it."""
    mean, std = colours(settings, (IMAGENET_MEAN, IMAGENET_STD))
    table = {
        "resize": _resize(settings, cut_to),
        "interpolation": resampling(settings, 2),
        "mean": mean,
        "std": std,
    }
    notes: tuple[str, ...] = ()
    if not settings.flag("do_resize", default=True):
        notes = ("images are resized; the processor wants them in the right size already",)
    return build(Preprocess, table, source=settings.source), notes


def _resize(settings: Settings, cut_to: int) -> Fit | Squash:
    size = settings.table.get("size")
    if not isinstance(size, Mapping):
        short = settings.whole("size", SHORT)
        return Fit(short=short, long=settings.whole("max_size", LONG), multiple=1, cut_to=cut_to)
    inner = Settings(f"{settings.source}: size", cast("Mapping[str, Any]", size))
    if "height" in inner.table and "width" in inner.table:
        return Squash(size=(inner.whole("height", SHORT), inner.whole("width", SHORT)))
    if "shortest_edge" not in inner.table:
        raise settings.wrong("size", "'shortest_edge' and 'longest_edge', or 'height' and 'width'")
    long = settings.table.get("max_size") or LARGEST
    long = inner.whole("longest_edge", long if isinstance(long, int) else LARGEST)
    return Fit(short=inner.whole("shortest_edge", SHORT), long=long, multiple=1, cut_to=cut_to)


def usual_size(preprocess: Preprocess) -> Grid:
    """Height and width that images have, or stay below, where they lie."""
    match preprocess.resize:
        case Fit(short=short, long=long):
            return short, min(long, 2 * short)
        case rule:
            assert isinstance(rule, Squash), "no other rule is read"
            return rule.size


def check_detection_processor(preprocess: Preprocess, *, cut_to: int = 1) -> str:
    """Why no processor of a detector does this, or an empty string."""
    if reason := check_colours(preprocess):
        return reason
    match preprocess.resize:
        case Squash():
            return ""
        case Fit(cut_to=own) if own == cut_to:
            return ""
        case Fit():
            return f"its processor shortens sides to multiples of {cut_to}"
        case rule:
            return f"Hugging Face's detectors have no resize rule '{rule.kind}'"


def detection_processor_json(
    preprocess: Preprocess, kind: Literal["DetrImageProcessor", "YolosImageProcessor"]
) -> dict[str, Any]:
    """`preprocessor_config.json` for what `check_detection_processor` lets pass."""
    table = {
        **colours_json(preprocess),
        "do_pad": True,
        "format": "coco_detection",
        "image_processor_type": kind,
    }
    match preprocess.resize:
        case Fit(short=short, long=long):
            return {**table, "size": {"shortest_edge": short, "longest_edge": long}}
        case rule:
            assert isinstance(rule, Squash), "`check_detection_processor` comes first"
            return {**table, "size": {"height": rule.size[0], "width": rule.size[1]}}
