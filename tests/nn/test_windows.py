from __future__ import annotations

import copy
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tiny import randomise
from vitrail.nn import windows as module
from vitrail.nn.probe import AttentionWeights
from vitrail.nn.windows import (
    ContinuousPositions,
    CosineWindowAttention,
    NoWindowPositions,
    PatchMerging,
    PatchMergingV2,
    RelativePositions,
    WindowAttention,
    Windows,
)

KINDS = (WindowAttention, CosineWindowAttention)
POSITIONS = (RelativePositions(2, 3), ContinuousPositions(2, 3), NoWindowPositions())


def tokens(count: int, batch: int = 2, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


def attention(kind: type[WindowAttention], positions: nn.Module) -> WindowAttention:
    return randomise(kind(16, 2, copy.deepcopy(positions))).eval()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3))
def test_join_undoes_cut(rows: int, columns: int, size: int, shift: int) -> None:
    windows = Windows((rows, columns), size, shift % size)
    x = tokens(rows * columns)
    cut = windows.cut(windows.pad(x))
    assert cut.shape == (2, windows.count, size * size, 16)
    assert torch.equal(windows.join(cut), x)


def test_cut_rolls_and_takes_windows_row_by_row() -> None:
    places = torch.arange(16.0).view(1, 16, 1)
    assert Windows((4, 4), 2).cut(places)[0, 1].flatten().tolist() == [2, 3, 6, 7]
    assert Windows((4, 4), 2, 1).cut(places)[0, 0].flatten().tolist() == [5, 6, 9, 10]
    assert Windows((4, 4), 2, 1).cut(places)[0, 3].flatten().tolist() == [15, 12, 3, 0]


@pytest.mark.parametrize("grid", [(4, 4), (6, 8), (5, 7), (3, 2)])
def test_the_mask_parts_what_the_roll_brought_together(grid: tuple[int, int]) -> None:
    """Two places of a window see each other if and only if the roll kept their distance."""
    windows = Windows(grid, 4, 2)
    rows, columns = windows.padded
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    cut = windows.cut(place.flatten(1).T[None].float())[0]  # W N 2
    inside = torch.tensor([(i, j) for i in range(4) for j in range(4)])
    moved = (cut[:, :, None] - cut[:, None]) - (inside[:, None] - inside[None])
    mask = windows.mask(torch.device("cpu"))
    assert mask is not None
    assert torch.equal(mask[:, 0] == 0, (moved == 0).all(dim=-1))
    assert set(mask.unique().tolist()) <= {0.0, -100.0}
    assert Windows(grid, 4).mask(torch.device("cpu")) is None


def written_out(
    layer: WindowAttention, x: torch.Tensor, windows: Windows, mask: torch.Tensor | None
) -> torch.Tensor:
    """Window by window and head by head, from the papers' formulas."""
    cut = windows.cut(windows.pad(x))
    weight, bias = layer.qkv.weight, layer.qkv.bias
    cosine = isinstance(layer, CosineWindowAttention)
    if cosine:
        bias = torch.cat([layer.q_bias, torch.zeros(16), layer.v_bias])
    added = layer.positions.compute()
    result = torch.empty_like(cut)
    for b, w in product(range(cut.shape[0]), range(cut.shape[1])):
        q, k, v = (cut[b, w] @ weight.T + bias).split(16, dim=-1)
        heads = []
        for h, at in enumerate((slice(0, 8), slice(8, 16))):
            scores = q[:, at] @ k[:, at].T
            if cosine:
                lengths = [part[:, at].norm(dim=-1).clamp_min(1e-12) for part in (q, k)]
                scores = (
                    scores
                    / lengths[0][:, None]
                    / lengths[1]
                    * min(layer.logit_scale[h].exp(), 100.0)
                )
            else:
                scores = scores / math.sqrt(8)
            scores = scores if added is None else scores + added[h]
            scores = scores if mask is None else scores + mask[w, 0]
            heads.append(scores.softmax(dim=-1) @ v[:, at])
        result[b, w] = layer.proj(torch.cat(heads, dim=-1))
    return windows.join(result)


@pytest.mark.parametrize("grid", [(6, 9), (5, 7), (2, 3), (3, 3)])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_is_the_written_out_formula(
    kind: type[WindowAttention],
    positions: nn.Module,
    shift: int,
    grid: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, windows = attention(kind, positions), Windows(grid, 3, shift)
    x, mask = tokens(grid[0] * grid[1]), windows.mask(torch.device("cpu"))
    close = {"rtol": 1e-4, "atol": 1e-5}
    fused = layer(x, windows, mask)
    assert fused.requires_grad
    with torch.no_grad():
        expected = written_out(layer, x, windows, mask)
        torch.testing.assert_close(fused, expected, **close)
        torch.testing.assert_close(layer(x, windows, mask), expected, **close)
        monkeypatch.setattr(module, "CACHED_SCORES", 400)  # two windows at a time
        torch.testing.assert_close(layer(x, windows, mask), expected, **close)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_sees_the_weights_of_every_window(
    kind: type[WindowAttention], positions: nn.Module, shift: int
) -> None:
    layer, windows = attention(kind, positions), Windows((5, 7), 3, shift)
    seen = []

    def probe(weights: AttentionWeights, v: torch.Tensor, out: torch.Tensor) -> None:
        rows = weights.rows()
        assert rows.shape == weights.shape
        torch.testing.assert_close(rows @ v, out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights.rows([1], [3, 0]), rows[:, :, 1:, [3, 0]])
        seen.append(rows)

    x, mask = tokens(35), windows.mask(torch.device("cpu"))
    with torch.no_grad():
        plain = layer(x, windows, mask)
    layer.probe = probe
    with torch.no_grad():  # plain products in a cache
        torch.testing.assert_close(layer(x, windows, mask), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x, windows, mask), plain, rtol=1e-4, atol=1e-5)  # fused
    assert seen[0].shape == (2, windows.count, 2, 9, 9)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS[:2], ids=lambda value: type(value).__name__)
