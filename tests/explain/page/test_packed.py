from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from vitrail.explain.layout import Layout, Pooled, Reading, Symbols, Whole, Windowed
from vitrail.explain.page.packed import coarsen, lay_out, pack, tolerance, unpack
from vitrail.nn.windows import Windows

LAYOUTS: list[tuple[Layout, tuple[int, int]]] = [
    (Whole((5, 7), 16, ("class", "register 1")), (37, 37)),
    (Pooled((5, 7), 16, ("class",)), (1, 36)),
    (Reading((2, 9), 4), (6, 18)),
    (Symbols(), (6, 6)),
    (Windowed((6, 9), 4, Windows((6, 9), 3)), (54, 9)),
    (Windowed((5, 7), 4, Windows((5, 7), 4, 2)), (64, 16)),
]


def softmax(shape: tuple[int, int], heads: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (3 * torch.randn(heads, *shape, generator=generator)).softmax(dim=-1)


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_weight_comes_back_within_the_tolerance(
    layout: Layout, shape: tuple[int, int], bits: int
) -> None:
    weights = softmax(shape)
    packed = pack(weights, layout, block=1, bits=bits, error=0.0)  # pyright: ignore[reportArgumentType]
    laid = packed.laid
    exact = np.stack([coarsen(head, layout, laid).numpy() for head in weights])
    back = unpack(packed)
    assert back.shape == packed.shape == (3, *laid.shape(6))
    allowed = tolerance(packed.bits) * exact.max(axis=2, keepdims=True)
    assert (np.abs(back - exact) <= 1.0001 * allowed + 1e-9).all()
    assert np.abs(back - exact).max() > 0, "something was rounded"


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("block", [1, 2, 3])
def test_rows_still_sum_to_one_in_blocks(
    layout: Layout, shape: tuple[int, int], block: int
) -> None:
    laid = lay_out(layout, block)
    coarse = coarsen(softmax(shape)[0], layout, laid)
    assert coarse.shape == laid.shape(6)
    sums = coarse.sum(dim=1)
    real = sums > 0  # a block that is all padding has no queries
    torch.testing.assert_close(sums[real], torch.ones(int(real.sum())))
    assert real.all() or isinstance(layout, Windowed)


def test_blocks_by_hand() -> None:
    """A grid of 3 x 3 in blocks of two: the last ones are half as wide."""
    layout = Whole((3, 3), 8, ("class",))
    weights = softmax((10, 10))[0].double()
    coarse = coarsen(weights, layout, lay_out(layout, 2))
    blocks = [
        [1 + 3 * y + x for y, x in product(rows, columns)]
        for rows, columns in product(((0, 1), (2,)), repeat=2)
    ]
    for (i, queries), (j, keys) in product(enumerate(blocks, 1), repeat=2):
        expected = weights[queries][:, keys].sum() / len(queries)
        assert coarse[i, j] == pytest.approx(float(expected))
    assert coarse[0, 0] == weights[0, 0]


def test_padding_is_a_column_of_its_own() -> None:
    layout = Windowed((3, 3), 4, Windows((3, 3), 2, 1))
    laid = lay_out(layout)
    assert laid.others == ("padding",)
    weights = softmax((16, 4))[0]
    coarse = coarsen(weights, layout, laid)
    for row, here in enumerate(layout.places().view(4, 4).repeat_interleave(4, dim=0)):
        inside = here >= 0
        if layout.places()[row] < 0:
            assert coarse[row].sum() == 0
            continue
        assert coarse[row, 0] == pytest.approx(float(weights[row][~inside].sum()))
        torch.testing.assert_close(coarse[row, 1:], weights[row] * inside)


def test_a_map_without_padding_has_no_such_column() -> None:
    assert lay_out(Windowed((6, 6), 4, Windows((6, 6), 3))).others == ()
