"""`config.json` as timm writes it: architecture, its arguments, and how images are prepared.

Read with suspicion: whatever has another type than it must is an error with file and field, and
an argument that changes the arithmetic and that we do not know is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, cast

from vitrail.backbones import VARIANTS
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preprocess, Squash
from vitrail.errors import CheckpointError
from vitrail.model import model_config
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint

Pair = tuple[int, int]

TRAINING_ONLY = frozenset(
    {
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
        *("drop_path_rate", "weight_init", "fix_init", "dynamic_img_size", "strict_img_size"),
        *("zero_init_last", "drop_block_rate"),
    }
)
"""Arguments that change nothing at inference."""

LARGEST = 1 << 20
"""Classes and sides of images that are believed at most."""


@dataclass(frozen=True)
class TimmConfig:
    """What stands beside the weights; all of it may be missing.

    Attributes:
        path: For errors.
        architecture: timm's name of the model, without the tag behind the dot; may be empty.
        args: What it was built with: the architecture's own arguments under `model_args`.
        top: `config.json` itself.
        pretrained: Its `pretrained_cfg`.
    """

    path: Path
    architecture: str
    args: Mapping[str, Any]
    top: Mapping[str, Any]
    pretrained: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TimmConfig:
        """The configuration beside a checkpoint."""
        top, empty = checkpoint.config, dict[str, Any]()
        itself = cls(checkpoint.path, "", empty, top, empty)
        name = top.get("architecture", checkpoint.extras.get("arch", ""))
        if not isinstance(name, str):
            raise itself.error("architecture", name, "a name")
        return replace(
            itself,
            architecture=name.partition(".")[0],
            args=itself.table("model_args"),
            pretrained=itself.table("pretrained_cfg"),
        )

    def with_defaults(self, defaults: Mapping[str, Any]) -> TimmConfig:
        """The same with an architecture's own arguments under those of the file."""
        return replace(self, args={**defaults, **self.args})

    def called(self, variant: str) -> TimmConfig:
        """The same under the name of a published variant where it has none of its own."""
        return replace(self, architecture=self.architecture or variant)

    def error(self, field: str, value: object, wanted: str) -> CheckpointError:
        """A field that cannot be used."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return CheckpointError(f"{self.path}: config.json: '{field}' = {shown}; wanted is {wanted}")

    def table(self, field: str) -> Mapping[str, Any]:
        """A table of `config.json`, empty where there is none."""
        value = self.top.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(field, value, "a table")
        return cast("dict[str, Any]", value)

    def whole(self, field: str) -> int | None:
        """A positive whole number among the arguments."""
        value = self.args.get(field)
        if value is not None and not (_is_whole(value) and 0 < value <= LARGEST):
            raise self.error(f"model_args.{field}", value, "a positive whole number")
        return value

    def wholes(self, field: str) -> tuple[int, ...] | None:
        """Positive whole numbers, one a stage."""
        value = self.args.get(field)
        if value is None:
            return None
        numbers = _sequence(value)
        if not numbers or not all(_is_whole(n) and 0 <= n <= LARGEST for n in numbers):
            raise self.error(f"model_args.{field}", value, "whole numbers, one a stage")
        return tuple(numbers)

    def pair(self, field: str) -> Pair | None:
        """Height and width among the arguments; one number stands for both."""
        return self._pair(f"model_args.{field}", self.args.get(field))

    def flag(self, field: str) -> bool | None:
        """A yes or no among the arguments."""
        value = self.args.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.error(f"model_args.{field}", value, "true or false")
        return value

    def text(self, field: str, known: Iterable[str]) -> str | None:
        """One of some names among the arguments."""
        value, known = self.args.get(field), tuple(known)
        if value is not None and value not in known:
            raise self.error(f"model_args.{field}", value, " or ".join(known))
        return value

    def insist(self, handled: Iterable[str], neutral: Mapping[str, Any]) -> None:
        """Refuse arguments that would change the arithmetic.

        Args:
            handled: Arguments that the caller reads.
            neutral: Arguments whose one value is what we compute.

        Raises:
            CheckpointError: with the first that is neither.
        """
        known = TRAINING_ONLY.union(handled)
        for field, value in self.args.items():
            if field in known or value is None:
                continue
            if field not in neutral:
                raise CheckpointError(
                    f"{self.path}: config.json: model_args.{field} is not supported; "
                    "this model computes something else than ours"
                )
            if value != neutral[field] or isinstance(value, bool) != isinstance(
                neutral[field], bool
            ):
                raise self.error(f"model_args.{field}", value, repr(neutral[field]))
        channels = self.args.get("in_chans", 3)
        if channels != 3:
            raise self.error("model_args.in_chans", channels, "3: images are RGB")

    def image_size(self) -> Pair | None:
        """Size of the images: the model's own, else that of its preprocessing."""
        return self.pair("img_size") or self.input_size()

    def input_size(self) -> Pair | None:
        """`input_size` of the preprocessing without its channels."""
        value = self.pretrained.get("input_size")
        if value is None:
            return None
        sides = _sequence(value)
        if len(sides) != 3:
            raise self.error("pretrained_cfg.input_size", value, "channels, height, width")
        return self._pair("pretrained_cfg.input_size", sides[1:])

    def outputs(self, found: int | None) -> int:
        """Outputs of the head, which the file's own head must have.

        Args:
            found: Length of the head's bias in the file, None without a head.

        Raises:
            CheckpointError: both are told and differ, or there are absurdly many.
        """
        for told in (self.top.get("num_classes"), self.args.get("num_classes")):
            if told is not None and not (_is_whole(told) and 0 <= told <= LARGEST):
                raise self.error("num_classes", told, "a whole number")
        told = self.args.get("num_classes", self.top.get("num_classes"))
        if found is not None and not 0 < found <= LARGEST:
            raise CheckpointError(f"{self.path}: a head with {found} outputs")
        if told is not None and found is not None and told not in (0, found):
            raise CheckpointError(
                f"{self.path}: config.json: num_classes is {told}, the head has {found} outputs"
            )
        return (found or 0) if told is None else told

    def label_names(self) -> dict[int, str]:
        """Names of classes by their place, as far as the file has them."""
        value = self.top.get("label_names", self.pretrained.get("label_names"))
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, list | tuple):
            items = enumerate(cast("list[Any]", value))
        elif isinstance(value, dict):
            items = cast("dict[Any, Any]", value).items()
        elif value is not None:
            raise self.error("label_names", value, "a list of names")
        return {
            int(k): v
            for k, v in items
            if isinstance(v, str) and str(k).isdecimal() and len(str(k)) < 10
        }

    def preprocess(self, size: Pair) -> tuple[Preprocess, tuple[str, ...]]:
        """How images are prepared, and what was assumed.

        Args:
            size: Of the model's images; `input_size` wins.
        """
        cfg = self.pretrained
        default, source = _default(self.architecture, size)
        absent = [f for f in ("mean", "std", "interpolation", "crop_pct") if cfg.get(f) is None]
        size = self.input_size() or size
        crop_pct = cfg.get("crop_pct")
        if crop_pct is None:
            crop_pct = cast("CenterCrop", default.resize).crop_pct
        if not isinstance(crop_pct, int | float) or not 0 < crop_pct <= 1:
            raise self.error("pretrained_cfg.crop_pct", crop_pct, "a number from 0 to 1")
        interpolation = cfg.get("interpolation") or default.interpolation
        if interpolation not in ("bilinear", "bicubic"):
            raise self.error("pretrained_cfg.interpolation", interpolation, "bilinear or bicubic")
        mode = cfg.get("crop_mode") or "center"
        preprocess = Preprocess(
            resize=Squash(size=size)
            if mode == "squash"
            else CenterCrop(size=size, crop_pct=float(crop_pct)),
            interpolation=interpolation,
            mean=self._colour("mean", default.mean),
            std=self._colour("std", default.std),
        )
        notes = [f"{', '.join(absent)} of the preprocessing as in {source}"] if absent else []
        if mode not in ("center", "squash"):
            notes.append(f"crop_mode {mode!r} is not supported: the centre is cut out")
        return preprocess, tuple(notes)

    def _pair(self, field: str, value: object) -> Pair | None:
        if value is None:
            return None
        sides = (value, value) if _is_whole(value) else tuple(_sequence(value))
        if len(sides) != 2 or not all(_is_whole(n) and 0 < n <= LARGEST for n in sides):
            raise self.error(field, value, "height and width in pixels")
        return cast("Pair", sides)

    def _colour(
        self, field: str, default: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        value = self.pretrained.get(field)
        if value is None:
            return default
        numbers = _sequence(value)
        good = all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
        if len(numbers) != 3 or not good or (field == "std" and min(numbers) <= 0):
            raise self.error(f"pretrained_cfg.{field}", value, "three numbers")
        return cast("tuple[float, float, float]", tuple(map(float, numbers)))


def hidden_ratio(hidden: int, width: int) -> float:
    """Hidden width of an MLP over its width, such that `int(width * ratio)` gives it back."""
    ratio = hidden / max(width, 1)
    return ratio if int(width * ratio) == hidden else (hidden + 1e-3) / max(width, 1)


def _default(architecture: str, size: Pair) -> tuple[Preprocess, str]:
    """Preprocessing of a published variant, else what timm takes where nothing is said."""
    if architecture in VARIANTS:
        known = model_config(architecture, ClassifyConfig(classes=("any",))).preprocess
        return known, architecture
    usual = Preprocess(
        resize=CenterCrop(size=size, crop_pct=0.875), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return usual, "timm where nothing is said"


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _sequence(value: object) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple) else []
