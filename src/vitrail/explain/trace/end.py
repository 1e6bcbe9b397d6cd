"""From the last tokens to the answer, and the proof that it is the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.backbones.hybrid import Hybrid
from vitrail.backbones.swin import Swin
from vitrail.backbones.t2t import T2T
from vitrail.backbones.vit import ViT
from vitrail.explain.trace.data import Bars, Facts, Heat, Item, Row, Rows, Source, Step, Text
from vitrail.explain.trace.items import linear_dot, norm_step, row
from vitrail.explain.trace.look import prefix_names
from vitrail.explain.trace.scene import Scene, block_stride
from vitrail.explain.trace.source import source
from vitrail.explain.trace.words import join, say
from vitrail.model import Model
from vitrail.nn.pooling import (
    AttentionPool,
    ClassTokenAndMeanPool,
    ClassTokenPool,
    MeanPool,
)
from vitrail.tasks.classify import Classify
from vitrail.tasks.transcribe import Transcribe
from vitrail.types import Classification, Transcription

_BEST = 5
"""Classes that are shown."""


def end_steps(scene: Scene, difference: float) -> list[Step]:
    """Last norm, pooling, head, answer, check; of a transcriber the memory of its decoder."""
    steps = [_last_norm(scene)] if isinstance(scene.backbone.norm, nn.LayerNorm) else []
    match scene.model.task:
        case Classify() as task:
            steps.append(_pool(scene))
            if isinstance(scene.backbone, ViT) and isinstance(scene.backbone.fc_norm, nn.LayerNorm):
                steps.append(_norm_after_pool(scene, scene.backbone.fc_norm))
            if task.pre_logits is not None:
                steps.append(_representation(scene, task.pre_logits))
            steps += [_logits(scene, task), _probabilities(scene, task)]
        case Transcribe() as task:
            steps.append(_memory(scene, task))
        case task:
            raise AssertionError(f"a task without a step: {type(task).__name__}")
    return [*steps, _check(scene, difference)]


def answer(scene: Scene) -> Text:
    """What the model says of the image."""
    device = next(scene.model.parameters()).device
    with torch.no_grad():
        (prediction,) = scene.model.task.postprocess(scene.output.to(device))
    if isinstance(prediction, Transcription):
        return say("answer.text", text=prediction.text)
    assert isinstance(prediction, Classification), "a detector has no trace"
    return say("answer.class", label=prediction.label or "–", share=f"{prediction.score:.1%}")


def _forward(scene: Scene) -> Callable[..., Any]:
    match scene.backbone:
        case Swin():
            return Swin.forward
        case T2T():
            return T2T.forward
        case Hybrid():
            return Hybrid.forward
        case ViT():
            return ViT.forward


def _last_norm(scene: Scene) -> Step:
    norm = scene.backbone.norm
    assert isinstance(norm, nn.LayerNorm)
    before, after = scene.into(norm), scene.out(norm)
    # The token that the head reads, where it reads one.
    first = scene.prefix > 0
    pick = _first if first else _chosen(scene)
    return norm_step(
        "norm-last",
        say("norm.title_last_class" if first else "norm.title_last"),
        pick(before),
        pick(after),
        norm=norm,
        count=before.shape[1],
        code=(source(_forward(scene), "tokens = self.norm(tokens)"),),
    )


def _first(tokens: Tensor) -> Tensor:
    return tokens[:, 0]


def _chosen(scene: Scene) -> Callable[[Tensor], Tensor]:
    """The chosen patch on the last map."""
    block = scene.blocks[-1]
    cells = scene.places.on(scene.grid(block), block_stride(scene.backbone, block))
    return lambda tokens: tokens[0, cells + scene.prefix]


def _pool(scene: Scene) -> Step:
    tokens = scene.features.tokens.float().cpu()
    backbone = scene.backbone
    pool = backbone.pool if isinstance(backbone, ViT | Hybrid) else None
    pooled = scene.out(pool) if pool is not None else scene.features.pooled.float().cpu()
    patches = tokens.shape[1] - scene.prefix
    mean = Rows(
        say("pool.rows"),
        (
            row(say("name.chosen"), _chosen(scene)(tokens)),
            row(say("pool.mean_of", count=patches), pooled),
        ),
    )
    one = Rows(
        say("pool.rows"),
        (row(say("name.class"), tokens[:, 0]), row(say("name.image_vector"), pooled, "=")),
    )
    items: tuple[Item, ...]
    match pool, backbone:
        case (MeanPool(), _):
            text, items, formula = say("pool.mean", count=patches), (mean,), _MEAN
            code = source(MeanPool.forward, "return")
        case (None, Swin()):
            text, items, formula = say("pool.mean", count=patches), (mean,), _MEAN
            code = source(Swin.forward, "return Features")
        case (AttentionPool(), _):
            text, items = say("pool.attention", count=tokens.shape[1]), _attention_pool(scene, pool)
            formula = "<i>h</i> = softmax(<i>q</i> <i>K</i>ᵀ/√<i>d</i>) <i>V</i>"
            code = source(AttentionPool.forward, "q = self.q", "return")
        case (ClassTokenAndMeanPool(), _):
            text, formula = say("pool.both", count=patches), f"[<i>z</i><sub>class</sub>; {_MEAN}]"
            items = (one,)
            code = source(ClassTokenAndMeanPool.forward, "return")
        case _:
            text, items = say("pool.class"), (one,)
            formula = "<i>h</i> = <i>z</i><sub>class</sub>"
            code = (
                source(T2T.forward, "return Features")
                if pool is None
                else source(ClassTokenPool.forward, "return")
            )
    if backbone.distilled:
        text = join(text, say("pool.distilled"))
    return Step(
        key="pool",
        title=say("pool.title"),
        text=text,
        shapes=(tuple(tokens.shape), tuple(pooled.shape)),
        formula=formula,
        source=(code,),
        items=items,
        chapter=None,
    )


_MEAN = "<i>h</i> = 1/<i>N</i> Σ<sub><i>i</i></sub> <i>z</i><sub><i>i</i></sub>"


def _attention_pool(scene: Scene, pool: nn.Module) -> tuple[Item, ...]:
    weights = scene.attended(pool).weights.rows([scene.head])[0, 0]
    beside = [(name, weights[:, i]) for i, name in enumerate(prefix_names(scene))]
    return (
        Heat(
            say("pool.heat"),
            weights[:, scene.prefix :],
            scene.places.grid,
            scene.places.stride,
            low=0.0,
            beside=(*beside, (say("softmax.sum"), weights.sum(dim=1))),
        ),
        Rows(say("pool.rows"), (row(say("name.image_vector"), scene.out(pool)),)),
    )


def _norm_after_pool(scene: Scene, norm: nn.LayerNorm) -> Step:
    before, after = scene.into(norm), scene.out(norm)
    return norm_step(
        "norm-last",
        say("norm.title_pooled"),
        before,
        after,
        norm=norm,
        count=1,
        code=(source(ViT.forward, "pooled = self.fc_norm"),),
    )


def _representation(scene: Scene, layer: nn.Linear) -> Step:
    before, after = scene.into(layer), scene.out(layer)
    return Step(
        key="representation",
        title=say("representation.title"),
        text=say("representation.text", width=after.shape[1]),
        shapes=(tuple(before.shape), tuple(after.shape)),
        formula="<i>r</i> = tanh(<i>W</i> <i>h</i> + <i>b</i>)",
        source=(source(Classify.represent, "return self.pre_logits"),),
        items=(
            Rows(
                say("representation.rows"),
                (
                    row(say("name.image_vector"), before),
                    row(say("name.hidden"), after),
                    row(say("name.tanh"), _head_input(scene), "="),
                ),
            ),
        ),
    )


def _head_input(scene: Scene) -> Tensor:
    task = scene.model.task
    assert isinstance(task, Classify)
    return scene.into(task.head)


def _best(scene: Scene) -> list[int]:
    logits = scene.output[0]
    order = logits.argsort(descending=True)[:_BEST]
    return [int(index) for index in order]


def _logits(scene: Scene, task: Classify) -> Step:
    best, classes = _best(scene), task.config.classes
    label = classes[best[0]]
    names = (say("name.image_vector"), say("logits.row", label=label))
    items: list[Item] = [
        linear_dot(
            say("logits.dot", label=label),
            names,
            scene.into(task.head),
            task.head,
            scene.out(task.head),
            output=best[0],
        )
    ]
    text, formula = (
        say("logits.text", count=len(classes)),
        "<i>y</i><sub><i>c</i></sub> = "
        "<i>w</i><sub><i>c</i></sub> · <i>h</i> + <i>b</i><sub><i>c</i></sub>",
    )
    lines: tuple[Source, ...] = (source(Classify.forward, "return self.head"),)
    if task.head_dist is not None:
        second = scene.out(task.head_dist)
        items.append(
            linear_dot(
                say("logits.dot_distilled", label=label),
                (say("name.distilled"), say("logits.row", label=label)),
                scene.into(task.head_dist),
                task.head_dist,
                second,
                output=best[0],
            )
        )
        items.append(_two_heads(scene, task, second, label))
        text = join(text, say("logits.two"))
        lines = (
            source(Classify.heads, "own = self.head"),
            source(Classify.heads, "return own, self.head_dist"),
            source(Classify.forward, "return (own"),
        )
    return Step(
        key="logits",
        title=say("logits.title"),
        text=text,
        shapes=(tuple(scene.into(task.head).shape), tuple(scene.output.shape)),
        formula=formula,
        source=lines,
        items=tuple(items),
    )


def _two_heads(scene: Scene, task: Classify, second: Tensor, label: str) -> Facts:
    best = task.config.classes.index(label)
    return Facts(
        say("logits.mean", label=label),
        (
            (say("name.class"), scene.out(task.head)[:, best]),
            (say("name.distilled"), second[:, best]),
            (say("logits.both"), scene.output[:, best]),
        ),
    )


def _probabilities(scene: Scene, task: Classify) -> Step:
    best = _best(scene)
    shares = task.probabilities(scene.output)[0]
    temperature = task.config.temperature
    divided = "" if temperature == 1 else f" / {temperature:.4g}"
    multi = task.config.multilabel
    text = [say("probabilities.sigmoid" if multi else "probabilities.text")]
    if divided:
        text.append(say("probabilities.temperature", temperature=f"{temperature:.4g}"))
    y = "<i>y</i><sub><i>c</i></sub>" + divided
    rest = "<i>y</i><sub><i>n</i></sub>" + divided
    sigmoid = f"<i>p</i><sub><i>c</i></sub> = 1 / (1 + exp(−{y}))"
    softmax = f"<i>p</i><sub><i>c</i></sub> = exp({y}) / Σ<sub><i>n</i></sub> exp({rest})"
    total = (
        ()
        if multi
        else (
            Facts(
                say("probabilities.facts"),
                ((say("softmax.sum"), shares.sum()[None]),),
            ),
        )
    )
    return Step(
        key="probabilities",
        title=say("probabilities.title"),
        text=join(*text),
        shapes=(tuple(scene.output.shape), tuple(scene.output.shape)),
        formula=sigmoid if multi else softmax,
        source=(source(Classify.probabilities, "scaled =", "return"),),
        items=(
            Bars(
                say("probabilities.bars"),
                tuple(task.config.classes[i] for i in best),
                scene.output[0, best],
                shares[best],
            ),
            *total,
        ),
    )


def _memory(scene: Scene, task: Transcribe) -> Step:
    before, middle, after = scene.into(task.project), scene.out(task.project), scene.out(task.norm)
    pick = _chosen(scene)
    rows: tuple[Row, ...] = (
        row(say("name.token"), pick(before)),
        row(say("memory.projected"), pick(middle)),
        row(say("name.normed"), pick(after), "="),
    )
    return Step(
        key="memory",
        title=say("memory.title"),
        text=say("memory.text", count=after.shape[1], width=after.shape[2]),
        shapes=(tuple(before.shape), tuple(after.shape)),
        formula="<i>m</i> = LN(<i>W</i> <i>z</i> + <i>b</i>)",
        source=(source(Transcribe.forward, "return"),),
        items=(Rows(say("memory.rows"), rows),),
    )


def _check(scene: Scene, difference: float) -> Step:
    equal = say("check.equal" if difference == 0 else "check.near")
    shape = tuple(scene.output.shape)
    return Step(
        key="check",
        title=say("check.title"),
        text=join(say("check.text"), equal),
        shapes=(shape, shape),
        formula="max |<i>y</i><sub>trace</sub> − <i>y</i><sub>model</sub>|",
        source=(source(Model.forward, "return self.task"),),
        items=(
            Facts(
                say("check.facts"),
                (
                    (say("check.numbers"), str(scene.output.numel())),
                    (say("check.difference"), torch.tensor([difference])),
                ),
            ),
        ),
    )
