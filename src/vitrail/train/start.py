"""What a run starts from: fresh weights, or those of a checkpoint fitted to the data.

A run that goes on from a checkpoint keeps the fitted model as `checkpoints/start.safetensors`, so
that it can be resumed without the file that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitrail.backbones import BackboneConfig
from vitrail.backbones.swin import SwinV2Config
from vitrail.backbones.vit import ViTConfig
from vitrail.config import build, merge
from vitrail.data.dataset import Dataset, Source
from vitrail.data.preprocess import CenterCrop, Fit, Letterbox, Line, Resize, Squash
from vitrail.data.tiles import Tiles, Windows
from vitrail.errors import CheckpointError, ConfigError, UserError
from vitrail.model import Model, ModelConfig, model_config
from vitrail.tasks import TaskConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import QueryReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import MatchedReadout
from vitrail.tasks.transcribe import MAX_LENGTH, TranscribeConfig
from vitrail.train.carry import Carried, carry, keeps_head
from vitrail.train.recipe import (
    DetectRecipe,
    ModelRecipe,
    Recipe,
    SegmentRecipe,
    TranscribeRecipe,
)
from vitrail.weights.modelfile import Provenance, load_model, save_model
from vitrail.weights.origin import Origin, open_origin
from vitrail.weights.reader import Given

FILLED = 32
"""Images of different shapes are filled up to multiples of this while training, so that those of
about one shape make a batch."""


@dataclass(frozen=True, slots=True)
class Start:
    """A model of a checkpoint, fitted to the data.

    Attributes:
        model: It.
        origin: Where it comes from.
        table: What was loaded and what was not.
    """

    model: Model
    origin: Origin
    table: tuple[Carried, ...]

    @property
    def licence(self) -> str:
        """Licence of the weights that come out of the run."""
        return f"fine-tuned from {self.origin.source}, licence: {self.origin.licence}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `run.json`."""
        return {
            "file": self.origin.source,
            "sha256": self.origin.sha256,
            "licence": self.licence,
            "table": [[row.group, row.found, row.done] for row in self.table],
        }

    def describe(self) -> str:
        """The table as text, one part of the model a line."""
        rows = [(row.group, row.found, row.done) for row in self.table]
        first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
        lines = [f"  {group:<{first}}  {found:<{second}}  {done}" for group, found, done in rows]
        return "\n".join([f"weights: {self.origin.source} ({self.origin.name})", *lines])


def read_origin(recipe: Recipe) -> Origin | None:
    """The weights that a recipe names; None where it starts from fresh ones.

    Raises:
        UserError: they cannot be read, or are others than the recipe's checksum says.
    """
    wanted = recipe.weights
    if wanted is None:
        return None
    given = Given(variant=wanted.variant, backbone=wanted.backbone, part=wanted.part)
    try:
        origin = open_origin(wanted.file, given)
    except CheckpointError as error:
        # Beside a recipe, what a file does not tell is given under other names.
        text = str(error).replace("give --set ", "give --set weights.backbone.")
        raise CheckpointError(text.replace("--variant", "--model")) from error
    if wanted.sha256 not in ("", origin.sha256):
        raise UserError(
            f"weights.file = '{wanted.file}': its SHA-256 is {origin.sha256[:16]}..., not "
            f"{wanted.sha256[:16]}... as weights.sha256 says; put the old file back, or leave "
            "weights.sha256 away"
        )
    return origin


def fit_to_data(origin: Origin, recipe: Recipe, source: Source) -> Start:
    """A checkpoint's model for the images and classes of the data.

    Raises:
        ConfigError: the recipe asks for another backbone than that of the checkpoint.
    """
    torch.manual_seed(recipe.seed)  # pyright: ignore[reportUnknownMemberType]
    model = Model(run_model_config(recipe, source, origin))
    return Start(model, origin, carry(origin, model))


def start_file(out: Path) -> Path:
    """Where a run keeps the model that it starts from."""
    return out / "checkpoints" / "start.safetensors"


def keep_start(start: Start, out: Path) -> None:
    """Write it.

    Raises:
        ModelFileError: the disk is full or the folder cannot be written.
    """
    save_model(start.model, start_file(out), Provenance(licence=start.licence))


