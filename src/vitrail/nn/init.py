"""What weights start from."""

from __future__ import annotations

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Linear maps start Xavier uniform with zero bias, as in MAE's code; for `Module.apply`.

    A packed projection (query, key and value) counts as one map. The published sources of DeiT,
    T2T and Swin take a normal of 0.02, which learns small data slower from scratch; one rule for
    all families keeps their comparison fair.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(module.bias)
