"""A recipe is all that training depends on beside the data. It is written as TOML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from vitrail.config import Config, build, nearest, override, read_toml
from vitrail.data.augment import AugmentConfig
from vitrail.data.box_augment import BoxAugmentConfig
from vitrail.data.mask_augment import MaskAugmentConfig
from vitrail.data.workers import Auto, Workers
from vitrail.errors import ConfigError
from vitrail.tasks.detectors import QueryReadout
from vitrail.tasks.segment_loss import PixelLossConfig
from vitrail.tasks.segmenters import ClassQueriesReadout, SegmentReadout

Fraction = Annotated[float, Field(ge=0, le=1)]
PRESETS = (
    "small-images",
    "small-data",
    "deit",
    "deit-distilled",
    "strips",
    "planted",
    "fine-tune",
    "shapes",
    "detect",
    "detect-fine-tune",
    "segment",
    "segment-thin",
    "segment-objects",
    "segment-fine-tune",
)


class ModelRecipe(Config):
    """Which model is trained.

    Attributes:
        name: A variant of `vitrail models`.
        image_size: Height and width that images are brought to; None keeps the variant's own.
        resize: For boxes and masks: `stretch` images to the size, or `fit` them into it and fill
            up; for masks also `tiles` of that size at the images' own scale. None keeps what given
            weights do, else stretches.
        drop_path: Stochastic depth; None keeps the variant's own.
        backbone: Fields laid over the variant's backbone, as in `model.backbone.depth=6`.
        compile: Run training steps through `torch.compile`.
    """

    name: str = "vit_tiny_patch16_224"
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    resize: Literal["stretch", "fit", "tiles"] | None = None
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    backbone: dict[str, Any] = Field(default_factory=dict[str, Any])
    compile: bool = False


class WeightsRecipe(Config):
    """Weights to go on from instead of fresh ones; they bring their own backbone.

    Then `model.name` says what it is called and chooses nothing, and `model.backbone` is laid over
    the backbone of the file.

    Attributes:
        file: A model file, a run folder, a checkpoint of another library, or a hub id.
        sha256: Of the file, or of the tensors of a folder or hub id; filled in when a run begins,
            and checked where it is given.
        variant: The variant of `vitrail models` that a foreign checkpoint holds, where it does not
            tell itself.
        backbone: Fields of the backbone that it does not tell, as in `weights.backbone.heads=6`.
        part: Which table of weights to take from a training dump, such as `model_ema`.
    """

    file: str
    sha256: str = ""
    variant: str | None = None
    backbone: dict[str, Any] = Field(default_factory=dict[str, Any])
    part: str | None = None


class LoaderRecipe(Config):
    """How batches are made.

    Attributes:
        batch_size: Samples a batch.
        repeats: Showings of a picked sample in an epoch (repeated augmentation; DeiT uses 3).
        views: Random views of every sample in an epoch, which grows by them: for a few large
            images of which a view shows a part.
        workers: Who prepares batches; the default measures it on the data at hand.
        strict: A sample that cannot be read is an error instead of an entry in quarantine.csv.
    """

    batch_size: PositiveInt = 64
    repeats: PositiveInt = 1
    views: PositiveInt = 1
    workers: Workers = Field(default=Auto(), discriminator="kind")
    strict: bool = False


class MixRecipe(Config):
    """How targets are softened and images mixed.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes.
        mixup: Alpha of mixup's beta distribution (Zhang et al. 2018); 0 is off.
        cutmix: Alpha of CutMix (Yun et al. 2019); 0 is off. With both, a coin decides.
        probability: Share of batches that are mixed at all.
    """

    label_smoothing: Fraction = 0.0
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    probability: Fraction = 1.0


class DistillRecipe(Config):
    """A teacher to learn from beside the labels (Touvron et al. 2021, section 4).

    Attributes:
        teacher: Model file or run folder of any vitrail model that knows the same classes.
        method: `hard` takes the teacher's decision for a label (equation 3), `soft` its
            distribution (equation 2; Hinton et al. 2015).
        alpha: Share of the teacher in the loss; the paper has 0.5 for hard and 0.1 for soft.
        temperature: Softening of both distributions, for `soft`.
    """

    teacher: str
    method: Literal["hard", "soft"] = "hard"
    alpha: Fraction = 0.5
    temperature: PositiveFloat = 3.0


class TranscribeRecipe(Config):
    """The decoder that writes the text of an image.

    Attributes:
        width: Width of its tokens.
        depth: Blocks.
        heads: Attention heads a block.
        positions: How it knows which symbol is the next.
        beams: Texts that are followed at once when predicting; 1 is greedy.
        max_length: Longest text that it can write; None takes twice the longest of the training
            part, at least 32.
    """

    width: PositiveInt = 96
    depth: PositiveInt = 2
    heads: PositiveInt = 4
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    beams: PositiveInt = 1
    max_length: PositiveInt | None = None


class DetectRecipe(Config):
    """What finds objects, and how its training images are varied.

    Attributes:
        readout: From features to objects; weights of a detector bring their own.
        augment: What happens to an image and its boxes; `augment` is for images without.
    """

    readout: QueryReadout = QueryReadout()
    augment: BoxAugmentConfig = BoxAugmentConfig()


class SegmentRecipe(Config):
    """What tells masks, what they cost, and how training images are varied.

    Attributes:
        readout: From features to masks; weights of a segmenter bring their own.
        loss: Terms of heads that tell the class of pixels.
        augment: What happens to an image and its masks; `augment` is for images without.
        overlap: Of `tiles`, least share that a tile has in common with its neighbour.
        min_area: Pixels that an object has at least.
        max_regions: Objects kept an image.
    """

    readout: SegmentReadout = ClassQueriesReadout()
    loss: PixelLossConfig = PixelLossConfig()
    augment: MaskAugmentConfig = MaskAugmentConfig()
    overlap: float = Field(default=0.25, ge=0, lt=1)
    min_area: int = Field(default=0, ge=0)
    max_regions: PositiveInt = 100


class LoraRecipe(Config):
    """Low-rank adapters (Hu et al. 2021).

    Attributes:
        rank: Rank r of the difference that is learned.
        alpha: The difference is scaled by alpha / r.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0


