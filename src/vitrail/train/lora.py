"""Low-rank adapters: frozen weights plus a small learned difference (Hu et al. 2021, LoRA).

Adapters exist in training only. What is evaluated and kept are plain weights, into which they were
merged, so that nothing after training knows of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitrail.errors import ConfigError
from vitrail.model import Model
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Mlp
from vitrail.nn.pooling import AttentionPool
from vitrail.nn.soft_split import TokenAttention
from vitrail.nn.windows import WindowAttention
from vitrail.train.recipe import LoraRecipe

ADAPTED = (Attention, WindowAttention, TokenAttention, AttentionPool, Mlp)
"""Whose linear maps are adapted: every attention of a backbone, and the MLPs between."""

_MARK = ".parametrizations."
"""What torch puts into the name of a weight that is computed from others."""


class LowRank(nn.Module):
    """W to W + B A · alpha / r (Hu et al. 2021, equation 3).

    A starts as a linear map does, B at zero: training starts from W itself.

    Args:
        weight: W, frozen.
        recipe: Rank r and alpha.
    """

    def __init__(self, weight: Float[Tensor, "O I"], recipe: LoraRecipe) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = recipe.alpha / recipe.rank
        self.a = nn.Parameter(weight.new_empty(recipe.rank, inputs))
        self.b = nn.Parameter(weight.new_zeros(outputs, recipe.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        """The adapted weight."""
        return _add(weight, self.b, self.a, self.scale)


def add_adapters(model: Model, recipe: LoraRecipe) -> list[nn.Module]:
    """Freeze a backbone and give each linear map of its attention and MLPs an adapter.

    Args:
        model: Changed in place; its state then has names that `merged` knows.
        recipe: Rank and scale.

    Returns:
        Modules that are to be kept in evaluation mode: BatchNorm, whose statistics rest too.

    Raises:
        ConfigError: the backbone has no such maps.
    """
    linears = [
        child
        for module in model.backbone.modules()
        if isinstance(module, ADAPTED)
        for child in module.children()
        if isinstance(child, nn.Linear)
    ]
    if not linears:
        raise ConfigError(
            f"optim.method = 'lora': a {model.config.backbone.kind} has no attention and no MLP "
            "to adapt; take full, head or last-N"
        )
    model.backbone.requires_grad_(requires_grad=False)
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, recipe))
    return [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def merged(state: Mapping[str, Tensor], recipe: LoraRecipe) -> dict[str, Tensor]:
    """The state of the plain model that gives the same answers.

    Args:
        state: Of an adapted model; that of a plain one is returned as it is.
        recipe: What the adapters were made with.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem = name.removesuffix(".original")
        if _MARK not in name:
            plain[name] = tensor
        elif stem != name:
            b, a = state[f"{stem}.0.b"], state[f"{stem}.0.a"]
            plain[stem.replace(_MARK, ".")] = _add(tensor, b, a, recipe.alpha / recipe.rank)
    return plain


def _add(
    weight: Float[Tensor, "O I"], b: Float[Tensor, "O r"], a: Float[Tensor, "r I"], scale: float
) -> Float[Tensor, "O I"]:
    return torch.addmm(weight, b, a, alpha=scale)
