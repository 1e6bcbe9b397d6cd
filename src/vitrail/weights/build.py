"""A model around weights that are there already: no memory is taken twice, no numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.backbone import Backbone
from vitrail.model import Model, ModelConfig

M = TypeVar("M", bound=nn.Module)


def empty_model(config: ModelConfig) -> Model:
    """A model whose larger parameters are on the meta device, whose other buffers are real.

    Random starting values cost nothing there, and no random number is drawn; `assign` puts the
    weights in. Constants that follow from the configuration (normalisation, sine tables) are
    computed as always.
    """
    with _OnMeta(PARAMETERS):
        return Model(config)


def empty_backbone(config: BackboneConfig) -> Backbone:
    """The same for a backbone alone."""
    with _OnMeta(PARAMETERS):
        return build_backbone(config)


def assign(model: M, state: Mapping[str, Tensor]) -> M:
    """Make the tensors of a state the parameters of a model, without a copy.

    Floating-point tensors become contiguous float32; whether a parameter learns stays as it is.

    Args:
        model: From `empty_model` or `empty_backbone`.
        state: One tensor for each name of the model's state, of its shape.

    Returns:
        The same model.
    """
    ready = {
        name: (t.float() if t.is_floating_point() else t).contiguous() for name, t in state.items()
    }
    model.load_state_dict(ready, assign=True)
    assert not any(p.is_meta for p in model.parameters())
    assert not any(b.is_meta for b in model.buffers())
    return model


def on_meta() -> TorchFunctionMode:
    """Inside, models take no memory at all: what they would be, for a look at names and shapes.

    As `torch.device("meta")`, but numbers that are written out stay real, and nothing is filled:
    arithmetic and random numbers on the meta device make torch import its compiler, which takes
    longer than to read a ViT-B.
    """
    return _OnMeta(CONSTRUCTORS)


PARAMETERS = frozenset[Callable[..., Any]]({torch.empty})
"""How layers get the memory of their parameters."""

CONSTRUCTORS = PARAMETERS | {
    *(torch.zeros, torch.ones, torch.full, torch.arange, torch.linspace, torch.eye),
    *(torch.rand, torch.randn, torch.randint, torch.randperm),
}
"""How memory is taken otherwise, but for `torch.tensor`."""

FILLERS = frozenset({Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_})
"""What fills tensors with random numbers."""


class _OnMeta(TorchFunctionMode):
    """What these functions make is on the meta device, takes no memory and is never filled."""

    def __init__(self, constructors: frozenset[Callable[..., Any]]) -> None:
        super().__init__()
        self.constructors = constructors

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in self.constructors:
            kwargs = kwargs | {"device": "meta"}
        if func in FILLERS and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return func(*args, **kwargs)
