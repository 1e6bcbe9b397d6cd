"""What the Transformer replaced: accuracy, speed and longest chain against sequence length."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from vitrail.model import Model
from vitrail.studies.chains import chain_of
from vitrail.studies.claims import Claim, Inequality, Term, above
from vitrail.studies.data import Data, First, Recall, Whole
from vitrail.studies.study import Arm, Job, Measure, Plan, Study
from vitrail.studies.training import PARAMS, TOP1, held_out, train_arm

BATCH = 64
STEPS = 5
"""Training steps that are timed, after two that warm up."""

RECALL, PATCHES = "recall at a distance", "patches of images"

CELLS = {"rnn": 64, "gru": 36, "lstm": 32}
"""Width of two layers, so that all networks have about 17,000 parameters in their layers."""


def _network(family: str, patch: int) -> tuple[str, ...]:
    """About 17,000 parameters, whatever the family."""
    own = ("model.backbone.stem.kind=patch", f"model.backbone.stem.patch_size={patch}")
    match family:
        case "transformer":
            return (
                "model.name=vit_nano_conv2_8",
                *own,
                "model.backbone.width=32",
                "model.backbone.depth=2",
                "model.backbone.class_token=true",
                "model.backbone.pool=class",
            )
        case "cnn":
            return (
                "model.name=resnet_nano_8",
                "model.backbone.width=21",
                "model.backbone.depths=[2]",
            )
        case cell:
            return (f"model.name={cell}_nano_8", *own, f"model.backbone.width={CELLS[cell]}")


def _recall(family: str, length: int, data: Data) -> Arm:
    return Arm(
        f"recall-{family}-{length}",
        (
            *_network(family, 1),
            f"model.image_size=[1, {1 + length}]",
            "augment.geometry.kind=none",
            "mix.label_smoothing=0.0",
        ),
        panel=RECALL,
        series=family,
        x=length,
        data=data,
    )


def _patches(family: str, side: int, patch: int) -> Arm:
    count = (side // patch) ** 2
    own = (*_network(family, patch), f"model.image_size=[{side}, {side}]")
    return Arm(f"patches-{family}-{count}", own, panel=PATCHES, series=family, x=count)


FAMILIES = ("rnn", "gru", "lstm", "transformer", "cnn")
READERS = ("rnn", "lstm", "transformer")
"""Families that cut an image into a sequence; a CNN sees the image as it is."""


def _claims(lengths: tuple[int, ...]) -> tuple[Claim, ...]:
    """Those of the papers, between the shortest, a middle and the longest distance."""
    short, middle, far = lengths[0], lengths[len(lengths) // 2], lengths[-1]

    def steeper(family: str) -> Inequality:
        ratio = 0.5 * (1 + far) / (1 + short)
        terms = (
            Term(1.0, f"recall-{family}-{far}", "chain"),
            Term(-ratio, f"recall-{family}-{short}", "chain"),
        )
        return Inequality(f"chain of {family} grows at least half as fast as the length", terms)

    def level(family: str) -> Inequality:
        terms = (
            Term(1.0, f"recall-{family}-{short}", "chain"),
            Term(-1.0, f"recall-{family}-{far}", "chain"),
        )
        return Inequality(f"chain of {family} does not grow", terms, 0.5)

    return (
        Claim(
            "the longest chain grows with the length in recurrent networks, not in a Transformer "
            "or a CNN of fixed depth",
            "sequential operations O(n) against O(1) (Vaswani et al. 2017, Table 1)",
            (*(steeper(cell) for cell in CELLS), level("transformer"), level("cnn")),
            percent=False,
        ),
        Claim(
            f"at distance {far} a Transformer recalls better than recurrent networks",
            "paths of O(1) against O(n) make distant dependencies easier to learn (Vaswani et al. "
            "2017, section 4); no figures",
            tuple(above(f"recall-transformer-{far}", f"recall-{cell}-{far}") for cell in CELLS),
        ),
        Claim(
            f"at distance {middle} an LSTM recalls better than a plain recurrent network",
            "an LSTM bridges lags where a plain network fails (Hochreiter and Schmidhuber 1997, "
            "section 5); no figures for this task",
            (above(f"recall-lstm-{middle}", f"recall-rnn-{middle}"),),
        ),
        Claim(
            f"at distance {middle} a GRU recalls better than a plain recurrent network",
            "gated units are above tanh units (Chung et al. 2014, section 5); no figures for this "
            "task",
            (above(f"recall-gru-{middle}", f"recall-rnn-{middle}"),),
        ),
        Claim(
            "a plain recurrent network recalls worse over a long than over a short distance",
            "gradients vanish with the distance (Bengio et al. 1994); no figures for this task",
            (above(f"recall-rnn-{short}", f"recall-rnn-{far}"),),
        ),
    )


def _plan(
    lengths: tuple[int, ...], data: Data, images: tuple[int, tuple[int, ...]], **own: int
) -> Plan:
    side, patches = images
    arms = [
        _recall(family, length, Recall(length, own["train"], own["test"]))
        for length in lengths
        for family in FAMILIES
    ]
    arms += [_patches(family, side, patch) for patch in patches for family in READERS]
    return Plan(
        arms=tuple(arms),
        claims=_claims(lengths),
        data=data,
        budget=f"{own['epochs']} epochs; about 17,000 parameters in the layers of every network",
        shared=(f"schedule.epochs={own['epochs']}", 'data.workers={kind="serial"}'),
    )


def _run(job: Job, plan: Plan) -> dict[str, float]:
    trained = train_arm(job, plan)
    images, _ = held_out(trained, BATCH)[0]
    fresh = Model(trained.model.config).to(images.device)
    return trained.figures | {
        "chain": float(chain_of(fresh, images[:2])),
        "steps": step_rate(fresh, images),
    }


def step_rate(model: nn.Module, images: Tensor) -> float:
    """Training steps a second on one batch.

    On a CPU it is a second of computing time, so that other programs do not count.
    """
    cuda = images.device.type == "cuda"
    clock = time.monotonic if cuda else time.process_time
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.train()
    start = 0.0
    for step in range(2 + STEPS):
        if step == 2:
            start = _now(clock, cuda=cuda)
        loss = model(images).square().mean()
        loss.backward()
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        optimizer.zero_grad()
    return STEPS / max(_now(clock, cuda=cuda) - start, 1e-9)


def _now(clock: object, *, cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    assert callable(clock)
    return float(clock())  # pyright: ignore[reportArgumentType]


SEQUENCE = Study(
    name="sequence",
    title="Sequence models: recurrent networks, Transformer, CNN against sequence length",
    question="How do recall, accuracy, speed and the longest chain of dependent operations "
    "change with the length of a sequence? In the recall task a strip of one row "
    "holds the colour to keep and then as many random colours of the same kind as the "
    "distance says; the class is the first colour, chance is one in eight. Recurrent "
    "networks answer from their last state, the Transformer from its class token, the "
    "CNN (3 x 3 convolutions, then the mean) from all places. On real images the same "
    "pictures are cut into ever smaller patches. The longest chain is counted in "
    "torch's own graph of the forward pass, a fused kernel as one operation; steps "
    "are training steps a second of one CPU core, batches of 64.",
    published="Vaswani et al. 2017, Table 1, for n tokens of width d:\n\n"
    "| layer | operations a layer | sequential operations | longest path |\n"
    "| --- | --- | --- | --- |\n| self-attention | O(n² d) | O(1) | O(1) |\n"
    "| recurrent | O(n d²) | O(n) | O(n) |\n| convolutional | O(k n d²) | O(1) | O(log_k n) |",
    measures=(
        TOP1,
        Measure("chain", "longest chain of operations", percent=False, log=True),
        Measure("steps", "training steps a second", percent=False, log=True),
        PARAMS,
    ),
    plans={
        "smoke": _plan((2, 5), Whole("digits"), (8, (4, 2)), epochs=1, train=64, test=16),
        "small": _plan(
            (8, 32, 128),
            First("fashion-mnist", 5000, 2000),
            (28, (7, 4, 2)),
            epochs=2,
            train=20_000,
            test=2_000,
        ),
        "full": _plan(
            (8, 32, 128, 512),
            First("fashion-mnist", 60_000, 10_000),
            (28, (7, 4, 2)),
            epochs=10,
            train=200_000,
            test=10_000,
        ),
    },
    run=_run,
)
