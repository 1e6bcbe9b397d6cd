"""The chosen block: norms, attention, residual sums and MLP, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.backbones.swin import SwinBlock, SwinV2Block
from vitrail.explain.trace.attention import attention_steps
from vitrail.explain.trace.data import Curve, Facts, Item, Rows, Source, Step
from vitrail.explain.trace.items import length, norm_step, row
from vitrail.explain.trace.look import look
from vitrail.explain.trace.scene import Scene
from vitrail.explain.trace.source import source
from vitrail.explain.trace.windows import windows_step
from vitrail.explain.trace.words import join, say
from vitrail.nn.blocks import (
    Block,
    LayerScale,
    Mlp,
    PostNormBlock,
    PreNormBlock,
    SwiGlu,
)

_DOTS = 48
"""Hidden units that are drawn on the curve of the activation."""


def block_steps(scene: Scene) -> list[Step]:
    """The steps of the chosen block."""
    seen = look(scene)
    inner = attention_steps(scene, seen)
    block = scene.block
    match block:
        case SwinV2Block():
            first = [windows_step(scene, seen), *inner, _norm(scene, 1), _residual(scene, 1)]
            steps = [*first, _mlp(scene), _norm(scene, 2), _residual(scene, 2)]
        case SwinBlock():
            first = [_norm(scene, 1), windows_step(scene, seen), *inner, _residual(scene, 1)]
            steps = [*first, _norm(scene, 2), _mlp(scene), _residual(scene, 2)]
        case PostNormBlock():
            first = [*inner, _residual(scene, 1), _norm(scene, 1)]
            steps = [*first, _mlp(scene), _residual(scene, 2), _norm(scene, 2)]
        case _:
            first = [_norm(scene, 1), *inner, _residual(scene, 1)]
            steps = [*first, _norm(scene, 2), _mlp(scene), _residual(scene, 2)]
    heading = say("chapter.block", layer=scene.layer + 1, head=scene.head + 1)
    return [replace(steps[0], chapter=heading), *steps[1:]]


def _part(scene: Scene, name: str) -> nn.Module:
    return scene.block.get_submodule(name)


def _forward(block: nn.Module) -> Callable[..., Any]:
    """The method that runs the block's two branches."""
    match block:
        case SwinV2Block():
            return SwinV2Block.forward
        case SwinBlock():
            return SwinBlock.forward
        case PostNormBlock():
            return PostNormBlock.forward
        case _:
            return PreNormBlock.forward


def _branch_lines(scene: Scene, branch: int) -> Source:
    """The line that adds the first or the second branch."""
    line = ("tokens = ", "return ")[branch - 1]
    return source(_forward(scene.block), line)


def _norm(scene: Scene, number: int) -> Step:
    norm = _part(scene, f"norm{number}")
    assert isinstance(norm, nn.LayerNorm)
    before, after = scene.into(norm), scene.out(norm)
    match scene.block:
        case SwinV2Block():
            title = ("norm.title_branch_attention", "norm.title_branch_mlp")[number - 1]
        case PostNormBlock():
            title = "norm.title_sum"
        case _:
            title = "norm.title_attention" if number == 1 else "norm.title_mlp"
    return norm_step(
        f"norm-{number}",
        say(title),
        scene.rows(before),
        scene.rows(after),
        norm=norm,
        count=before.shape[1],
        code=(_branch_lines(scene, number),),
    )


def _residual(scene: Scene, number: int) -> Step:
    block = scene.block
    before, branch, after = _sum(scene, number)
    rows = [row(say("name.before"), scene.rows(before))]
    text = [say("residual.attention" if number == 1 else "residual.mlp")]
    items: list[Item] = []
    scale = _part(scene, f"ls{number}") if isinstance(block, Block) else None
    if isinstance(scale, LayerScale):
        items.append(_scaling(scene, scale, branch))
        text.append(say("residual.layer_scale"))
    rows += [row(say("name.branch"), scene.rows(branch), "+")]
    rows += [row(say("name.sum"), scene.rows(after), "=")]
    share = length(scene.rows(branch)) / length(scene.rows(before))
    facts = Facts(say("residual.facts"), ((say("residual.share"), share),))
    shape = tuple(after.shape)
    what = "MHSA" if number == 1 else "MLP"
    return Step(
        key=f"residual-{number}",
        title=say("residual.title_attention" if number == 1 else "residual.title_mlp"),
        text=join(*text),
        shapes=(shape, shape),
        formula=f"<i>x</i> ← {_residual_formula(block, what, scaled=bool(items))}",
        source=(_branch_lines(scene, number),),
        items=(*items, Rows(say("residual.rows"), tuple(rows)), facts),
    )