class OptimRecipe(Config):
    """AdamW (Loshchilov and Hutter 2019) and how gradients reach it.

    Attributes:
        lr: Peak learning rate.
        weight_decay: On weight matrices; biases, norms and positions have none.
        betas: Decay of the two moments.
        layer_decay: Factor on the learning rate for each layer further from the head
            (Clark et al. 2020); 1 is off.
        clip_grad: Largest norm of the whole gradient; None is off.
        accumulate: Batches whose gradients are averaged in one step.
        method: What is trained: `full` everything; `head` the task alone; `last-N`, such as
            `last-2`, the last N layer groups and the task; `lora` adapters of attention and MLPs,
            and the task.
        lora: The adapters.
        freeze: Layer groups, counted from the stem, that `full` does not train.
    """

    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    clip_grad: PositiveFloat | None = None
    accumulate: PositiveInt = 1
    method: str = "full"
    lora: LoraRecipe = LoraRecipe()
    freeze: int = Field(default=0, ge=0)

    @property
    def last(self) -> int | None:
        """N of the method `last-N`."""
        name, _, number = self.method.partition("-")
        return int(number) if name == "last" else None

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in ("full", "head", "lora") and not re.fullmatch("last-[1-9][0-9]*", method):
            raise ValueError(f"no method '{method}'; take full, head, lora, or last-N as in last-2")
        return method

    @model_validator(mode="after")
    def _one_way_to_freeze(self) -> OptimRecipe:
        if self.freeze and self.method != "full":
            raise ValueError(f"freeze = {self.freeze} goes with method = 'full' only")
        return self


