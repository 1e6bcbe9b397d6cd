"""What one forward pass costs: multiply-adds and activations, counted operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image.

    Attributes:
        macs: Multiply-adds of convolutions and matrix products, both products of attention among
            them.
        activations: Values that those operations give (Radosavovic et al. 2020, section 3.1).
    """

    macs: int
    activations: int


def count_cost(
    module: nn.Module, size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> Cost:
    """Count on one image of a size, on the module's own device; `meta` costs no memory."""
    device = next(module.parameters()).device
    image = torch.zeros(1, 3, *size, dtype=dtype, device=device)
    counter = _Counter()
    # Attention in its plain form, so that its two products are seen.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(image)
    return Cost(counter.flops // 2, counter.activations)


_FORMULAS = cast("dict[Any, Callable[..., int]]", flop_registry)


class _Counter(TorchDispatchMode):
    """Adds up what each operation does, by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.flops = 0
        self.activations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
            first = out if isinstance(out, Tensor) else out[0]
            self.activations += prod(first.shape)
        return out
