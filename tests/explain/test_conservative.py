from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.conservative import Conservative
from vitrail.tasks.classify import Classify

IMAGES = torch.stack([photo(1, 8, 8), photo(2, 8, 8)])


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_a_map_and_stays_as_it_was(name: str) -> None:
    model = preset_model(PRESETS[name])
    before = model(IMAGES).detach()
    maps = Conservative().explain(model, IMAGES, [0, 2])
    stride = model.backbone.strides[0]
    assert maps.shape == (2, -(-8 // stride), -(-8 // stride))
    assert bool((maps >= 0).all())
    assert not maps.requires_grad
    assert float(maps.max()) > 0
    assert torch.equal(model(IMAGES), before)
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_attention_and_norms_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against plain autograd through operations that detach what is held."""
    model = tiny_model(backbone=tiny_config(depth=3))
    images = torch.stack([photo(5), photo(6)])
    found = Conservative().explain(model, images, [2, 0])

    def attention(q, k, v, attn_mask=None, scale=None):
        scores = (q * scale) @ k.mT + (0 if attn_mask is None else attn_mask)
        return scores.softmax(dim=-1).detach() @ v

    def norm(x, shape, weight, bias, eps):
        del shape
        deviation = (x.var(dim=-1, correction=0, keepdim=True) + eps).sqrt().detach()
        return (x - x.mean(dim=-1, keepdim=True)) / deviation * weight + bias

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(F, "layer_norm", norm)
    pixels = model.normalise(images).requires_grad_()
    logits = model.task(model.backbone(pixels))
    (slope,) = torch.autograd.grad(logits[0, 2] + logits[1, 0], pixels)
    given = slope * (pixels - pixels.mean(dim=(2, 3), keepdim=True))
    expected = F.avg_pool2d(given.sum(dim=1), 4).clamp_min(0) * 16
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


def test_what_hangs_over_the_edge_counts_as_nothing() -> None:
    model = tiny_model()
    images = torch.stack([photo(7, 9, 13)])
    assert Conservative().explain(model, images, [0]).shape == (1, 3, 4)


def test_frozen_weights_and_inference_do_not_matter() -> None:
    model = tiny_model()
    expected = Conservative().explain(model, photo(1)[None], [1])
    model.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(Conservative().explain(model, photo(1)[None], [1]), expected)
    assert isinstance(model.task, Classify)
    assert not Conservative().refuses(model)
