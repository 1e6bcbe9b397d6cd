"""Rollout is its equation: compared with matrices in float64, for every way to read and to mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from matrices import MODELS, Step, carried, cells_below, on_the_grid, written_out
from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain.layout import OnImage
from vitrail.explain.rollout import Fusion, Rollout, fuse, rollout

READ = {
    "class": [0],
    "norm_after_pool": [0],
    "deit": [0, 1],
    "t2t": [0],
}
"""Tokens that the head reads; the others read all places."""


def rolled(step: Step, heads: Fusion, discard: float) -> Tensor:
    """Heads fused, the least left out, each row made to sum to 1."""
    seen = step.seen.detach()
    many = seen if seen.ndim == 4 else seen[None]
    result: list[Tensor] = []
    for attention in many:
        match heads:
            case "mean":
                fused = sum(attention) / len(attention)
            case "max":
                fused = attention.max(dim=0).values
            case "min":
                fused = attention.min(dim=0).values
        assert isinstance(fused, Tensor)
        least = fused.flatten().sort().values[: int(discard * fused.numel())]
        if len(least):
            fused = fused * (fused > least[-1])
        for i in range(len(fused)):
            if not fused[i].any() and fused.shape[0] == fused.shape[1]:
                fused[i, i] = 1
        result.append(fused / fused.sum(dim=1, keepdim=True))
    return torch.stack(result) if seen.ndim == 4 else result[0]


def equal_parts(step: Step, at: int) -> Tensor:
    del at
    below = cells_below(step)
    return torch.full((len(below), len(below[0])), 1 / len(below[0]), dtype=torch.float64)


def direct(
    name: str, image: Tensor, monkeypatch: pytest.MonkeyPatch, heads: Fusion, discard: float
) -> Tensor:
    _, features, steps = written_out(preset_model(MODELS[name]), image, monkeypatch)
    tokens = features.tokens.shape[1]
    prefix = tokens - features.maps[-1][0, 0].numel()
    row = torch.zeros(tokens, dtype=torch.float64)
    row[READ.get(name, slice(prefix, None))] = 1
    if name == "class_and_mean":
        row[0] = row.sum()
    row = row / row.sum()
    row = carried(
        steps, row, (0.5, 0.5), lambda step, at: rolled(step, heads, discard), equal_parts
    )
    found = on_the_grid(row, steps, (image.shape[1], image.shape[2]))
    return found / found.sum() if found.any() else found  # all else was discarded


@pytest.mark.parametrize("size", [(8, 8), (9, 20)])
@pytest.mark.parametrize(
    ("heads", "discard"),
    [("mean", 0.0), ("max", 0.0), ("min", 0.0), ("mean", 0.5), ("max", 0.9), ("min", 0.3)],
)
@pytest.mark.parametrize("name", MODELS)
def test_the_equation(
    name: str,
    heads: Fusion,
    discard: float,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equation 1 of Abnar and Zuidema 2020 as a product of matrices."""
    if name.startswith(("swin", "t2t")) and size != (8, 8) and discard:
        pytest.skip("large matrices: once without is enough")
    model, images = preset_model(MODELS[name]), torch.stack([photo(i, *size) for i in (1, 2)])
    maps = rollout(model, images, heads=heads, discard=discard)
    assert torch.equal(Rollout(heads, discard).explain(model, images, [0, 1]), maps)
    for image, found in zip(images, maps, strict=True):
        expected = direct(name, image, monkeypatch, heads, discard)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_two_layers_by_hand() -> None:
    first = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    steps = [Step(a[None], OnlyGrid((1, 2), 1)) for a in (first, second)]
    # (A + I) / 2: [[.75, .25], [0, 1]] and [[1, 0], [.25, .75]]; the later layer stands left.
    rows = [
        carried(steps, row, (0.5, 0.5), lambda step, at: step.seen[0], equal_parts)
        for row in torch.eye(2)
    ]
    torch.testing.assert_close(torch.stack(rows), torch.tensor([[0.75, 0.25], [0.1875, 0.8125]]))