def test_the_kept_bias_follows_the_weights(positions: nn.Module) -> None:
    positions = randomise(copy.deepcopy(positions))
    other = randomise(copy.deepcopy(positions), seed=1)

    def check() -> None:
        with torch.inference_mode():
            assert torch.equal(positions(), positions.compute())
            assert positions() is positions()
        with torch.no_grad():
            assert torch.equal(positions(), positions.compute())

    check()
    for change in (
        lambda: positions.load_state_dict(other.state_dict()),
        lambda: [p.data.mul_(2) for p in positions.parameters()],  # no counter sees this
        lambda: torch.optim.SGD(positions.parameters(), lr=0.1).step(
            lambda: positions().square().sum().backward()
        ),
        lambda: positions.to(torch.float64),
        lambda: positions.to(torch.bfloat16),
    ):
        change()
        check()
    assert positions().requires_grad
    again = copy.deepcopy(positions)
    with torch.no_grad():
        assert torch.equal(again(), positions())
    assert positions.to("meta")().device.type == "meta"


def test_relative_positions_look_up_the_offset() -> None:
    positions = RelativePositions(1, 3)
    with torch.no_grad():
        positions.table.copy_(torch.arange(25.0)[:, None])
    bias = positions.compute()[0]
    for query, key in product(range(9), range(9)):
        dy, dx = query // 3 - key // 3, query % 3 - key % 3
        assert bias[query, key] == (dy + 2) * 5 + dx + 2


@pytest.mark.parametrize("pretrained", [0, 5])
def test_continuous_positions_are_the_formula(pretrained: int) -> None:
    positions = randomise(ContinuousPositions(2, 3, pretrained=pretrained))
    with torch.no_grad():
        bias = positions.compute()
        for query, key in ((0, 8), (4, 0), (7, 2), (5, 5)):
            offset = torch.tensor([query // 3 - key // 3, query % 3 - key % 3]) / (
                (pretrained or 3) - 1
            )
            logarithm = offset.sign() * torch.log2(1 + 8 * offset.abs()) / 3
            expected = 16 * torch.sigmoid(positions.mlp(logarithm))
            torch.testing.assert_close(bias[:, query, key], expected)


def test_padding_takes_part_as_zeros() -> None:
    """As in the official dense code: a padded key has the score of its bias alone."""
    layer, windows = attention(WindowAttention, NoWindowPositions()), Windows((2, 3), 3)
    x = tokens(6)
    with torch.no_grad():
        padded = torch.cat([x, torch.zeros(2, 3, 16)], dim=1)
        whole = layer(padded, Windows((3, 3), 3), None)
        torch.testing.assert_close(layer(x, windows, None), whole[:, :6])


@pytest.mark.parametrize("kind", [PatchMerging, PatchMergingV2])
def test_merging_takes_four_neighbours_column_by_column(kind: type[PatchMerging]) -> None:
    merging = randomise(kind(2))
    x = tokens(15, width=2)
    with torch.no_grad():
        merged, grid = merging(x, (5, 3))
        image = torch.zeros(2, 6, 4, 2)
        image[:, :5, :3] = x.view(2, 5, 3, 2)
        corners = [image[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        four = torch.cat(corners, dim=-1)
        v1 = kind is PatchMerging
        expected = (
            merging.reduction(merging.norm(four)) if v1 else merging.norm(merging.reduction(four))
        )
    assert grid == (3, 2)
    torch.testing.assert_close(merged, expected.flatten(1, 2))


def test_the_factor_of_the_cosine_is_held_at_100() -> None:
    layer = attention(CosineWindowAttention, NoWindowPositions())
    with torch.no_grad():
        layer.logit_scale.copy_(torch.tensor([9.0, 0.0]))
        q, k = layer.match(tokens(9, width=8)[:, None], tokens(9, width=8, seed=1)[:, None])
    norms = q.expand(-1, 2, -1, -1).norm(dim=-1)
    torch.testing.assert_close(norms[:, 0], torch.full((2, 9), 100.0))
    torch.testing.assert_close(norms[:, 1], torch.ones(2, 9))
    torch.testing.assert_close(k.norm(dim=-1), torch.ones(2, 1, 9))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(AssertionError, match="width 16 is not a multiple of 3 heads"):
        WindowAttention(16, 3, NoWindowPositions())


def test_places_of_windows_by_hand() -> None:
    """A map of 3 x 3 in windows of 2, rolled by one: the corner meets the padding and the roll."""
    assert Windows((3, 3), 2, 1).places().tolist() == [
        [4, 5, 7, 8],
        [-1, 3, -1, 6],
        [-1, -1, 1, 2],
        [-1, -1, -1, 0],
    ]
