"""Thin structures: what patches lose of roads, rivers and vessels, and what brings it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrail import masks
from vitrail.data.dataset import Dataset, Subset
from vitrail.data.open import open_source
from vitrail.errors import ConfigError
from vitrail.predict import predict
from vitrail.studies.ceiling import CELLS, Ceiling, Mask, best_f1, ceiling
from vitrail.studies.claims import Claim, above
from vitrail.studies.data import Given, Scenes
from vitrail.studies.examples import draw_examples, keep_answers, most_foreground
from vitrail.studies.study import Arm, Job, Measure, Plan, Study
from vitrail.studies.training import MILLISECONDS, PARAMS, SECONDS, milliseconds, train_arm
from vitrail.tasks.segment import Segment
from vitrail.types import VOID, Segmentation, Segments

METRICS = ("f1", "iou", "f1_tolerance", "dice", "cldice", "betti0_error")
"""Metrics of the test part that a run tells; `f1`, `iou` and `f1_tolerance` are of all its pixels
together, the others means over images."""
EXAMPLES = 3
"""Test images in the picture."""

_CELL = 'segment.readout={kind="linear", logits="cell"}'
_PIXEL = 'segment.readout={kind="linear", logits="pixel"}'


@dataclass(frozen=True, slots=True)
class _Size:
    """What all arms of a plan are made of.

    Attributes:
        encoder: Of every backbone.
        stem: Channels of the convolutional stem, at strides 2, 4, 8 and 16.
        token_width: Of Tokens-to-Token, between its splits.
        pixels: Channels of the embedding of pixels, at strides 1, 2, 4 and 8.
        width: Of the query.
        hidden: Hidden width of its MLPs.
    """

    encoder: tuple[str, ...]
    stem: tuple[int, int, int, int]
    token_width: int
    pixels: tuple[int, int, int, int]
    width: int
    hidden: int


def _arms(size: _Size) -> tuple[Arm, ...]:
    """The ladder: each arm adds one thing to one before it."""
    vit = ("model.name=vit_nano_conv16_192x256", *size.encoder)
    patch = (*vit, "model.backbone.stem.kind=patch")
    stem = f'model.backbone.stem={{kind="conv", widths={list(size.stem)}, strides=[2, 2, 2, 2]}}'
    conv = (*vit, stem)
    t2t = (
        "model.name=t2t_nano_40",
        *size.encoder,
        "model.backbone.splits=[{kernel=7, stride=4}, {kernel=3, stride=2}, {kernel=3, stride=2}]",
        f"model.backbone.token_width={size.token_width}",
    )
    skip = _queries(size, stride=2, skip=True)
    return (
        Arm("vit16_linear", (*patch, "model.backbone.stem.patch_size=16", _CELL)),
        Arm("vit16_pixels", (*patch, "model.backbone.stem.patch_size=16", _PIXEL)),
        Arm("vit8_linear", (*patch, "model.backbone.stem.patch_size=8", _CELL)),
        Arm("t2t16_linear", (*t2t, _CELL)),
        Arm("conv16_linear", (*conv, _CELL)),
        Arm("decoder4", (*conv, _queries(size, stride=4, skip=False))),
        Arm("skip2", (*conv, skip)),
        Arm("skip2_cldice", (*conv, skip, "segment.loss.cldice=0.5")),
    )


def _queries(size: _Size, *, stride: int, skip: bool) -> str:
    pixels = f"{{stride={stride}, widths={list(size.pixels)}, skip={str(skip).lower()}}}"
    return (
        f'segment.readout={{kind="class_queries", width={size.width}, depth=1, heads=4, '
        f"hidden={size.hidden}, pixels={pixels}}}"
    )


CLAIMS = (
    Claim(
        "one logit a patch stays below what the true share of each patch reaches",
        "F1 0.370 at cells of 16, 0.565 at 8 pixels on CrackForest, counted from its masks",
        (
            above("vit16_linear", "vit16_linear", measure="shares", than="f1"),
            above("conv16_linear", "conv16_linear", measure="shares", than="f1"),
        ),
    ),
    Claim(
        "smaller patches are above larger ones",
        "ViT-B, ADE20K: 49.5 at /8 with a linear head, 48.5 % mIoU at /16 with a mask decoder "
        "(Strudel et al. 2021)",
        (above("vit8_linear", "vit16_linear", measure="f1"),),
    ),
    Claim(
        "an overlapping stem is above patches, one logit a patch each",
        "1 to 2 points of ImageNet top-1 (Xiao et al. 2021); of thin things nothing is published",
        (
            above("conv16_linear", "vit16_linear", measure="f1"),
            above("t2t16_linear", "vit16_linear", measure="f1"),
        ),
    ),
    Claim(
        "masks at a quarter of the resolution are above one logit a patch",
        "what shares reach: F1 0.763 at cells of 4, 0.370 at 16 pixels on CrackForest",
        (above("decoder4", "conv16_linear", measure="f1"),),
    ),
    Claim(
        "convolutions of the image that join the masks are above none",
        "DeepCrack: IoU 0.667 with such a skip (UNetFormer), 0.520 to 0.596 without "
        "(SegFormer-B0, Swin-S, Mask2Former)",
        (above("skip2", "decoder4", measure="f1"),),
    ),
    Claim(
        "with the skip F1 is at least 0.20 above one logit a patch",
        "the aim of this package",
        (above("skip2", "vit16_linear", by=0.2, measure="f1"),),
    ),
    Claim(
        "a loss on skeletons raises clDice",
        "1.7 to 3.9 points on EdmCrack600 and CrackForest with U-Net++ (2025, in Future "
        "Transportation)",
        (above("skip2_cldice", "skip2", measure="cldice"),),
    ),
)


def _run(job: Job, plan: Plan) -> dict[str, float]:
    _insist_one_class(open_source(job.data, seed=job.seed).splits["test"], job.data)
    trained = train_arm(job, plan, METRICS)
    model, test = trained.model, trained.source.splits["test"]
    assert isinstance(model.task, Segment)
    true = truths(test)
    shown = most_foreground(true, EXAMPLES)
    answers = [row.prediction for row in predict(model, Subset(test, shown))]
    keep_answers(job, [_answer(each) for each in answers if isinstance(each, Segmentation)])
    return trained.figures | {
        "shares": best_f1(true, model.task.segmenter.stride),
        "ms": milliseconds(trained.model),
    }


def truths(dataset: Dataset) -> list[Mask]:
    """The foreground of all images of a data set of one class."""
    found: list[Mask] = []
    for target in dataset.targets:
        assert isinstance(target, Segments)
        ours = np.array([False, *(label == 0 for label in target.labels)])
        found.append(np.asarray(ours[target.ids.numpy()].any(axis=0), dtype=np.bool_))
    return found


def _insist_one_class(dataset: Dataset, name: str) -> None:
    if dataset.segments != "semantic" or len(dataset.classes) != 1 or not dataset.background:
        raise ConfigError(
            f"{name}: the study of thin structures needs masks of one class on a background, such "
            "as the built-in 'roads' or a CSV 'path,mask,split'"
        )
    if any(VOID in target.labels for target in dataset.targets if isinstance(target, Segments)):
        raise ConfigError(
            f"{name}: some pixels are void, which the study of thin structures cannot leave out; "
            "make them foreground or background"
        )
    if not any(mask.any() for mask in truths(dataset)):
        raise ConfigError(
            f"{name}: no mask of the test part shows anything, so nothing is measured"
        )


def _answer(prediction: Segmentation) -> Mask:
    (region,) = prediction.regions or (None,)
    empty = np.zeros(prediction.size, dtype=np.bool_)
    return empty if region is None else masks.decode(region.rle, prediction.size)


def _appendix(jobs: Sequence[Job], plan: Plan) -> str:
    """The ceilings of all cells, and the picture."""
    test = open_source(jobs[0].data, seed=jobs[0].seed).splits["test"]
    true = truths(test)
    shown = most_foreground(true, EXAMPLES)
    samples = [test.read(index).image for index in shown]
    first, last = plan.arms[0].name, "skip2_cldice"
    picture = draw_examples(jobs, samples, [true[index] for index in shown], (first, last))
    return "\n\n".join(
        [
            "## What one number a cell can say",
            "Not of a model: each cell has the share of its pixels that the truth calls "
            "foreground, the map is enlarged bilinearly, and the best threshold is taken. Shares "
            "are what a head learns that judges each cell by itself. Numbers that are fitted to "
            "the truth of each image, all cells together, draw it better: the last column.",
            _table([ceiling(true, cell) for cell in CELLS]),
            "## What it looks like",
            f"Test images with the most foreground; seed {jobs[0].seed}. White is right, orange "
            "is missed, blue is a false alarm.",
            f"![image, truth, {first}, {last}]({picture.name})",
        ]
    )


def _table(rows: Sequence[Ceiling]) -> str:
    lines = [
        "| cell | IoU, % | F1, % | F1 within 2 px, % | F1 an image, % | clDice, % "
        "| F1 if fitted, % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = (row.iou, row.f1, row.f1_tolerance, row.dice, row.cldice, row.fitted)
        lines.append(f"| {row.cell} | {' | '.join(f'{100 * value:.1f}' for value in figures)} |")
    return "\n".join(lines)


_SERIAL = 'data.workers={kind="serial"}'

THIN = Study(
    name="thin",
    title="Thin structures: what patches lose, and what brings it back",
    question="A patch is averaged into one vector before anything looks at it, and a head that "
    "gives one logit a patch cannot draw a line of a few pixels at all. What brings it back: one "
    "logit a pixel from the same vector, smaller patches, an overlapping stem, masks from a "
    "decoder at stride 4, convolutions of the image that join them at stride 2, a loss on "
    "skeletons? Each arm adds one thing: `decoder4` and the arms after it have the stem of "
    "`conv16_linear`. `shares` is the F1 that the true share of each cell reaches at the stride of "
    "an arm's output.",
    published="No paper has this ladder. What is published of its steps stands beside the claims.",
    measures=(
        Measure("f1", "F1"),
        Measure("shares", "F1 of shares", plotted=False),
        Measure("iou", "IoU", plotted=False),
        Measure("f1_tolerance", "F1 within 2 px"),
        Measure("dice", "F1 an image", plotted=False),
        Measure("cldice", "clDice"),
        Measure("betti0_error", "error of Betti number 0", percent=False),
        PARAMS,
        MILLISECONDS,
        SECONDS,
    ),
    plans={
        "smoke": Plan(
            arms=_arms(
                _Size(
                    encoder=("model.backbone.width=16", "model.backbone.depth=1"),
                    stem=(4, 4, 8, 8),
                    token_width=16,
                    pixels=(4, 4, 8, 8),
                    width=16,
                    hidden=16,
                )
            ),
            claims=CLAIMS,
            data=Scenes(train=8, val=4, test=4),
            recipe="segment",
            budget="one epoch",
            shared=(
                "model.image_size=[64, 64]",
                "data.views=1",
                "schedule.epochs=1",
                _SERIAL,
            ),
        ),
        "small": Plan(
            arms=_arms(
                _Size(
                    encoder=(
                        "model.backbone.width=96",
                        "model.backbone.depth=3",
                        "model.backbone.heads=4",
                        "model.backbone.mlp_ratio=2.0",
                    ),
                    stem=(16, 32, 48, 64),
                    token_width=32,
                    pixels=(12, 24, 32, 48),
                    width=64,
                    hidden=128,
                )
            ),
            claims=CLAIMS,
            data=Scenes(train=400, val=50, test=100),
            recipe="segment",
            budget="6 epochs; 400 scenes of 128 x 128 pixels, 3 blocks of width 96",
            shared=(
                "model.image_size=[128, 128]",
                "data.views=1",
                "data.batch_size=4",
                "schedule.epochs=6",
                "optim.lr=2e-3",
                "ema=0.99",
                _SERIAL,
            ),
        ),
        "full": Plan(
            arms=_arms(
                _Size(
                    encoder=(
                        "model.backbone.width=128",
                        "model.backbone.depth=4",
                        "model.backbone.heads=4",
                        "model.backbone.mlp_ratio=2.0",
                    ),
                    stem=(24, 48, 96, 128),
                    token_width=32,
                    pixels=(16, 32, 64, 96),
                    width=128,
                    hidden=256,
                )
            ),
            claims=CLAIMS,
            data=Given("TABLE.csv with path, mask and split, of roads or vessels"),
            recipe="segment",
            budget="3,000 views of at most 256 x 256 pixels, 4 blocks of width 128",
            # Of vessels one logit a patch comes to F1 0.50 at 3e-4 and 1e-3, to 0.31 at 4e-3.
            shared=("schedule.images_seen=3000", "data.views=10", "optim.lr=1e-3", _SERIAL),
        ),
    },
    run=_run,
    appendix=_appendix,
)
