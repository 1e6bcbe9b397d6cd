"""Where a patch stands: how it is told, where, and what happens when it is not (ViT Table 8)."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from vitrail.model import Model
from vitrail.studies.claims import Claim, above, below, close, less_than
from vitrail.studies.data import First, Given, Whole
from vitrail.studies.study import Arm, Job, Measure, Plan, Study
from vitrail.studies.training import PARAMS, SECONDS, TOP1, Trained, held_out, train_arm

ROUNDING = 1e-3
"""Largest change of a logit that float32 sums in another order explain."""


def _arm(name: str, kind: str, where: str = "stem") -> Arm:
    own = [f"model.backbone.positions.kind={kind}"]
    if kind == "learned_1d":
        own.append("model.backbone.positions.start=normal")
    if where != "stem":
        own.append(f"model.backbone.positions_in={where}")
    return Arm(name, tuple(own))


STEM = ("learned_1d", "learned_2d", "sincos_1d", "sincos_2d", "relative_2d", "rotary_2d")
LAYERS = tuple(
    f"{kind}_{where}" for kind in ("learned_1d", "learned_2d") for where in ("layers", "shared")
)
ARMS = (
    _arm("none", "none"),
    *(_arm(kind, kind) for kind in STEM),
    *(
        _arm(f"{kind}_{name}", kind, where)
        for kind in ("learned_1d", "learned_2d")
        for name, where in (("layers", "layers"), ("shared", "layers_shared"))
    ),
)
TOLD = (*STEM, *LAYERS)
IN_TABLE_8 = ("learned_1d", "learned_2d", "relative_2d", *LAYERS)

CLAIMS = (
    Claim(
        "without positions accuracy is clearly below all others",
        "61.4 % against 64.0 to 64.3 %",
        below("none", TOLD),
    ),
    Claim(
        "kinds of Table 8 differ among themselves by less than half of what separates them "
        "from none",
        "0.3 points among them, 2.6 to 2.9 points to none",
        close(IN_TABLE_8, beside="none", share=0.5),
    ),
    Claim(
        f"without positions shuffling the patches changes no logit by more than {ROUNDING:g}",
        "attention is permutation-equivariant (Vaswani et al. 2017, equation 1)",
        (less_than("none", ROUNDING, measure="logit_change"),),
        percent=False,
    ),
    Claim(
        "with positions of any kind shuffling costs accuracy",
        "follows from their use; no figures",
        tuple(above(arm, arm, than="shuffled") for arm in TOLD),
    ),
)

_PATCHES = ("model.backbone.stem.kind=patch",)


def _run(job: Job, plan: Plan) -> dict[str, float]:
    trained = train_arm(job, plan)
    return trained.figures | shuffle_test(trained, seed=job.seed)


def shuffle_test(trained: Trained, *, seed: int) -> dict[str, float]:
    """Move the patches of the test images about.

    Returns:
        `shuffled`: accuracy where each image has a permutation of its own; `same_shuffle`:
        accuracy where one permutation serves all images; `logit_change`: the largest change of
        any logit under the former.
    """
    model = trained.model
    patch = model.backbone.strides[0]
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (-(-side // patch) for side in model.config.backbone.image_size)
    same = torch.randperm(rows * columns, generator=generator)
    right, right_same, count, change = 0, 0, 0, 0.0
    for images, targets in held_out(trained):
        noise = torch.rand(len(images), rows * columns, generator=generator)
        plain = _logits(model, images)
        own = _logits(model, shuffle(images, noise.argsort(dim=1), patch))
        shared = _logits(model, shuffle(images, same.expand(len(images), -1), patch))
        right += int((own.argmax(dim=1) == targets).sum())
        right_same += int((shared.argmax(dim=1) == targets).sum())
        change = max(change, float((own - plain).abs().max()))
        count += len(images)
    return {"shuffled": right / count, "same_shuffle": right_same / count, "logit_change": change}


def shuffle(
    images: UInt8[Tensor, "B 3 H W"], orders: Tensor, patch: int
) -> UInt8[Tensor, "B 3 H W"]:
    """Put patch `orders[b, i]` of image b in place i; sides must be multiples of the patch."""
    B, C, H, W = images.shape
    assert H % patch == 0, f"height {H} is no multiple of {patch}"
    assert W % patch == 0, f"width {W} is no multiple of {patch}"
    cut = images.reshape(B, C, H // patch, patch, W // patch, patch).permute(0, 2, 4, 1, 3, 5)
    patches = cut.reshape(B, -1, C, patch, patch)
    index = orders.to(images.device)[:, :, None, None, None].expand_as(patches)
    moved = patches.gather(1, index).reshape(B, H // patch, W // patch, C, patch, patch)
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)


@torch.no_grad()
def _logits(model: Model, images: Tensor) -> Tensor:
    return model(images)


POSITIONS = Study(
    name="positions",
    title="Positions: none, absolute, relative, rotary; at the stem or in every layer",
    question="Attention does not know where a patch stands: it must be told. How much is lost "
    "when it is not, does the way of telling matter, and does it matter whether it is "
    "told once or in every layer? All arms cut images into patches that do not "
    "overlap (a convolutional stem sees the border, and so the place). The shuffle "
    "test moves the patches of each test image by a random permutation of its own "
    "(`shuffled`) or all images by the same one (`same_shuffle`).",
    published="Dosovitskiy et al. 2021, Table 8 (appendix D.4): ViT-B/16, ImageNet 5-shot linear "
    "accuracy. The relative kind there is one-dimensional; sine-cosine and rotary positions are "
    "not in it.\n\n"
    "| positions | stem | every layer | every layer, shared |\n| --- | --- | --- | --- |\n"
    "| none | 61.38 | | |\n| 1-D | 64.21 | 63.96 | 64.29 |\n| 2-D | 64.00 | 64.05 | 64.02 |\n"
    "| relative | 64.03 | | |",
    measures=(
        TOP1,
        Measure("shuffled", "top-1, each image shuffled"),
        Measure("same_shuffle", "top-1, same shuffle for all", plotted=False),
        Measure("logit_change", "largest change of a logit", percent=False, plotted=False),
        SECONDS,
        PARAMS,
    ),
    plans={
        "smoke": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=Whole("digits"),
            budget="one epoch",
            shared=(
                "model.name=vit_nano_conv2_8",
                *_PATCHES,
                "model.backbone.stem.patch_size=2",
                "model.backbone.width=16",
                "model.backbone.depth=2",
                "schedule.epochs=1",
                'data.workers={kind="serial"}',
            ),
        ),
        "small": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=First("fashion-mnist", train=6000, test=2000),
            budget="6 epochs; patches of 4 x 4 pixels, 3 blocks of width 64",
            shared=(
                "model.name=vit_nano_conv4_28",
                *_PATCHES,
                "model.backbone.stem.patch_size=4",
                "model.backbone.width=64",
                "model.backbone.depth=3",
                "schedule.epochs=6",
                'data.workers={kind="serial"}',
            ),
        ),
        "full": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=Given(),
            recipe="deit",
            budget="the recipe `deit`: ViT-S/16, 300 epochs, batch 1024",
            shared=("model.name=vit_small_patch16_224",),
        ),
    },
    run=_run,
)
