from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vitrail.metrics.agreement import f_measure
from vitrail.metrics.topology import betti0_error, centrelines, pieces, skeleton


def bar(rows: slice, columns: slice = slice(4, 44)) -> np.ndarray:
    mask = np.zeros((30, 48), dtype=bool)
    mask[rows, columns] = True
    return mask


def test_a_line_is_its_own_skeleton() -> None:
    line = bar(slice(10, 11))
    assert np.array_equal(skeleton(line), line)
    assert centrelines(line, line).tolist() == [40, 40, 40, 40]


def test_width_does_not_count() -> None:
    thin, thick = bar(slice(10, 11)), bar(slice(9, 12))
    # The skeleton of the bar is its middle row, but for one pixel each at the ends.
    inner = skeleton(thick)[:, 6:41]
    assert np.array_equal(inner, thin[:, 6:41])
    right, answered, found, true = centrelines(thick, thin)
    assert (answered - right, found, true) == (1, 40, 40)
    assert f_measure(centrelines(thick, thin)) == pytest.approx(2 * (38 / 39) / (1 + 38 / 39))


def test_a_gap_costs_its_length() -> None:
    line, broken = bar(slice(10, 11)), bar(slice(10, 11))
    broken[10, 20:30] = False
    assert centrelines(broken, line).tolist() == [30, 30, 30, 40]
    # Tprec = 1, Tsens = 3/4.
    assert f_measure(centrelines(broken, line)) == pytest.approx(2 * 0.75 / 1.75)
    assert betti0_error(broken, line) == 1


def test_a_line_of_its_own_costs_precision() -> None:
    line = bar(slice(10, 11))
    both = line | bar(slice(20, 21), slice(4, 24))
    assert centrelines(both, line).tolist() == [40, 60, 40, 40]
    assert f_measure(centrelines(both, line)) == pytest.approx(2 * (2 / 3) / (5 / 3))


def test_nothing() -> None:
    none, line = bar(slice(0, 0)), bar(slice(10, 11))
    assert f_measure(centrelines(none, none)) == 1
    assert f_measure(centrelines(none, line)) == f_measure(centrelines(line, none)) == 0
    assert pieces(none) == 0


def test_corners_connect() -> None:
    assert pieces(np.eye(5, dtype=bool)) == 1
    assert pieces(bar(slice(10, 11)) | bar(slice(12, 13))) == 2


def test_turning_and_mirroring_change_no_pieces() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((20, 25)) < 0.3
    assert pieces(mask) == pieces(mask.T) == pieces(mask[::-1, ::-1])


def test_bits_of_a_png_have_a_skeleton() -> None:
    file = io.BytesIO()
    Image.fromarray(bar(slice(8, 13))).save(file, "PNG")
    with Image.open(file) as image:
        assert image.mode == "1"
        assert np.array_equal(skeleton(np.asarray(image)), skeleton(bar(slice(8, 13))))
