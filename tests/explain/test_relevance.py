"""Gradient-weighted rollout is its equations, with gradients from plain attention in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matrices import MODELS, Step, carried, cells_below, on_the_grid, written_out
from presets import PRESETS, preset_model
from tiny import photo, tiny_model
from vitrail.explain.flow import Mixed, run, slopes
from vitrail.explain.layers import cells
from vitrail.explain.layout import Pooled
from vitrail.explain.relevance import Relevance
from vitrail.nn.soft_split import SoftSplit


def in_shares(evidence: Tensor) -> Tensor:
    """What speaks for the class by row, as shares; where nothing does, by size."""
    positive = evidence.clamp_min(0)
    rows = [p if float(p.sum()) > 0 else e.abs() for p, e in zip(positive, evidence, strict=True)]
    return torch.stack([row / row.sum() for row in rows])


def by_cell(step: Step, slope: Tensor) -> Tensor:
    """Gradient times value of each cell that a token was made of."""
    evidence = (step.seen * slope).detach()
    below = cells_below(step)
    if isinstance(step.where, SoftSplit):  # the patch has its own copy of each cell
        patches = evidence.view(len(below), -1, len(below[0]))
        return patches.sum(dim=1)
    places = evidence.sum(dim=1)
    rows = [[float(places[place]) if place >= 0 else 0.0 for place, _ in row] for row in below]
    return torch.tensor(rows, dtype=torch.float64)


def direct(name: str, image: Tensor, about: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The first row of equation 6, from the gradients that autograd has for each attention."""
    model, features, steps = written_out(preset_model(MODELS[name]), image, monkeypatch)
    logit = model.task(features)[0, about]
    tokens, *found = torch.autograd.grad(logit, [features.tokens, *(step.seen for step in steps)])

    def mix(step: Step, at: int) -> Tensor:
        return (found[at] * step.seen).clamp_min(0).mean(dim=-3).detach()

    def shares(step: Step, at: int) -> Tensor:
        return in_shares(by_cell(step, found[at]))

    if name in ("class", "norm_after_pool", "t2t"):  # the paper: the row of the class token
        row = torch.zeros(features.tokens.shape[1], dtype=torch.float64)
        row[0] = 1
    else:
        row = in_shares((features.tokens * tokens).detach().sum(dim=2))[0]
    row = carried(steps, row, (1.0, 1.0), mix, shares)
    return on_the_grid(row, steps, (image.shape[1], image.shape[2]))


@pytest.mark.parametrize("size", [(8, 8), (9, 20)])
@pytest.mark.parametrize("about", [0, 2])
@pytest.mark.parametrize("name", MODELS)
def test_the_equations(
    name: str, about: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equations 5 and 6 of Chefer et al. 2021 as products of matrices."""
    model, images = preset_model(MODELS[name]), torch.stack([photo(i, *size) for i in (1, 2)])
    maps = Relevance().explain(model, images, [about, about])
    for image, found in zip(images, maps, strict=True):
        expected = direct(name, image, about, monkeypatch)
        torch.testing.assert_close(
            found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.max())
        )
    assert maps.shape == (2, *cells(size, attention_stride(name)))


def attention_stride(name: str) -> int:
    """Pixels a cell of the first attention."""
    finest = {"t2t": 1, "swin": 1, "swinv2": 1, "deit": 2, "hybrid": 2}
    return finest.get(name, 4)


@pytest.mark.parametrize("name", ["class", "deit", "mean", "attention", "t2t", "swin"])
def test_the_gradient_of_attention_needs_no_attention(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """∇A = ∇out vᵀ, against autograd through a plain attention in float64."""
    image, model = photo(1, 8, 8), preset_model(MODELS[name])
    way, features = run(model, image[None], gradients=True)
    _, found = slopes(model, features, way.steps, [1])
    double, whole, steps = written_out(model, image, monkeypatch)
    expected = torch.autograd.grad(double.task(whole)[0, 1], [step.seen for step in steps])
    assert len(expected) == len(found)
    compared = 0
    for step, slope, plain in zip(way.steps, found, expected, strict=True):
        if isinstance(step, Mixed):
            again = (slope @ step.v.mT)[0].double()
            scale = float(plain.abs().max())
            torch.testing.assert_close(again, plain, rtol=1e-3, atol=1e-4 * scale)
            compared += 1
    assert compared >= 2


def test_the_plain_encoder_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """R = I, then R = R + Ā R, whole matrices from the first layer to the last."""
    image = photo(1)
    model, features, steps = written_out(tiny_model(), image, monkeypatch)
    found = torch.autograd.grad(model.task(features)[0, 2], [step.seen for step in steps])
    relevance = torch.eye(7, dtype=torch.float64)
    for step, slope in zip(steps, found, strict=True):
        relevance = relevance + (slope * step.seen).clamp_min(0).mean(dim=0) @ relevance
    maps = Relevance().explain(tiny_model(), image[None], [2])
    expected = relevance[0, 1:].view(1, 2, 3).float()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_steps_have_finite_gradients(name: str) -> None:
    """Performer, windows, merging and splitting included."""
    model = preset_model(PRESETS[name])
    method = Relevance()
    if method.refuses(model):
        pytest.skip("no attention")
    images = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])
    way, features = run(model, images, gradients=True)
    first, rest = slopes(model, features, way.steps, [0, 1])
    assert len(rest) == len(way.steps)
    for step, slope in zip(way.steps, rest, strict=True):
        assert slope.shape == step.seen.shape
        assert slope.isfinite().all()
        assert slope.abs().sum() > 0
    assert first.isfinite().all()
    maps = method.explain(model, images, [0, 1])
    assert maps.isfinite().all()
    assert float(maps.amax(dim=(1, 2)).min()) > 0


def test_pooling_by_attention_is_the_last_step() -> None:
    way, _ = run(preset_model(MODELS["attention"]), photo(1)[None], gradients=True)
    last = way.steps[-1]
    assert isinstance(last, Mixed)
    assert isinstance(last.layout, Pooled)


def test_refusals_say_what_can_be_done() -> None:
    refused = Relevance().refuses(preset_model(PRESETS["resnet_nano_8"]))
    assert refused == "a ResNet has no attention; Grad-CAM and occlusion need none"
    assert Relevance().refuses(tiny_model()) == ""