class ScheduleRecipe(Config):
    """Linear warm-up, then half a cosine down to `min_lr`.

    Attributes:
        epochs: Passes over the training part; None derives it from `images_seen`.
        images_seen: Showings of images in the whole run; epochs = images_seen / size of the
            training part, held between `min_epochs` and `max_epochs`.
        min_epochs: Fewest epochs that are derived.
        max_epochs: Most epochs that are derived.
        warmup: Share of all steps in which the rate rises.
        min_lr: Share of the peak rate that remains at the end.
    """

    epochs: PositiveInt | None = None
    images_seen: PositiveInt = 500_000
    min_epochs: PositiveInt = 5
    max_epochs: PositiveInt = 300
    warmup: Fraction = 0.05
    min_lr: Fraction = 0.01

    def epochs_for(self, count: int) -> int:
        """Epochs for a training part of `count` samples."""
        if self.epochs is not None:
            return self.epochs
        return min(max(round(self.images_seen / count), self.min_epochs), self.max_epochs)


class StopRecipe(Config):
    """Which weights are kept, and when training ends early.

    Attributes:
        metric: Metric of the validation part that is to be greatest (least for nll, ece, cer);
            None takes `top1`, `map` for multi-label data and boxes, `exact_match` for texts; for
            masks `miou` (`f1` of one class), `mask_map` of objects, `pq` of both.
        patience: Epochs without a better metric after which training ends; None never.
    """

    metric: (
        Literal["top1", "top5", "balanced_accuracy", "f1", "nll", "ece"]
        | Literal["exact_match", "cer"]
        | Literal["map", "map50", "map75"]
        | Literal["miou", "dice", "pq", "mask_map", "mask_map50"]
        | None
    ) = None
    patience: PositiveInt | None = None


class RunRecipe(Config):
    """The run itself.

    Attributes:
        device: `auto` takes CUDA where there is one, then MPS, then the CPU.
        precision: `auto` trains in bfloat16 autocast on CUDA and in float32 elsewhere; on a CPU
            bfloat16 pays off only where `vitrail doctor` shows avx512_bf16 or AMX.
        checkpoint_seconds: Most seconds between two checkpoints.
        checkpoint_steps: Also save every so many steps; None does not.
        log_steps: Most steps between two rows of metrics.jsonl; short epochs have four at least.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_seconds: PositiveFloat = 60.0
    checkpoint_steps: PositiveInt | None = None
    log_steps: PositiveInt = 20


class Recipe(Config):
    """All that training depends on beside the data.

    Attributes:
        seed: Seed of the split, of the fresh weights, of order, augmentation and dropping.
        ema: Decay of the moving average of the weights that is evaluated and kept (Polyak and
            Juditsky 1992); None keeps the plain weights.
        weights: Weights to go on from; None starts from fresh ones.
        distill: A teacher to learn from beside the labels; None for none.
        transcribe: The decoder of a model that reads text; None takes the usual one.
        detect: The decoder of a model that finds objects; None takes the usual one.
        segment: The head of a model that tells masks; None takes the usual one.
        class_weights: `balanced` weighs each class by the inverse of its frequency.
    """

    seed: int = Field(default=0, ge=0)
    model: ModelRecipe = ModelRecipe()
    weights: WeightsRecipe | None = None
    data: LoaderRecipe = LoaderRecipe()
    augment: AugmentConfig = AugmentConfig()
    mix: MixRecipe = MixRecipe()
    distill: DistillRecipe | None = None
    transcribe: TranscribeRecipe | None = None
    detect: DetectRecipe | None = None
    segment: SegmentRecipe | None = None
    optim: OptimRecipe = OptimRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    ema: float | None = Field(default=None, gt=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    stop: StopRecipe = StopRecipe()
    run: RunRecipe = RunRecipe()


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by the name of a preset or the path of a TOML file, with overrides laid over it.

    Raises:
        ConfigError: no such preset or file, or a wrong key, type or value.
    """
    table = override(_table(name), overrides)
    return build(Recipe, table, source=name)


def _table(name: str) -> dict[str, Any]:
    if name in PRESETS:
        return read_toml(Path(str(files("vitrail") / "recipes" / f"{name}.toml")))
    if not name.endswith(".toml") and not Path(name).is_file():
        raise ConfigError(
            f"no recipe '{name}'{nearest(name, PRESETS)}; "
            f"presets: {', '.join(PRESETS)}, or give a .toml file"
        )
    return read_toml(Path(name))
