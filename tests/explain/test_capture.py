from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tiny import POSITIONS, photo, randomise, tiny_config, tiny_model
from vitrail.backbones import build_backbone
from vitrail.explain.capture import capture
from vitrail.nn.attention import Attention


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(POSITIONS),
    st.integers(0, 999),
    st.floats(0.1, 1.5),
    st.booleans(),
    st.integers(0, 2),
)
def test_rows_sum_to_one_and_the_weights_are_those_of_the_fused_kernel(
    positions: type, seed: int, std: float, qk_norm: bool, registers: int
) -> None:
    config = tiny_config(positions=positions(), qk_norm=qk_norm, registers=registers)
    backbone = randomise(build_backbone(config), seed, std).eval()
    with torch.no_grad(), capture(backbone) as record:
        backbone(images(seed))
    assert len(record.layers) == config.depth
    for layer in record.layers:
        assert layer.weights.shape == (2, 2, config.prefix + 6, config.prefix + 6)
        assert (layer.weights.sum(dim=-1) - 1).abs().max() < 1e-6
        assert bool((layer.weights >= 0).all())
        assert layer.error < 1e-5
    assert record.max_error == max(layer.error for layer in record.layers)


def test_the_fused_kernel_runs_and_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    model = tiny_model()
    batch = photo(0)[None]
    with torch.no_grad():
        plain = model(batch)
        with capture(model):
            watched = model(batch)
    assert len(calls) == 4
    assert torch.equal(plain, watched)


def test_weights_that_were_not_used_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = F.scaled_dot_product_attention

    def other(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kw: object) -> torch.Tensor:
        return fused(q, k, v.roll(1, dims=2), **kw)

    model = tiny_model()
    monkeypatch.setattr(F, "scaled_dot_product_attention", other)
    with torch.no_grad(), capture(model) as record:
        model(photo(0)[None])
    assert record.max_error > 0.01


@pytest.mark.parametrize(
    ("layers", "expected"), [([0], [0]), ([-1], [2]), ([0, 2], [0, 2]), ([], [])]
)
def test_some_layers(layers: list[int], expected: list[int]) -> None:
    model = tiny_model(backbone=tiny_config(depth=3))
    with torch.no_grad():
        with capture(model) as every:
            model(photo(0)[None])
        with capture(model, layers) as some:
            model(photo(0)[None])
    assert len(some.layers) == len(expected)
    for layer, index in zip(some.layers, expected, strict=True):
        assert torch.equal(layer.weights, every.layers[index].weights)


def test_nothing_is_recorded_outside_even_after_an_error() -> None:
    model = tiny_model()
    with pytest.raises(RuntimeError, match="boom"), capture(model) as record:
        raise RuntimeError("boom")
    model(photo(0)[None])
    assert record.layers == []
    assert record.max_error == 0
    assert all(m.probe is None for m in model.modules() if isinstance(m, Attention))


def test_half_precision_is_captured_in_float32() -> None:
    backbone = build_backbone(tiny_config()).to(torch.bfloat16).eval()
    with torch.no_grad(), capture(backbone) as record:
        backbone(images().bfloat16())
    assert record.layers[0].weights.dtype == torch.float32
    assert (record.layers[0].weights.sum(dim=-1) - 1).abs().max() < 1e-6
    assert record.max_error < 0.02
