"""Hugging Face's image processors as our preprocessing, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

from vitrail.config import build
from vitrail.data.preprocess import HALF, CenterCrop, Colour, Preprocess, Squash
from vitrail.weights.formats.hf_settings import Settings

Processor = Literal["ViTImageProcessor", "DeiTImageProcessor", "BitImageProcessor"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def check_colours(preprocess: Preprocess) -> str:
    """Why no processor of theirs treats pixels so, or an empty string."""
    if preprocess.channel_order != "rgb":
        return "Hugging Face processors know RGB only"
    if not preprocess.antialias:
        return (
            "Hugging Face processors resize with antialias only "
            "(--set preprocess.antialias=true gives way)"
        )
    return ""


def check_processor(preprocess: Preprocess) -> str:
    """Why no processor of theirs does this, or an empty string."""
    if reason := check_colours(preprocess):
        return reason
    match preprocess.resize:
        case Squash():
            return ""
        case CenterCrop(size=(rows, columns)) if rows == columns:
            return ""
        case CenterCrop():
            return "Hugging Face processors have no centre crop that is not square"
        case rule:
            return f"Hugging Face processors have no resize rule '{rule.kind}'"


def processor_json(preprocess: Preprocess) -> dict[str, Any]:
    """`preprocessor_config.json` for what `check_processor` lets pass."""
    table = colours_json(preprocess)
    match preprocess.resize:
        case CenterCrop(size=(rows, columns), crop_pct=crop_pct):
            return {
                **table,
                "image_processor_type": "BitImageProcessor",
                "do_convert_rgb": True,
                "size": {"shortest_edge": math.floor(rows / crop_pct)},
                "do_center_crop": True,
                "crop_size": {"height": rows, "width": columns},
            }
        case rule:
            assert isinstance(rule, Squash), "`check_processor` comes first"
            size = {"height": rule.size[0], "width": rule.size[1]}
            return {**table, "image_processor_type": "ViTImageProcessor", "size": size}


def colours_json(preprocess: Preprocess) -> dict[str, Any]:
    """What all processors say alike."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "resample": 3 if preprocess.interpolation == "bicubic" else 2,
        "rescale_factor": 1 / 255,
    }


def class_default(processor: Processor, size: tuple[int, int]) -> Preprocess:
    """What the class does without a file, at the model's own size."""
    if processor == "ViTImageProcessor":
        return Preprocess(resize=Squash(size=size), interpolation="bilinear", mean=HALF, std=HALF)
    if processor == "DeiTImageProcessor":
        resize = CenterCrop(size=size, crop_pct=0.875)
        return Preprocess(resize=resize, interpolation="bicubic", mean=HALF, std=HALF)
    resize = CenterCrop(size=size, crop_pct=1.0)
    return Preprocess(resize=resize, interpolation="bicubic", mean=OPENAI_MEAN, std=OPENAI_STD)


def read_processor(settings: Settings, processor: Processor) -> tuple[Preprocess, tuple[str, ...]]:
    """A table of a processor as our rule, and what is to be said of it."""
    named = settings.text(
        "image_processor_type", settings.text("feature_extractor_type", processor)
    )
    is_vit, is_deit = named.startswith("ViT"), named.startswith("DeiT")
    default = 2 if is_vit else 3
    interpolation = resampling(settings, default)
    resize, notes = _resize(settings, keeps_ratio=not (is_vit or is_deit), crops=not is_vit)
    if not settings.flag("do_resize", default=True):
        notes += ("images are resized; the processor wants them in the right size already",)
    usual = (HALF, HALF) if is_vit or is_deit else (OPENAI_MEAN, OPENAI_STD)
    mean, std = colours(settings, usual)
    table = {"resize": resize, "interpolation": interpolation, "mean": mean, "std": std}
    return build(Preprocess, table, source=settings.source), notes


def resampling(settings: Settings, default: int) -> str:
    """Our name of `resample`."""
    resample = settings.whole("resample", default, least=0)
    if resample not in (2, 3):
        raise settings.wrong("resample", "2 (bilinear) or 3 (bicubic)")
    return "bilinear" if resample == 2 else "bicubic"


def colours(
    settings: Settings, usual: tuple[Colour, Colour]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, with the factor of the pixels in them."""
    mean = settings.triple("image_mean", usual[0])
    std = settings.triple("image_std", usual[1])
    if not settings.flag("do_normalize", default=True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # Theirs is (pixel * factor - mean) / std, ours (pixel / 255 - mean) / std.
    factor = settings.number("rescale_factor", 1 / 255)
    scale = 255 * (factor if settings.flag("do_rescale", default=True) else 1.0)
    if abs(scale - 1) > 1e-6:
        return tuple(m / scale for m in mean), tuple(s / scale for s in std)
    return mean, std


def _resize(
    settings: Settings, *, keeps_ratio: bool, crops: bool
) -> tuple[CenterCrop | Squash, tuple[str, ...]]:
    """`size`, `do_center_crop` and `crop_size` as one rule.

    Args:
        settings: The processor's file.
        keeps_ratio: Whether a size that is one number means the shorter side.
        crops: Whether the processor crops unless told otherwise.
    """
    size = _sides(settings, "size", 224, keeps_ratio=keeps_ratio)
    if not settings.flag("do_center_crop", default=crops):
        if isinstance(size, int):
            note = f"images are cropped to a square of {size}; the processor would not crop them"
            return CenterCrop(size=(size, size), crop_pct=1.0), (note,)
        return Squash(size=size), ()
    crop = _sides(settings, "crop_size", 224, keeps_ratio=False)
    if isinstance(crop, int):
        crop = (crop, crop)
    if crop[0] != crop[1]:
        raise settings.wrong("crop_size", "a square")
    notes: tuple[str, ...] = ()
    if not isinstance(size, int):
        notes = ("images keep their aspect ratio before the crop; the processor would squash them",)
        size = min(size)
    if size < crop[0]:
        raise settings.wrong("crop_size", f"no more than the size {size}")
    return CenterCrop(size=crop, crop_pct=_crop_pct(crop[0], size)), notes


def _crop_pct(crop: int, size: int) -> float:
    """The share by which `floor(crop / share)` is exactly the size."""
    share = crop / size
    while math.floor(crop / share) < size:
        share = math.nextafter(share, 0)
    return share


def _sides(
    settings: Settings, name: str, default: int, *, keeps_ratio: bool
) -> int | tuple[int, int]:
    """The shorter side alone, or height and width."""
    value = settings.table.get(name, default)
    if isinstance(value, Mapping):
        inner = Settings(f"{settings.source}: {name}", cast("Mapping[str, Any]", value))
        if "shortest_edge" in inner.table:
            return inner.whole("shortest_edge", default)
        return inner.whole("height", default), inner.whole("width", default)
    side = settings.side_or_sides(name, default)
    return side[0] if keeps_ratio and side[0] == side[1] else side
