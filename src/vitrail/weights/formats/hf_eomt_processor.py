"""Hugging Face's image processor of EoMT as our preprocessing, and back.

Images keep their aspect ratio. For semantic answers the short side has a length and the long one
is cut into square windows: our `Windows`. For objects all of the image lies in a square, filled up
with black: our `Letterbox`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from vitrail.config import build
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Fit, Letterbox, Preprocess
from vitrail.data.tiles import Windows
from vitrail.weights.formats.hf_processor import check_colours, colours, colours_json, resampling
from vitrail.weights.formats.hf_settings import Settings

SIDE = 640
"""Of the class without a file."""


def cuts_windows(settings: Settings) -> bool:
    """Whether images are cut into windows, as semantic models have them."""
    return settings.flag("do_split_image", default=False)


def read_eomt_processor(settings: Settings, patch: int) -> tuple[Preprocess, tuple[str, ...]]:
    """A table of the processor as our rule, and what is to be said of it.

    Args:
        settings: The processor's file.
        patch: Pixels a patch.
    """
    mean, std = colours(settings, (IMAGENET_MEAN, IMAGENET_STD))
    rule, note = _resize(settings, patch)
    table = {
        "resize": rule,
        "interpolation": resampling(settings, 2),
        "mean": mean,
        "std": std,
    }
    return build(Preprocess, table, source=settings.source), note


def _resize(settings: Settings, patch: int) -> tuple[Fit | Letterbox | Windows, tuple[str, ...]]:
    size = settings.table.get("size")
    if not isinstance(size, Mapping):
        inner = Settings(settings.source, {"shortest_edge": settings.whole("size", SIDE)})
    else:
        inner = Settings(f"{settings.source}: size", cast("Mapping[str, Any]", size))
    short = inner.whole("shortest_edge", SIDE)
    if cuts_windows(settings):
        inner.insist("longest_edge", wanted=None, why="windows are cut along the whole long side")
        return Windows(side=short), ()
    long = inner.whole("longest_edge", short)
    if short == long:
        return Letterbox(side=short), ()
    note = "images are filled up to whole patches, which is masked; the processor fills nothing up"
    return Fit(short=short, long=long, multiple=patch), (note,)


def check_eomt_processor(preprocess: Preprocess, patch: int) -> str:
    """Why the processor cannot do this, or an empty string."""
    match preprocess.resize:
        case Fit(cut_to=1, short=short, long=long, multiple=multiple) if (
            multiple == patch and short != long
        ):
            return check_colours(preprocess)
        case Letterbox():
            return check_colours(preprocess)
        case Windows(short=None, stride=None):
            return check_colours(preprocess)
        case Windows():
            return "its processor cuts as few windows as cover the image, of its short side"
        case Fit():
            return "its processor masks nothing that is filled up; take a letterbox"
        case rule:
            return f"its processor keeps the aspect ratio; it has no resize rule '{rule.kind}'"


def eomt_processor_json(preprocess: Preprocess) -> dict[str, Any]:
    """`preprocessor_config.json` for what `check_eomt_processor` lets pass."""
    rule = preprocess.resize
    match rule:
        case Windows(side=short):
            long = None
        case Letterbox(side=short):
            long = short
        case _:
            assert isinstance(rule, Fit), "`check_eomt_processor` comes first"
            short, long = rule.short, rule.long
    return {
        **colours_json(preprocess),
        "do_pad": isinstance(rule, Letterbox),
        "do_split_image": isinstance(rule, Windows),
        "image_processor_type": "EomtImageProcessor",
        "size": {"shortest_edge": short, "longest_edge": long},
    }
