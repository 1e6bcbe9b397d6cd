"""Norms and attention that are held: values as they were, gradients as of constants."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from presets import PRESETS, preset_model
from segmenter import tiny_segmenter
from tiny import photo, randomise, tiny_config, tiny_model
from vitrail.explain.held import held_attention, held_norms
from vitrail.explain.layers import attention_layers
from vitrail.explain.regions import reading_layers
from vitrail.model import Model
from vitrail.nn.attention import Attention
from vitrail.nn.deformable import DeformableAttention, DenseAttention
from vitrail.nn.projector import ChannelNorm
from vitrail.nn.soft_split import PerformerTokenAttention, SoftmaxTokenAttention
from vitrail.nn.windows import WindowAttention

HELD: tuple[Callable[[Model], AbstractContextManager[None]], ...] = (held_attention, held_norms)
IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


def slope_of(norm: nn.Module, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of their product with a fixed tensor."""
    x = x.clone().requires_grad_()
    out = norm(x)
    (slope,) = torch.autograd.grad((out * along).sum(), x)
    return out.detach(), slope


def constant(norm: nn.Module, x: Tensor, along: Tensor) -> Tensor:
    """The gradient of (x - mean) / deviation · weight + bias where the deviation is a number."""
    if isinstance(norm, nn.LayerNorm):
        groups, passed = x[..., None, :], along * norm.weight
        passed = passed[..., None, :]
    elif isinstance(norm, ChannelNorm):
        cells, given = (one.permute(0, 2, 3, 1) for one in (x, along))
        like = nn.LayerNorm(cells.shape[-1], eps=norm.eps, dtype=x.dtype)
        like.load_state_dict(norm.state_dict())
        return constant(like, cells.contiguous(), given.contiguous()).permute(0, 3, 1, 2)
    else:
        assert isinstance(norm, nn.GroupNorm)
        groups = x.reshape(len(x), norm.num_groups, -1)
        weight = norm.weight.view(-1, *[1] * (x.ndim - 2))
        passed = (along * weight).reshape(groups.shape)
    variance = groups.var(dim=-1, correction=0, keepdim=True)
    return ((passed - passed.mean(dim=-1, keepdim=True)) / (variance + norm.eps).sqrt()).view_as(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.LayerNorm(6, eps=1e-3), (2, 5, 6)),
        (nn.GroupNorm(2, 6, eps=1e-3), (2, 6, 4, 3)),
        (nn.GroupNorm(3, 6), (2, 6)),
        (ChannelNorm(6, eps=1e-3), (2, 6, 4, 3)),
    ],
)
def test_a_norm_is_the_same_with_a_constant_deviation(
    norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = tiny_model()
    model.backbone.add_module("other", randomise(norm))
    model.to(dtype)
    generator = torch.Generator().manual_seed(0)
    x, along = (torch.randn(shape, generator=generator).to(dtype) * 3 + 1 for _ in range(2))
    values, plain = slope_of(norm, x, along)
    with held_norms(model):
        again, held = slope_of(norm, x, along)
    assert torch.equal(again, values)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(held, constant(norm, x, along), **close)
    assert float((held - plain).abs().max()) > 0.01
    torch.testing.assert_close(slope_of(norm, x, along)[1], plain, rtol=0, atol=0)
    norm.float()


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", PRESETS)
def test_values_stay_what_they_are(
    name: str, held: Callable[[Model], AbstractContextManager[None]]
) -> None:
    model = preset_model(PRESETS[name])
    expected = model(IMAGES).detach()
    with held(model):
        assert torch.equal(model(IMAGES), expected)


@pytest.mark.parametrize("name", PRESETS)
def test_no_gradient_passes_through_weights(name: str) -> None:
    """What makes queries and keys gets none; what makes values does, and so do the pixels."""
    model = preset_model(PRESETS[name])
    made = [projection(layer.module) for layer in attention_layers(model)]
    pixels = model.normalise(IMAGES).requires_grad_()
    with held_attention(model):
        logits = model.task(model.backbone(pixels))
    first, *found = torch.autograd.grad(logits[:, 0].sum(), [pixels, *made])
    assert float(first.abs().max()) > 0
    for slope in found:
        queries, keys, values = slope.chunk(3)  # of Performer keys come first
        assert not queries.any()
        assert not keys.any()
        assert float(values.abs().max()) > 0


def projection(attention: nn.Module) -> Tensor:
    """The weights that make queries, keys and values, one below the other."""
    if isinstance(attention, PerformerTokenAttention):
        return attention.kqv.weight
    assert isinstance(attention, Attention | WindowAttention | SoftmaxTokenAttention)
    return attention.qkv.weight


@pytest.mark.parametrize("held", HELD)
def test_nothing_stays_behind_even_after_an_error(
    held: Callable[[Model], AbstractContextManager[None]],
) -> None:
    model = tiny_model(backbone=tiny_config(pool="attention"))

    def slope() -> Tensor:
        pixels = model.normalise(IMAGES).requires_grad_()
        logits = model.task(model.backbone(pixels))
        return torch.autograd.grad(logits[:, 1].sum(), pixels)[0]

    before = slope()
    with held(model):
        assert not torch.allclose(slope(), before, rtol=1e-2)
    with pytest.raises(RuntimeError, match="boom"), held(model):
        raise RuntimeError("boom")
    assert torch.equal(slope(), before)
    assert not any(m._forward_hooks for m in model.modules())
    assert all(layer.module.probe is None for layer in attention_layers(model))


@pytest.mark.parametrize("readout", ["class queries", "matched queries"])
def test_no_gradient_passes_through_what_queries_look_at(readout: str) -> None:
    """Neither scores nor places of samples; what is read there does."""
    model = tiny_segmenter(readout)
    module = reading_layers(model)[-1].module
    match module:
        case DenseAttention():
            deciding, value = [module.q.weight, module.k.weight], module.v.weight
        case DeformableAttention():
            deciding, value = [module.offsets.weight, module.shares.weight], module.value.weight
        case _:
            raise AssertionError(f"a reading unknown here: {type(module).__name__}")
    with held_attention(model):
        output = model(photo(1, 32, 48)[None])
    maps = output.logits if readout == "class queries" else output.masks
    *held, passed = torch.autograd.grad(maps.sum(), [*deciding, value])
    assert not any(bool(one.any()) for one in held)
    assert float(passed.abs().max()) > 0
