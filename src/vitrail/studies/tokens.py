"""From pixels to tokens: plain patches, an overlapping stem, Tokens-to-Token."""

from __future__ import annotations

from vitrail.studies.claims import Claim, above
from vitrail.studies.data import First, Given, Whole
from vitrail.studies.study import Arm, Plan, Study
from vitrail.studies.training import PARAMS, SECONDS, TOP1, measure_arm

_ENCODER = (
    "model.backbone.class_token=true",
    "model.backbone.pool=class",
    "model.backbone.positions.kind=sincos_1d",
    "model.backbone.qkv_bias=false",
    "model.backbone.eps=1e-5",
)
"""The encoder of T2T-ViT: class token, fixed sinusoid, no bias of queries, keys and values."""


def _small_arms(name: str, patch: int, convolutions: str, splits: str) -> tuple[Arm, ...]:
    vit = (f"model.name={name}", *_ENCODER)
    plain = ("model.backbone.stem.kind=patch", f"model.backbone.stem.patch_size={patch}")
    t2t = ("model.name=t2t_nano_8", f"model.backbone.splits={splits}")
    softmax = "model.backbone.token_block.kind=transformer"
    return (
        Arm("patches", (*vit, *plain)),
        Arm("convolutions", (*vit, f"model.backbone.stem={convolutions}")),
        Arm("t2t_performer", t2t),
        Arm("t2t_transformer", (*t2t, softmax)),
    )


CLAIMS = (
    Claim(
        "Tokens-to-Token is above plain patches",
        "T2T-ViT-14 81.5 %, T2T-ViT_t-14 81.7 % against DeiT-S 79.8 %, all of about 22 million "
        "parameters, ImageNet-1k from scratch (Yuan et al. 2021; Touvron et al. 2021)",
        (above("t2t_performer", "patches"), above("t2t_transformer", "patches")),
    ),
    Claim(
        "an overlapping convolutional stem is above plain patches",
        "1 to 2 points on ImageNet-1k (Xiao et al. 2021, abstract)",
        (above("convolutions", "patches"),),
    ),
)

TOKENS = Study(
    name="tokens",
    title="Tokens: plain patches, a convolutional stem, Tokens-to-Token",
    question="Plain patches are cut without overlap, so that an edge may be split between two. "
    "Does it help to make the tokens from overlapping windows, by a few convolutions "
    "or by the soft splits of T2T-ViT, before an encoder that is the same in all "
    "arms? All give the encoder the same number of tokens, with a fixed sinusoid and "
    "a class token; parameters and time of the stem come on top and are in the table.",
    published="Yuan et al. 2021 (README of the owners): T2T-ViT-14 (performer) 81.5 %, "
    "T2T-ViT_t-14 (transformer) 81.7 % top-1 on ImageNet-1k. Touvron et al. 2021, Table 3: DeiT-S "
    "without distillation 79.8 %. Xiao et al. 2021: a convolutional stem gives 1 to 2 points.",
    measures=(TOP1, SECONDS, PARAMS),
    plans={
        "smoke": Plan(
            arms=_small_arms(
                "vit_nano_conv2_8",
                2,
                '{kind="conv", widths=[8], strides=[2]}',
                "[{kernel=3, stride=1}, {kernel=3, stride=2}]",
            ),
            claims=CLAIMS,
            data=Whole("digits"),
            budget="one epoch",
            shared=(
                "model.image_size=[8, 8]",
                "model.backbone.width=16",
                "model.backbone.depth=1",
                "schedule.epochs=1",
                'data.workers={kind="serial"}',
            ),
        ),
        "small": Plan(
            arms=_small_arms(
                "vit_nano_conv4_28",
                4,
                '{kind="conv", widths=[16, 32], strides=[2, 2]}',
                "[{kernel=7, stride=2}, {kernel=3, stride=2}]",
            ),
            claims=CLAIMS,
            data=First("fashion-mnist", train=6000, test=4000),
            budget="8 epochs; 7 x 7 tokens, 3 blocks of width 64",
            seeds=4,
            shared=(
                "model.image_size=[28, 28]",
                "model.backbone.width=64",
                "model.backbone.depth=3",
                "model.backbone.heads=4",
                "model.backbone.mlp_ratio=2.0",
                "schedule.epochs=8",
                'data.workers={kind="serial"}',
            ),
        ),
        "full": Plan(
            arms=(
                Arm("patches", ("model.name=vit_small_patch16_224", *_ENCODER)),
                Arm(
                    "convolutions",
                    (
                        "model.name=vit_small_patch16_224",
                        *_ENCODER,
                        'model.backbone.stem={kind="conv", widths=[48, 96, 192, 384], '
                        "strides=[2, 2, 2, 2]}",
                    ),
                ),
                Arm("t2t_performer", ("model.name=t2t_vit_14",)),
                Arm("t2t_transformer", ("model.name=t2t_vit_t_14",)),
            ),
            claims=CLAIMS,
            data=Given(),
            recipe="deit",
            budget="the recipe `deit`: 14 blocks of width 384, 300 epochs, batch 1024",
            shared=("model.backbone.depth=14", "model.backbone.mlp_ratio=3.0"),
        ),
    },
    run=measure_arm,
)