def _scaling(scene: Scene, scale: LayerScale, branch: Tensor) -> Rows:
    return Rows(
        say("residual.scaled"),
        (
            row(say("name.branch"), scene.rows(scene.into(scale))),
            row(say("name.layer_scale"), scale.gamma.detach().float().cpu()[None], "×"),
            row(say("name.branch_scaled"), scene.rows(branch), "="),
        ),
    )


def _residual_formula(block: nn.Module, what: str, *, scaled: bool) -> str:
    """The whole branch in one line, the norm where this kind of block has it."""
    scale = "<i>γ</i> ⊙ " if scaled else ""
    match block:
        case SwinV2Block():
            return f"<i>x</i> + LN({what}(<i>x</i>))"
        case PostNormBlock():
            return f"<i>x</i> + {scale}{what}(<i>x</i>)"
        case _:
            return f"<i>x</i> + {scale}{what}(LN(<i>x</i>))"


def _sum(scene: Scene, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """What comes in, the branch, and their sum, all read from the modules around the sum."""
    block = scene.block
    whole, end = scene.into(block), scene.out(block)
    match block:
        case SwinV2Block():
            middle = scene.into(block.mlp)
            branch = scene.out(block.norm1 if number == 1 else block.norm2)
        case SwinBlock():
            middle = scene.into(block.norm2)
            branch = scene.out(block.attn if number == 1 else block.mlp)
        case PostNormBlock():
            branch = scene.out(block.ls1 if number == 1 else block.ls2)
            if number == 1:
                return whole, branch, scene.into(block.norm1)
            return scene.out(block.norm1), branch, scene.into(block.norm2)
        case PreNormBlock():
            middle = scene.into(block.norm2)
            branch = scene.out(block.ls1 if number == 1 else block.ls2)
        case _:
            raise AssertionError(f"a block without a step: {type(block).__name__}")
    return (whole, branch, middle) if number == 1 else (middle, branch, end)


def _mlp(scene: Scene) -> Step:
    module = _part(scene, "mlp")
    assert isinstance(module, Mlp | SwiGlu)
    hidden = scene.rows(scene.out(module.fc1))
    after = scene.rows(scene.into(module.fc2))
    rows = [row(say("name.input"), scene.rows(scene.into(module)))]
    match module:
        case SwiGlu():
            gate, value = hidden.chunk(2, dim=1)
            rows += [row(say("name.gate"), gate), row(say("name.gated"), value)]
            curve = _curve(F.silu, gate, F.silu(gate))
            text = say(
                "mlp.swiglu", hidden=after.shape[1], width=scene.rows(scene.into(module)).shape[1]
            )
            formula = (
                "(silu(<i>y</i> <i>W</i><sub>1</sub>) ⊙ <i>y</i> <i>W</i><sub>2</sub>) "
                "<i>W</i><sub>3</sub>"
            )
            code = source(SwiGlu.forward, "gate, value", "return")
        case Mlp():
            rows.append(row(say("name.hidden"), hidden))
            curve = _curve(module.act, hidden, after)
            text = say(
                "mlp.text", hidden=after.shape[1], width=scene.rows(scene.into(module)).shape[1]
            )
            formula = (
                "<i>W</i><sub>2</sub> GELU(<i>W</i><sub>1</sub> <i>y</i> + "
                "<i>b</i><sub>1</sub>) + <i>b</i><sub>2</sub>"
            )
            code = source(Mlp.forward, "return")
    rows += [
        row(say("name.activated"), after),
        row(say("name.output"), scene.rows(scene.out(module))),
    ]
    shapes = [scene.into(module), scene.out(module.fc1), scene.into(module.fc2), scene.out(module)]
    return Step(
        key="mlp",
        title=say("mlp.title"),
        text=text,
        shapes=tuple(tuple(part.shape) for part in shapes),
        formula=formula,
        source=(code,),
        items=(Rows(say("mlp.rows"), tuple(rows)), curve, _active(after)),
    )


def _active(after: Float[Tensor, "Q H"]) -> Facts:
    share = (after > 0).float().mean(dim=1)
    return Facts(say("mlp.facts"), ((say("mlp.active"), share),))


def _curve(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, "Q H"], to: Float[Tensor, "Q H"]
) -> Curve:
    """The activation, and what it made of the first hidden units."""
    at, to = at[:, :_DOTS].clone(), to[:, :_DOTS].clone()
    x = torch.linspace(min(float(at.min()), -3.0), max(float(at.max()), 3.0), 121)
    return Curve(say("mlp.curve", count=at.shape[1]), x, function(x.clone()), at, to)
