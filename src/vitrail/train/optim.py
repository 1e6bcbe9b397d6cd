"""AdamW, its parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from vitrail.errors import ConfigError
from vitrail.model import Model
from vitrail.train.lora import add_adapters
from vitrail.train.recipe import OptimRecipe, ScheduleRecipe

_PREFIX = "prefix_token"
"""The class token and the registers, which enter with the patches: they belong to the stem."""


def build_optimizer(model: Model, recipe: OptimRecipe) -> torch.optim.AdamW:
    """AdamW with decay on weight matrices only and one learning rate a layer.

    Each parameter group carries `lr_scale`, its share of the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depth = _depth_of_parameters(model)
    last = max(depth.values())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = recipe.weight_decay if _decays(name, parameter) else 0.0
        scale = recipe.layer_decay ** (last - depth[name])
        groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": decay,
                "lr_scale": scale,
                "lr": recipe.lr * scale,
            }
            for (decay, scale), parameters in groups.items()
        ],
        betas=recipe.betas,
        fused=True,
    )


def prepare(model: Model, recipe: OptimRecipe) -> list[nn.Module]:
    """Leave in training what the method says, and add adapters where it has them.

    Returns:
        Modules that are to be kept in evaluation mode.

    Raises:
        ConfigError: the backbone has not so many layer groups, or nothing to adapt.
    """
    groups, last = len(model.backbone.layers()), recipe.last
    if recipe.method == "head":
        model.backbone.requires_grad_(requires_grad=False)
        return [model.backbone]
    if recipe.method == "lora":
        return add_adapters(model, recipe.lora)
    if last is None:
        return freeze(model, recipe.freeze)
    if last >= groups:
        raise ConfigError(
            f"optim.method = '{recipe.method}': the model has {groups} layer groups; take fewer "
            "than that, or full"
        )
    return freeze(model, groups - last)


def freeze(model: Model, groups: int) -> list[nn.Module]:
    """Stop the first layer groups from training.

    Returns:
        The frozen modules; they are to be kept in evaluation mode, so that BatchNorm and
        stochastic depth rest too.
    """
    frozen = [module for group in model.backbone.layers()[:groups] for module in group]
    for module in frozen:
        module.requires_grad_(requires_grad=False)
    for name, parameter in model.named_parameters():
        if groups and name.endswith(_PREFIX):
            parameter.requires_grad = False
    return frozen


def learning_rate(step: int, steps: int, recipe: ScheduleRecipe) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine.

    Args:
        step: Optimizer steps done.
        steps: Optimizer steps of the whole run.
        recipe: Warm-up and floor.
    """
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return recipe.min_lr + (1 - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def _depth_of_parameters(model: Model) -> dict[str, int]:
    """Layer of each parameter, 0 at the stem; what stands in no layer belongs to the head's."""
    layers = model.backbone.layers()
    place = {
        id(parameter): index
        for index, group in enumerate(layers)
        for module in group
        for parameter in module.parameters()
    }
    depth = {name: place.get(id(p), len(layers)) for name, p in model.named_parameters()}
    return depth | {name: 0 for name in depth if name.endswith(_PREFIX)}


def _decays(name: str, parameter: nn.Parameter) -> bool:
    learned = ("token", "latent", "queries.content", "queries.shift", "queries.places")
    place = "pos_embed" in name or "positions" in name or name.endswith(learned)
    return parameter.ndim > 1 and not place
