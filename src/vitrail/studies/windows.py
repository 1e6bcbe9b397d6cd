"""Windows that are shifted or not, and what they know of places (Swin Table 4)."""

from __future__ import annotations

from vitrail.studies.claims import Claim, above, within
from vitrail.studies.data import First, Given, Whole
from vitrail.studies.study import Arm, Plan, Study
from vitrail.studies.training import PARAMS, SECONDS, TOP1, measure_arm

ARMS = (
    Arm("relative", ("model.backbone.positions=relative",)),
    Arm("relative_unshifted", ("model.backbone.positions=relative", "model.backbone.shift=false")),
    Arm("none", ("model.backbone.positions=none",)),
    Arm("absolute", ("model.backbone.positions=absolute",)),
    Arm("absolute_and_relative", ("model.backbone.positions=absolute_and_relative",)),
)

CLAIMS = (
    Claim(
        "shifted windows are above windows that stay",
        "81.3 against 80.2 %",
        (above("relative", "relative_unshifted"),),
    ),
    Claim(
        "a relative bias is above no positions",
        "81.3 against 80.1 %",
        (above("relative", "none"),),
    ),
    Claim(
        "a relative bias is above absolute positions",
        "81.3 against 80.5 %",
        (above("relative", "absolute"),),
    ),
    Claim(
        "absolute positions are above none",
        "80.5 against 80.1 %",
        (above("absolute", "none"),),
    ),
    Claim(
        "absolute beside relative positions change less than a point",
        "81.3 and 81.3 %",
        within(("absolute_and_relative", "relative"), 0.01),
    ),
)

WINDOWS = Study(
    name="windows",
    title="Windows: shifted or not, and what they know of places",
    question="A Swin Transformer attends within windows only. Does it help that every second "
    "block shifts them by half, and that attention knows how far two patches are "
    "apart (a bias for each offset), where they are (a table added at the stem), or "
    "nothing? All arms shift their windows but `relative_unshifted`.",
    published="Liu et al. 2021, Table 4: Swin-T, ImageNet-1k top-1:\n\n"
    "| | top-1 |\n| --- | --- |\n| relative, without shifting | 80.2 |\n"
    "| relative, shifted windows | 81.3 |\n| no positions | 80.1 |\n| absolute | 80.5 |\n"
    "| absolute and relative | 81.3 |",
    measures=(TOP1, SECONDS, PARAMS),
    plans={
        "smoke": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=Whole("digits"),
            budget="one epoch",
            shared=(
                "model.name=swin_nano_8",
                "model.backbone.width=8",
                "model.backbone.patch_size=2",
                "model.backbone.window=2",
                "model.backbone.depths=[2]",
                "model.backbone.heads=[2]",
                "schedule.epochs=1",
                'data.workers={kind="serial"}',
            ),
        ),
        "small": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=First("fashion-mnist", train=6000, test=4000),
            budget="6 epochs; images enlarged to 32 x 32, patches of 2 x 2 pixels, windows of "
            "4 x 4 patches, three stages of 2 blocks, width 24 to 96",
            seeds=4,
            shared=(
                "model.name=swin_nano_8",
                "model.image_size=[32, 32]",
                "model.backbone.width=24",
                "model.backbone.patch_size=2",
                "model.backbone.window=4",
                "model.backbone.depths=[2, 2, 2]",
                "model.backbone.heads=[2, 4, 8]",
                "model.backbone.mlp_ratio=2.0",
                "schedule.epochs=6",
                'data.workers={kind="serial"}',
            ),
        ),
        "full": Plan(
            arms=ARMS,
            claims=CLAIMS,
            data=Given(),
            recipe="deit",
            budget="the recipe `deit`: Swin-T, 300 epochs, batch 1024",
            shared=("model.name=swin_tiny_patch4_window7_224",),
        ),
    },
    run=measure_arm,
)
