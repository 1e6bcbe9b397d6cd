"""Gradient-weighted rollout is its equation, with gradients from plain attention in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from matrices import MODELS, Step, carried, cells_below, on_the_grid, written_out
from presets import PRESETS, preset_model
from spotted import SIZE, STRIDE, spot_image, spot_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.flow import Mixed
from vitrail.explain.gradient_rollout import GradientRollout, _Shares
from vitrail.explain.layers import cells
from vitrail.explain.layout import Whole
from vitrail.explain.residual import residual_shares
from vitrail.explain.target import log_odds
from vitrail.model import Model
from vitrail.nn.probe import SoftmaxWeights
from vitrail.nn.soft_split import SoftSplit
from vitrail.tasks.classify import Classify, ClassifyConfig


def held_layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    assert len(shape) == 1
    deviation = (x.var(dim=-1, correction=0, keepdim=True) + eps).sqrt().detach()
    return (x - x.mean(dim=-1, keepdim=True)) / deviation * weight + bias


def held_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    parts = x.unflatten(1, (groups, -1))
    deviation = (parts.var(dim=(2, 3, 4), correction=0, keepdim=True) + eps).sqrt().detach()
    passed = ((parts - parts.mean(dim=(2, 3, 4), keepdim=True)) / deviation).flatten(1, 2)
    return passed * weight[:, None, None] + bias[:, None, None]


def in_shares(row: Tensor) -> Tensor:
    """What is above zero, as shares; where nothing is, by size."""
    positive = row.clamp_min(0) if bool((row > 0).any()) else row.abs()
    return positive / positive.sum()


def by_cell(step: Step, slope: Tensor) -> Tensor:
    """Shares of the cells that each token was made of, by gradient times value."""
    evidence, below = (step.seen * slope).detach(), cells_below(step)
    if isinstance(step.where, SoftSplit):
        parts = evidence.view(len(below), -1, len(below[0])).sum(dim=1)
    else:
        places = F.pad(evidence.sum(dim=1), (0, 1))  # the last stands for what is outside
        parts = places[torch.tensor([[place for place, _ in row] for row in below])]
    return torch.stack([in_shares(row) for row in parts])


def overlapped(grid: Tensor, split: SoftSplit) -> Tensor:
    """Each cell's number is dealt out to the pixels of its patch, and counted by cell again."""
    rows, columns = grid.shape
    found = torch.zeros_like(grid)
    for row in range(rows):
        for column in range(columns):
            for number in range(split.kernel**2):
                y = row * split.stride - split.padding + number // split.kernel
                x = column * split.stride - split.padding + number % split.kernel
                if 0 <= y < rows * split.stride and 0 <= x < columns * split.stride:
                    share = grid[row, column] / split.kernel**2
                    found[y // split.stride, x // split.stride] += share
    return found


def direct(name: str, image: Tensor, about: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The row of the product of all K + (1 - K) Ā."""
    model, kept = preset_model(MODELS[name]), list[Tensor]()
    with torch.no_grad(), residual_shares(model.backbone, kept):
        model(image[None])
    with monkeypatch.context() as patch:
        patch.setattr(F, "layer_norm", held_layer_norm)
        patch.setattr(F, "group_norm", held_group_norm)
        wide, features, steps = written_out(model, image, monkeypatch)
        chances = wide.task(features)[0].softmax(dim=0)
        value = (chances[about] / (1 - chances[about])).log()
        first, *found = torch.autograd.grad(value, [features.tokens, *(s.seen for s in steps)])

    def mix(step: Step, at: int) -> Tensor:
        signed = (found[at] * step.seen).detach()
        helped = signed.clamp_min(0).mean(dim=-3)
        helped[helped.sum(dim=-1) <= 1e-6 * signed.abs().mean(dim=-3).sum(dim=-1)] = 0
        return helped / helped.sum(dim=-1, keepdim=True).where(helped.any(-1, keepdim=True), 1)

    row = in_shares((features.tokens * first).detach().sum(dim=2)[0])
    row = carried(
        steps, row, [one[0] for one in kept], mix, lambda step, at: by_cell(step, found[at])
    )
    grid = on_the_grid(row, steps, (image.shape[1], image.shape[2]))
    if name != "t2t":
        return grid
    split = next(m for m in model.modules() if isinstance(m, SoftSplit))
    return overlapped(grid, split)


@pytest.mark.parametrize("size", [(8, 8), (9, 20)])
@pytest.mark.parametrize("name", MODELS)
def test_the_equation(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = preset_model(MODELS[name]), torch.stack([photo(i, *size) for i in (1, 2)])
    maps = GradientRollout().explain(model, images, [2, 0])
    for image, about, found in zip(images, (2, 0), maps, strict=True):
        expected = direct(name, image, about, monkeypatch)
        torch.testing.assert_close(
            found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.max())
        )


def test_a_key_that_is_masked_takes_no_share() -> None:
    """What helped is all behind the mask of a shifted window: that is rounding, and no share."""
    v = torch.tensor([[[[1.0], [-1.0]]]])
    q = torch.zeros(1, 1, 2, 1)
    mask = torch.tensor([[-30.0, 0.0], [0.0, 0.0]])
    weights = SoftmaxWeights(q, q, mask, 1.0)
    step = Mixed(Whole((1, 2), 4), weights, v, v)
    mixed = _Shares(torch.zeros(1, 2, 1), [torch.ones(1, 1, 2, 1)]).mix(step, 0)
    torch.testing.assert_close(mixed, torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))


@pytest.mark.parametrize("name", PRESETS)
def test_a_map_has_at_most_all_there_is(name: str) -> None:
    """Performer included, which a plain product cannot express."""
    model, method = preset_model(PRESETS[name]), GradientRollout()
    if refused := method.refuses(model):
        assert refused == f"a {type(model.backbone).__name__} has no attention; " + (
            "Grad-CAM and occlusion need none"
        )
        return
    maps = method.explain(model, torch.stack([photo(i, 9, 20) for i in (1, 2)]), [0, 1])
    assert bool((maps >= 0).all())
    whole = maps.sum(dim=(1, 2))
    assert 0 < float(whole.min()) <= float(whole.max()) <= 1 + 1e-5


@pytest.mark.parametrize("row", range(SIZE[0] // STRIDE))
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_one_patch_that_counts_is_found(pool: str, row: int) -> None:
    model = spot_model(pool)
    for column in range(SIZE[1] // STRIDE):
        image = spot_image(row, column)[None]
        heat = GradientRollout().explain(model, image, [0])[0]
        assert divmod(int(heat.argmax()), heat.shape[1]) == (row, column)


def test_what_speaks_for_all_classes_alike_does_not_count() -> None:
    """An evidence that every logit grows with changes no map: log-odds, not logits."""
    model = tiny_model()
    images = torch.stack([photo(1), photo(2)])
    before = GradientRollout().explain(model, images, [0, 1])
    assert isinstance(model.task, Classify)
    with torch.no_grad():
        model.task.head.weight += torch.randn(model.task.head.in_features)
    after = GradientRollout().explain(model, images, [0, 1])
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("about", [0, 1, 2])
def test_log_odds(about: int) -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    task = Classify(ClassifyConfig(classes=("a", "b", "c")), 4)
    chance = logits.softmax(dim=1)[0, about]
    torch.testing.assert_close(log_odds(logits, [about], task)[0], (chance / (1 - chance)).log())
    several = Classify(ClassifyConfig(classes=("a", "b", "c"), multilabel=True), 4)
    assert torch.equal(log_odds(logits, [about], several), logits[:, about])
    alone = Classify(ClassifyConfig(classes=("a",)), 4)
    assert torch.equal(log_odds(logits[:, :1], [0], alone), logits[:, 0])


@pytest.mark.parametrize("classes", [("a",), ("a", "b")])
@pytest.mark.parametrize("multilabel", [False, True])
def test_one_class_or_several_labels(classes: tuple[str, ...], multilabel: bool) -> None:
    backbone = tiny_config(distillation_token=True, registers=1)
    model: Model = tiny_model(classes, backbone, multilabel=multilabel)
    image = photo(1, 9, 13)[None]
    heat = GradientRollout().explain(model, image, [len(classes) - 1])
    assert heat.shape == (1, *cells((9, 13), 4))
    assert heat.isfinite().all()
    assert float(heat.max()) > 0