def first_model(recipe: Recipe, source: Source, out: Path) -> Model:
    """The model of a run before its first step, the same bits whenever it is asked for.

    Raises:
        UserError: what the recipe asks for cannot be built or read.
    """
    if recipe.weights is not None and not start_file(out).exists():
        origin = read_origin(recipe)
        assert origin is not None
        keep_start(fit_to_data(origin, recipe, source), out)
    torch.manual_seed(recipe.seed)  # pyright: ignore[reportUnknownMemberType]
    if recipe.weights is None:
        return Model(run_model_config(recipe, source))
    return load_model(start_file(out))[0]


def run_model_config(recipe: Recipe, source: Source, origin: Origin | None = None) -> ModelConfig:
    """The model that a recipe trains on a data set.

    Args:
        recipe: What is wanted.
        source: The data.
        origin: The weights to go on from, with their own backbone and preprocessing.

    Raises:
        ConfigError: an unknown name or key, or an image size that the model cannot take.
    """
    wanted = recipe.model
    task = _task_config(recipe, source, origin.task if origin and origin.named else None)
    if origin is None:
        name, config = wanted.name, model_config(wanted.name, task)
    else:
        name = origin.source
        config = ModelConfig(backbone=origin.backbone, task=task, preprocess=origin.preprocess)
    backbone = _backbone_config(recipe, config.backbone, name)
    size = wanted.image_size or backbone.image_size
    resize = config.preprocess.resize
    if isinstance(config.task, TranscribeConfig):
        resize = Line(size=size)
    elif isinstance(config.task, SegmentConfig) and _tiled(resize, wanted):
        overlap = (recipe.segment or SegmentRecipe()).overlap
        resize = Tiles(size=size, overlap=overlap)
    elif isinstance(config.task, SegmentConfig) and isinstance(resize, Windows):
        resize = _windows(resize, wanted, size)
    elif isinstance(config.task, DetectConfig | SegmentConfig):
        resize = _whole(resize, size, wanted)
    elif size != config.backbone.image_size or isinstance(resize, Line):
        resize = _resized(resize, size, published=origin is not None)
    preprocess = config.preprocess.model_copy(update={"resize": resize})
    return ModelConfig(backbone=backbone, task=config.task, preprocess=preprocess)


def _backbone_config(recipe: Recipe, old: BackboneConfig, name: str) -> BackboneConfig:
    wanted = recipe.model
    changes = dict(wanted.backbone)
    if wanted.image_size is not None and not (recipe.weights and _has_fixed_places(old)):
        changes["image_size"] = list(wanted.image_size)
    if "drop_path" in type(old).model_fields:
        changes |= {} if wanted.drop_path is None else {"drop_path": wanted.drop_path}
    elif wanted.drop_path:
        raise ConfigError(
            f"model.drop_path = {wanted.drop_path}: {name} has no residual branches to "
            "drop; set it to 0"
        )
    # Built anew and not copied, so that what contradicts itself is refused.
    table = merge(old.model_dump(mode="json"), changes)
    backbone = build(type(old), table, source=f"model.backbone of {name}")
    if recipe.weights is not None and isinstance(backbone, SwinV2Config):
        return _remember_windows(backbone, old)
    return backbone


def _has_fixed_places(config: BackboneConfig) -> bool:
    """Whether places are computed for `image_size`: it stays, and other sizes are stretched to it.

    A table that is learned is stretched itself instead.
    """
    return isinstance(config, ViTConfig) and config.positions.kind in ("sincos_1d", "sincos_2d")


def _remember_windows(new: SwinV2Config, old: BackboneConfig) -> SwinV2Config:
    """Offsets are measured in the windows that the bias was learned with (Swin v2 section 3.3)."""
    assert isinstance(old, SwinV2Config)
    before = old.pretrained_windows or (0,) * len(old.depths)
    windows = zip(before, old.windows, new.windows, strict=True)
    learned = tuple(told or (0 if was.size == now.size else was.size) for told, was, now in windows)
    given = new.pretrained_windows != old.pretrained_windows
    if given or not any(learned):
        return new
    return new.model_copy(update={"pretrained_windows": learned})


def _resized(old: Resize, size: tuple[int, int], *, published: bool) -> Resize:
    """The rule for another image size: a checkpoint keeps its kind, a fresh model crops nothing."""
    match old:
        case CenterCrop() | Squash() if published:
            return old.model_copy(update={"size": size})
        case _:
            return CenterCrop(size=size, crop_pct=1.0)


def _tiled(old: Resize, wanted: ModelRecipe) -> bool:
    """Whether images keep their scale."""
    return wanted.resize == "tiles" or (wanted.resize is None and isinstance(old, Tiles))


