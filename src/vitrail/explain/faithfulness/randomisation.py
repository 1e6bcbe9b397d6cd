"""Does a map depend on what the model learned (Adebayo et al. 2018, Sanity Checks).

The model's weights are made fresh from the head down, group by group, and the maps are compared
with those of the trained model. A map that stays the same does not show the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.model import Model

STAGES: Mapping[str, float] = {"head": 0.0, "upper half": 0.5, "all": 1.0}
"""Where the cascade is looked at, and the share of the backbone's groups that are fresh there."""


def cascade(
    model: Model, *, seed: int = 0, stages: Mapping[str, float] = STAGES
) -> Iterator[tuple[str, Model]]:
    """The model with ever more of its weights fresh, the head first and the stem last.

    Each is the same copy, changed further: look at one before asking for the next. The model
    itself is not touched. Weights that belong to no group of `Backbone.layers` (class token, last
    norm, pool) go with the head.

    Args:
        model: Stays as it is.
        seed: Of the fresh weights.
        stages: Where to stop, in rising order.

    Yields:
        The name of a stage, and the model.
    """
    changed, fresh = copy.deepcopy(model).eval(), _fresh(model, seed)
    groups = list(zip(changed.backbone.layers(), fresh.backbone.layers(), strict=True))[::-1]
    grouped = {id(tensor) for ours, _ in groups for tensor in _state(ours)}
    everything = zip(_state([changed]), _state([fresh]), strict=True)
    _copy((ours, new) for ours, new in everything if id(ours) not in grouped)
    done = 0
    for name, share in stages.items():
        until = round(share * len(groups))
        for ours, new in groups[done:until]:
            _copy(zip(_state(ours), _state(new), strict=True))
        done = until
        yield name, changed


def correlation(
    before: Float[Tensor, "B h w"], after: Float[Tensor, "B h w"]
) -> Float[Tensor, "B"]:
    """Spearman's rank correlation of each pair of maps, -1 to 1.

    A map without differences has no ranks: 1 where both have none, 0 where one has.
    """
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

    spearmanr = cast("Any", stats).spearmanr
    values: list[float] = []
    for one, other in zip(before.flatten(1), after.flatten(1), strict=True):
        flat = [bool((row == row[0]).all()) for row in (one, other)]
        if any(flat):
            values.append(float(all(flat)))
            continue
        found = spearmanr(one.numpy(force=True), other.numpy(force=True))
        values.append(float(found.statistic))
    return torch.tensor(values)


def _fresh(model: Model, seed: int) -> Model:
    """The same configuration with fresh weights; the generator of the process is left alone."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        fresh = Model(model.config)
    return fresh.to(next(model.parameters()).device)


def _state(modules: list[nn.Module]) -> list[Tensor]:
    return [tensor for module in modules for tensor in module.state_dict(keep_vars=True).values()]


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for ours, new in pairs:
            ours.copy_(new)
