"""What the chosen patches see in the chosen head, on a whole map or in their windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.explain import layers
from vitrail.explain.trace.data import Text
from vitrail.explain.trace.scene import Scene, attention
from vitrail.explain.trace.words import say
from vitrail.nn.windows import WindowAttention

PADDING = -1000
"""In the place of a cell: a place of a window that lies beyond the image."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the chosen queries see in the chosen head.

    Attributes:
        q: Queries, as they entered the product.
        k: Keys of each query.
        v: Values of each query.
        bias: Added to the scores.
        scale: Factor of q·k.
        weights: Of the chosen head; each row sums to 1.
        all_heads: Weights of every head.
        out: What the fused kernel gave.
        cells: Where each key lies on the block's map: below 0 a token that is no patch, counted
            from -1 on, or `PADDING`.
    """

    q: Float[Tensor, "Q d"]
    k: Float[Tensor, "Q N d"]
    v: Float[Tensor, "Q N d"]
    bias: Float[Tensor, "Q N"] | None
    scale: float
    weights: Float[Tensor, "Q N"]
    all_heads: Float[Tensor, "Q h N"]
    out: Float[Tensor, "Q d"]
    cells: Int[Tensor, "Q N"]

    @property
    def scores(self) -> Float[Tensor, "Q N"]:
        """What enters the softmax, computed as a check."""
        scores = torch.einsum("qd,qnd->qn", self.q, self.k) * self.scale
        return scores if self.bias is None else scores + self.bias

    @property
    def mixed(self) -> Float[Tensor, "Q d"]:
        """The weighted sum of the values, computed as a check."""
        return torch.einsum("qn,qnd->qd", self.weights, self.v)


def look(scene: Scene) -> Look:
    """Read the chosen head for the chosen queries."""
    module = attention(scene.block)
    if isinstance(module, WindowAttention):
        return _look_in_windows(scene, module)
    found, head = scene.attended(module), scene.head
    tokens = [scene.prefix + query for query in scene.places.queries]
    weights = found.weights.rows(queries=tokens)[0].transpose(0, 1)
    Q, _, N = weights.shape
    bias = found.weights.bias
    cells = torch.arange(N) - scene.prefix
    cells[: scene.prefix] = -1 - torch.arange(scene.prefix)
    return Look(
        q=found.weights.q[0, head, tokens],
        k=found.weights.k[0, head].expand(Q, -1, -1),
        v=found.values[0, head].expand(Q, -1, -1),
        bias=None if bias is None else bias[0, head, tokens],
        scale=found.weights.scale,
        weights=weights[:, head],
        all_heads=weights,
        out=found.out[0, head, tokens],
        cells=cells.expand(Q, -1),
    )


def _look_in_windows(scene: Scene, module: WindowAttention) -> Look:
    found, head, windows = scene.attended(module), scene.head, scene.windows(scene.block)
    cells = windows.places()
    cells[cells < 0] = PADDING
    window, place = _where(cells, scene.places.queries)
    # Weights of all places of the windows that hold a query: other windows are not asked for.
    weights = found.weights.rows()[0, window, :, place]
    bias = found.weights.bias
    if bias is not None:
        bias = bias.expand(windows.count, *found.weights.shape[2:])[window, head, place]
    return Look(
        q=found.weights.q[0, window, head, place],
        k=found.weights.k[0, window, head],
        v=found.values[0, window, head],
        bias=bias,
        scale=found.weights.scale,
        weights=weights[:, head],
        all_heads=weights,
        out=found.out[0, window, head, place],
        cells=cells[window],
    )


def _where(cells: Int[Tensor, "W N"], queries: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Window and place of each query."""
    at = torch.stack([(cells == query).nonzero()[0] for query in queries])
    return at[:, 0], at[:, 1]


def own_key(seen: Look, scene: Scene) -> Int[Tensor, " Q"]:
    """Each query's place among its own keys."""
    mine = torch.tensor(scene.places.queries)[:, None]
    return (seen.cells == mine).int().argmax(dim=1)


def spread(onto: Tensor, cells: Int[Tensor, "Q N"], values: Float[Tensor, "Q N"]) -> None:
    """Put the keys' numbers on their cells; what is no cell is left out."""
    which, key = (cells >= 0).nonzero(as_tuple=True)
    onto[which, cells[which, key]] = values[which, key]


def prefix_names(scene: Scene) -> tuple[Text, ...]:
    """Names of the tokens that are no patches."""
    return tuple(map(_name, layers.prefix_names(scene.backbone)))


def _name(token: str) -> Text:
    match token.split():
        case ["class"]:
            return say("name.class")
        case ["distillation"]:
            return say("name.distilled")
        case [_, number]:
            return say("name.register", n=int(number))
        case _:
            raise AssertionError(f"a token unknown here: {token}")
