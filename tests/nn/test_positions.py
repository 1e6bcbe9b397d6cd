from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tiny import randomise
from vitrail.nn.positions import (
    AxialRotary,
    Learned1d,
    Learned2d,
    NoPositions,
    RelativeBias2d,
    SineCosine1d,
    SineCosine2d,
    resample_table,
)

CONVENTIONS = ("bicubic_antialias", "bicubic", "bilinear_aligned")
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def table(grid: tuple[int, int], dim: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(grid[0] * 100 + grid[1])
    return torch.randn(1, grid[0] * grid[1], dim, generator=generator)


def cubic(x: float, a: float) -> float:
    """Keys 1981, equation 4 with free parameter a."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def cubic_matrix(before: int, after: int, *, antialias: bool) -> np.ndarray:
    """Weights of old places (columns) in new places (rows), pixel centres at half numbers."""
    matrix = np.zeros((after, before))
    ratio = before / after
    for i in range(after):
        centre = (i + 0.5) * ratio
        if antialias:
            stretch = max(ratio, 1.0)
            first = max(int(centre - 2 * stretch + 0.5), 0)
            last = min(int(centre + 2 * stretch + 0.5), before)
            for j in range(first, last):
                matrix[i, j] = cubic((j + 0.5 - centre) / stretch, a=-0.5)
            matrix[i] /= matrix[i].sum()
        else:
            floor = math.floor(centre - 0.5)
            for j in range(floor - 1, floor + 3):
                weight = cubic(centre - 0.5 - j, a=-0.75)
                matrix[i, min(max(j, 0), before - 1)] += weight
    return matrix


@given(grids, st.sampled_from(CONVENTIONS))
def test_resampling_to_its_own_size_is_the_identity(grid: tuple[int, int], convention: str) -> None:
    own = table(grid)
    assert torch.equal(resample_table(own, grid, grid, convention), own)


@settings(deadline=None)
@given(grids, grids, st.booleans())
def test_bicubic_is_the_cubic_of_keys(
    base: tuple[int, int], grid: tuple[int, int], antialias: bool
) -> None:
    if base == grid:
        return
    own = table(base)
    convention = "bicubic_antialias" if antialias else "bicubic"
    rows, columns = (
        cubic_matrix(b, g, antialias=antialias) for b, g in zip(base, grid, strict=True)
    )
    expected = np.einsum("yi,xj,ijd->yxd", rows, columns, own.double().numpy().reshape(*base, -1))
    got = resample_table(own, base, grid, convention).reshape(*grid, -1).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-5)


@settings(deadline=None)
@given(grids, grids)
def test_aligned_bilinear_is_the_zoom_of_scipy(
    base: tuple[int, int], grid: tuple[int, int]
) -> None:
    own = table(base)
    image = own.numpy().reshape(*base, -1)
    factors = (grid[0] / base[0], grid[1] / base[1], 1)
    expected = ndimage.zoom(image, factors, order=1)
    got = resample_table(own, base, grid, "bilinear_aligned").reshape(*grid, -1)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_the_conventions_differ() -> None:
    own = table((4, 4))
    a, b, c = (resample_table(own, (4, 4), (7, 6), name) for name in CONVENTIONS)
    assert min((a - b).abs().max(), (b - c).abs().max(), (a - c).abs().max()) > 0.01


def test_learned_table_keeps_the_prefix_apart() -> None:
    part = randomise(Learned1d(4, (2, 3), prefix=2, resampling="bicubic"))
    assert part.weight.shape == (1, 8, 4)
    assert torch.equal(part.prefix_table(), part.weight[:, :2])
    assert torch.equal(part.table((2, 3)), part.weight[:, 2:])
    assert torch.equal(
        part.table((4, 4)), resample_table(part.weight[:, 2:], (2, 3), (4, 4), "bicubic")
    )
    assert Learned1d(4, (2, 3), prefix=0, resampling="bicubic").prefix_table() is None


def test_learned_2d_is_a_row_half_and_a_column_half() -> None:
    part = randomise(Learned2d(5, (2, 3)))
    values = part.table((2, 3)).reshape(2, 3, 5)
    for y, x in product(range(2), range(3)):
        expected = torch.cat([part.rows[0, :, y], part.columns[0, :, x]])
        assert torch.equal(values[y, x], expected)
    larger = part.table((4, 6)).reshape(4, 6, 5)
    torch.testing.assert_close(
        larger[1, 2, :2], 0.75 * part.rows[0, :, 0] + 0.25 * part.rows[0, :, 1]
    )
    assert torch.equal(larger[0, :, :2], larger[0, :1, :2].expand(6, 2))


def test_no_positions_are_zeros() -> None:
    part = NoPositions(4)
    assert torch.equal(part.table((2, 3)), torch.zeros(1, 6, 4))
    assert not part.state_dict()


def test_sine_cosine_1d_is_the_formula() -> None:
    values = SineCosine1d(6, (2, 3)).table((2, 3))[0]
    for place, channel in product(range(6), range(6)):
        angle = place / 10_000 ** (2 * (channel // 2) / 6)
        expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
        assert values[place, channel].item() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(grids)
def test_sine_cosine_2d_is_the_formula(grid: tuple[int, int]) -> None:
    base = (2, 4)
    values = SineCosine2d(12, base).table(grid).reshape(*grid, 12)
    for y, x in product(range(grid[0]), range(grid[1])):
        places = ((x + 0.5) * base[1] / grid[1] - 0.5, (y + 0.5) * base[0] / grid[0] - 0.5)
        expected = [
            wave(place / 10_000 ** (k / 2))
            for place in places
            for wave in (math.sin, math.cos)
            for k in range(3)
        ]
        np.testing.assert_allclose(values[y, x].numpy(), expected, atol=1e-6)


def test_sine_cosine_2d_on_its_own_grid_counts_patches() -> None:
    values = SineCosine2d(4, (3, 5)).table((3, 5)).reshape(3, 5, 4)
    expected = [math.sin(4), math.cos(4), math.sin(2), math.cos(2)]
    np.testing.assert_allclose(values[2, 4].numpy(), expected, atol=1e-6)


@settings(deadline=None)
@given(grids)
def test_relative_bias_is_a_table_of_offsets(grid: tuple[int, int]) -> None:
    part = randomise(RelativeBias2d(2, grid, prefix=0))
    bias = part.bias(grid)
    H, W = grid
    for i, j in product(range(H * W), repeat=2):
        dy, dx = i // W - j // W, i % W - j % W
        assert torch.equal(bias[0, :, i, j], part.weight[0, :, dy + H - 1, dx + W - 1])


def test_relative_bias_of_the_prefix_has_three_entries_a_head() -> None:
    part = randomise(RelativeBias2d(2, (2, 2), prefix=2))
    bias = part.bias((2, 2))[0]
    assert bias.shape == (2, 6, 6)
    for head in range(2):
        to_patch, from_patch, own = part.prefix_weight[head]
        assert bool((bias[head, :2, :2] == own).all())
        assert bool((bias[head, :2, 2:] == to_patch).all())
        assert bool((bias[head, 2:, :2] == from_patch).all())
    patches = RelativeBias2d(2, (2, 2), prefix=0)
    patches.weight = part.weight
    assert torch.equal(bias[:, 2:, 2:], patches.bias((2, 2))[0])


def test_relative_bias_stretches_to_another_grid() -> None:
    part = randomise(RelativeBias2d(2, (2, 2), prefix=0))
    bias = part.bias((3, 4))[0]
    assert bias.shape == (2, 12, 12)
    rows, columns = cubic_matrix(3, 5, antialias=False), cubic_matrix(3, 7, antialias=False)
    stretched = np.einsum("yi,xj,hij->hyx", rows, columns, part.weight[0].detach().double().numpy())
    np.testing.assert_allclose(bias[:, 0, 11].detach().numpy(), stretched[:, 0, 0], atol=1e-5)
    np.testing.assert_allclose(bias[:, 5, 5].detach().numpy(), stretched[:, 2, 3], atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(grids, st.integers(0, 2**16))
def test_rotary_score_depends_only_on_the_offset(grid: tuple[int, int], seed: int) -> None:
    H, W = grid
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)
    part = AxialRotary(8, prefix=0)
    rotated_q, rotated_k, bias = part(q.expand(1, 1, H * W, 8), k.expand(1, 1, H * W, 8), grid)
    assert bias is None
    scores = (rotated_q @ rotated_k.transpose(-2, -1))[0, 0]
    seen: dict[tuple[int, int], float] = {}
    for i, j in product(range(H * W), repeat=2):
        offset = (i // W - j // W, i % W - j % W)
        score = scores[i, j].item()
        assert seen.setdefault(offset, score) == pytest.approx(score, abs=2e-4)


def test_rotary_turns_pairs_by_their_place() -> None:
    part = AxialRotary(8, prefix=1)
    x = torch.randn(1, 1, 1 + 6, 8, generator=torch.Generator().manual_seed(0))
    turned, _, _ = part(x, x, (2, 3))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    for place, (row, column) in enumerate(product(range(2), range(3)), start=1):
        y, z = (row + 0.5) - 1, (column + 0.5) * 2 / 3 - 1
        angles = [2 * math.pi * y, 2 * math.pi * y / 10, 2 * math.pi * z, 2 * math.pi * z / 10]
        for pair, angle in enumerate(angles):
            a, b = x[0, 0, place, pair].item(), x[0, 0, place, pair + 4].item()
            expected = (
                a * math.cos(angle) - b * math.sin(angle),
                b * math.cos(angle) + a * math.sin(angle),
            )
            got = turned[0, 0, place, pair].item(), turned[0, 0, place, pair + 4].item()
            assert got == pytest.approx(expected, abs=1e-5)