def _windows(old: Windows, wanted: ModelRecipe, size: tuple[int, int]) -> Resize:
    """Windows of the size that is asked for, or another rule."""
    if wanted.resize is not None:
        return _whole(old, size, wanted)
    if wanted.image_size is None or size == old.size:
        return old
    if size[0] != size[1]:
        raise ConfigError(
            f"model.image_size = {list(size)}: the weights were learned in square windows; give "
            "two equal sides, or model.resize=tiles"
        )
    return Windows(side=size[0])


def _whole(old: Resize, size: tuple[int, int], wanted: ModelRecipe) -> Resize:
    """A rule that keeps all of the image, since objects lie at its edges too."""
    if isinstance(old, Letterbox) and wanted.resize is None:
        side = old.side if wanted.image_size is None else max(size)
        return Letterbox(side=side)
    if wanted.resize == "fit" or (wanted.resize is None and isinstance(old, Fit)):
        if wanted.image_size is None and isinstance(old, Fit):
            return old.model_copy(update={"multiple": max(old.multiple, FILLED)})
        return Fit(short=min(size), long=max(size), multiple=FILLED)
    return Squash(size=size)


def _task_config(recipe: Recipe, source: Source, old: TaskConfig | None) -> TaskConfig:
    """The task that the data call for; a head that can be kept keeps its form."""
    train = source.splits["train"]
    if train.boxes:
        return _detect_config(recipe, train, old)
    if train.segments is not None:
        return _segment_config(recipe, train, old)
    if not train.text:
        fresh = ClassifyConfig(classes=train.classes, multilabel=train.multilabel)
        if isinstance(old, ClassifyConfig) and keeps_head(old, fresh):
            return old.model_copy(update={"classes": train.classes, "temperature": 1.0})
        return fresh
    return _transcribe_config(recipe, train, old)


def _detect_config(recipe: Recipe, train: Dataset, old: TaskConfig | None) -> DetectConfig:
    own = {"classes": train.classes, "category_ids": train.category_ids}
    if isinstance(old, DetectConfig):
        if recipe.detect is not None and recipe.detect.readout != QueryReadout():
            raise ConfigError(
                "detect.readout: the weights are those of a detector and bring their own; leave "
                "its keys away, or take --recipe detect-fine-tune"
            )
        return build(DetectConfig, old.model_dump(mode="json") | own, source="detect")
    wanted = recipe.detect or DetectRecipe()
    return build(DetectConfig, {"readout": wanted.readout.model_dump(), **own}, source="detect")


def _segment_config(recipe: Recipe, train: Dataset, old: TaskConfig | None) -> SegmentConfig:
    wanted = recipe.segment or SegmentRecipe()
    own = {
        "classes": train.classes,
        "category_ids": train.category_ids,
        "answer": train.segments,
        "background": train.background,
        "things": train.things,
    }
    readout = old.readout if isinstance(old, SegmentConfig) else wanted.readout
    if not isinstance(readout, MatchedReadout):
        own["answer"] = "semantic"  # what a head that tells pixels can learn from objects
    if isinstance(old, SegmentConfig):
        if recipe.segment is not None and recipe.segment.readout != SegmentRecipe().readout:
            raise ConfigError(
                "segment.readout: the weights are those of a segmenter and bring their own; leave "
                "its keys away, or take --recipe segment-fine-tune"
            )
        for name in ("min_area", "max_regions"):
            value = getattr(wanted, name)
            if value != SegmentRecipe.model_fields[name].default:
                own[name] = value
        return build(SegmentConfig, old.model_dump(mode="json") | own, source="segment")
    table = {
        "readout": wanted.readout.model_dump(),
        "min_area": wanted.min_area,
        "max_regions": wanted.max_regions,
    }
    return build(SegmentConfig, table | own, source="segment")


def _transcribe_config(recipe: Recipe, train: Dataset, old: TaskConfig | None) -> TranscribeConfig:
    longest = max(len(target) for target in train.targets if isinstance(target, str))
    wanted = recipe.transcribe or TranscribeRecipe()
    table = wanted.model_dump()
    if recipe.transcribe is None and isinstance(old, TranscribeConfig):
        table = old.model_dump(exclude={"max_length"}) | {"max_length": None}
    table |= {
        "alphabet": train.classes,
        "max_length": wanted.max_length or max(longest, 32, min(2 * longest, MAX_LENGTH)),
    }
    return build(TranscribeConfig, table, source="transcribe")