@dataclass(frozen=True, slots=True)
class OnlyGrid(OnImage):
    def row(self, query: Any) -> int:
        raise AssertionError

    def lay(self, row: int, weights: Tensor) -> Tensor:
        raise AssertionError


def test_heads_become_one() -> None:
    heads = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[0.1, 0.9], [0.4, 0.6]]])
    torch.testing.assert_close(fuse(heads, "mean", 0.0), torch.tensor([[0.3, 0.7], [0.2, 0.8]]))
    expected = torch.tensor([[0.5 / 1.4, 0.9 / 1.4], [0.4 / 1.4, 1 / 1.4]])
    torch.testing.assert_close(fuse(heads, "max", 0.0), expected)
    expected = torch.tensor([[0.1 / 0.6, 0.5 / 0.6], [0.0, 1.0]])
    torch.testing.assert_close(fuse(heads, "min", 0.0), expected)


def test_the_least_are_left_out() -> None:
    heads = torch.tensor([[[0.6, 0.4], [0.1, 0.9]]])
    torch.testing.assert_close(fuse(heads, "mean", 0.25), torch.tensor([[0.6, 0.4], [0.0, 1.0]]))
    torch.testing.assert_close(fuse(heads, "mean", 0.5), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_a_row_that_lost_everything_stands_for_itself() -> None:
    heads = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    torch.testing.assert_close(fuse(heads, "mean", 0.75), torch.eye(2))
    # A learned query is no token that could stand for itself.
    disjoint = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    torch.testing.assert_close(fuse(disjoint, "min", 0.0), torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_the_wrong_axis_is_another_map(heads: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best-known program divides columns by the sums of rows.

    For the mean of heads that divides by 1, and only then is it harmless.
    """
    image = photo(1)
    model = tiny_model(backbone=MODELS["class"])
    _, _, steps = written_out(model, image, monkeypatch)

    def wrong(step: Step, at: int) -> Tensor:
        del at
        fused = step.seen.mean(dim=0) if heads == "mean" else step.seen.max(dim=0).values
        both = fused + torch.eye(len(fused), dtype=torch.float64)
        return (both / both.sum(dim=-1)).detach()  # broadcast over columns

    row = torch.zeros(len(steps[0].seen[0]), dtype=torch.float64)
    row[0] = 1
    found = on_the_grid(carried(steps, row, (0.0, 1.0), wrong, equal_parts), steps, (8, 12))
    right = rollout(model, image[None], heads=heads)[0].double()
    difference = float((found / found.sum() - right).abs().sum())
    assert (difference < 1e-5) == (heads == "mean")
    if heads == "max":
        assert difference > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 2},
        {"norm_after_pool": True},
        {"pool": "mean"},
        {"pool": "attention", "class_token": False, "positions": {"kind": "rotary_2d"}},
    ],
)
@pytest.mark.parametrize("size", [(8, 12), (9, 20)])
def test_maps_over_the_grid_sum_to_one(changes: dict[str, Any], size: tuple[int, int]) -> None:
    model = tiny_model(backbone=tiny_config(**changes))
    images = torch.stack([photo(1, *size), photo(2, *size)])
    maps = rollout(model, images)
    assert maps.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


def test_nothing_is_left_where_everything_is_discarded() -> None:
    model = tiny_model(backbone=tiny_config(pool="class"))
    maps = rollout(model, photo(1)[None], discard=0.999)
    assert maps.shape == (1, 2, 3)
    assert not maps.any()


@pytest.mark.parametrize("discard", [-0.1, 1.0, 2.0])
def test_a_share_out_of_range_is_refused(discard: float) -> None:
    with pytest.raises(ExplainError, match=f"discard {discard}: give a share from 0 to below 1"):
        rollout(tiny_model(), photo(1)[None], discard=discard)


@pytest.mark.parametrize("name", ["resnet_nano_8", "gru_nano_8"])
def test_what_has_no_attention_is_refused(name: str) -> None:
    model = preset_model(PRESETS[name])
    assert "has no attention; Grad-CAM and occlusion need none" in Rollout().refuses(model)
    with pytest.raises(ExplainError, match="has no attention to look at"):
        rollout(model, photo(1, 8, 8)[None])
