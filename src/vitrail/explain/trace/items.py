"""Numbers of a trace, cut to what a page can show."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.explain.trace.data import Dot, Facts, Row, Rows, Source, Step, Text
from vitrail.explain.trace.words import say

SHOWN = 8
"""Numbers of a vector that are shown."""

PRODUCTS = 4
"""Products of a dot product that are shown."""


NORM = "<i>y</i> = <i>γ</i> ⊙ (<i>x</i> − mean(<i>x</i>)) / √(var(<i>x</i>) + <i>ε</i>) + <i>β</i>"


def row(name: Text, values: Float[Tensor, "Q D"], sign: str = "") -> Row:
    """The first numbers of a vector."""
    return Row(name, values[:, :SHOWN].clone(), values.shape[1], sign)


def dot(
    caption: Text,
    names: tuple[Text, Text],
    x: Float[Tensor, "Q K"],
    w: Float[Tensor, "#Q K"],
    bias: float | None,
    real: Float[Tensor, " Q"],
) -> Dot:
    """A dot product beside the number that the model computed."""
    products = x.double() * w.double()
    return Dot(
        caption=caption,
        left=names[0],
        right=names[1],
        x=x[:, :PRODUCTS].clone(),
        w=w[:, :PRODUCTS].clone(),
        rest=products[:, PRODUCTS:].sum(dim=1).float(),
        count=x.shape[1],
        bias=bias,
        total=(products.sum(dim=1) + (bias or 0.0)).float(),
        real=real,
    )


def linear_dot(
    caption: Text,
    names: tuple[Text, Text],
    x: Float[Tensor, "Q K"],
    layer: nn.Linear | nn.Conv2d,
    real: Float[Tensor, "Q D"],
    *,
    output: int = 0,
) -> Dot:
    """One output of a linear layer as a dot product with one row of its weights."""
    weight = layer.weight.detach().float().cpu()[output].flatten()[None]
    bias = None if layer.bias is None else float(layer.bias.detach()[output])
    return dot(caption, names, x, weight, bias, real[:, output])


def norm_step(
    key: str,
    title: Text,
    before: Float[Tensor, "Q D"],
    after: Float[Tensor, "Q D"],
    *,
    norm: nn.LayerNorm,
    count: int,
    code: tuple[Source, ...],
) -> Step:
    """LayerNorm of the chosen token."""
    mean, variance = before.mean(dim=1), before.var(dim=1, unbiased=False)
    standard = (before - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()
    rows = (
        row(say("name.before"), before),
        row(say("name.standard"), standard),
        row(say("name.gamma"), norm.weight.detach().float().cpu()[None], "×"),
        row(say("name.beta"), norm.bias.detach().float().cpu()[None], "+"),
        row(say("name.after"), after, "="),
    )
    facts = Facts(
        say("norm.facts"),
        (
            (say("name.mean"), mean),
            (say("name.deviation"), variance.sqrt()),
        ),
    )
    width = before.shape[1]
    return Step(
        key=key,
        title=title,
        text=say("norm.text", width=width),
        shapes=((1, count, width), (1, count, width)),
        formula=NORM,
        source=code,
        items=(facts, Rows(say("norm.rows"), rows)),
    )


def length(vectors: Float[Tensor, "*Q D"]) -> Float[Tensor, "*Q"]:
    """The L2 norm."""
    return vectors.square().sum(dim=-1).sqrt()


def cosine(chosen: Float[Tensor, "Q D"], others: Float[Tensor, "M D"]) -> Float[Tensor, "Q M"]:
    """Cosine of the angle between vectors: 1 where they point the same way."""
    first = nn.functional.normalize(chosen, dim=1)
    return first @ nn.functional.normalize(others, dim=1).T
