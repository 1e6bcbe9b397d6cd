"""What one number a cell can say of a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vitrail.data.roads import Roads
from vitrail.metrics.topology import centrelines
from vitrail.studies.ceiling import best_f1, ceiling, fitted, shares


def line(width: int, side: int = 64, at: int = 20) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.bool_)
    mask[:, at : at + width] = True
    return mask


def test_cells_of_one_pixel_say_everything() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((9, 13)) < 0.3 for _ in range(3)]
    found = ceiling(masks, 1)
    assert found.iou == found.f1 == found.f1_tolerance == found.dice == found.cldice == 1
    assert best_f1(masks, 1) == 1


def test_shares_are_the_share_of_each_cell_enlarged() -> None:
    mask = np.random.default_rng(1).random((8, 12)) < 0.4
    cells = torch.from_numpy(mask.reshape(2, 4, 3, 4).mean(axis=(1, 3)))[None, None]
    wanted = F.interpolate(cells, size=(8, 12), mode="bilinear", align_corners=False)[0, 0]
    assert np.abs(shares(mask, 4) / 255 - wanted.numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_cell_that_the_edge_cuts_has_the_share_of_what_is_inside() -> None:
    mask = np.ones((10, 7), dtype=np.bool_)
    assert (shares(mask, 4) == 255).all()


def test_the_best_threshold_is_the_best_of_all() -> None:
    masks = [line(3), line(5, at=37), line(1, at=50)]
    for cell in (4, 8, 16):
        best, maps = 0.0, [shares(mask, cell) for mask in masks]
        for level in range(1, 256):
            pairs = [(map_ >= level, mask) for map_, mask in zip(maps, masks, strict=True)]
            hits = sum((answer & mask).sum() for answer, mask in pairs)
            all_ = sum(answer.sum() + mask.sum() for answer, mask in pairs)
            best = max(best, float(2 * hits / all_))
        found = ceiling(masks, cell)
        assert found.f1 == best_f1(masks, cell) == pytest.approx(best)
        assert found.iou == pytest.approx(best / (2 - best))


def test_numbers_that_know_their_neighbours_say_more() -> None:
    masks = [Roads(sizes={"test": 3}).draw(index).ids[0].numpy() > 0 for index in range(3)]
    for cell in (4, 8, 16):
        found = ceiling(masks, cell)
        assert found.f1 + 0.05 < found.fitted < 1
    assert fitted(masks[0], 8).shape == masks[0].shape
    assert fitted(np.zeros((20, 20), dtype=np.bool_), 8).max() < 5


def test_coarser_cells_and_thinner_lines_say_less() -> None:
    cells = [ceiling([line(3)], cell).f1 for cell in (2, 4, 8, 16, 32)]
    assert cells == sorted(cells, reverse=True)
    assert cells[-1] < 0.5 < cells[1]
    widths = [ceiling([line(width)], 16).f1 for width in (1, 2, 4, 8)]
    assert widths == sorted(widths)


def test_tolerance_and_centrelines_are_those_of_the_metrics() -> None:
    mask = line(1)
    found = ceiling([mask], 2)
    assert found.f1_tolerance == 1 > found.f1
    answer = shares(mask, 2) >= 90  # the two columns of the cell
    assert answer.sum() == 2 * mask.sum()
    right, answered, hit, true = centrelines(answer, mask)
    precision, sensitivity = right / answered, hit / true
    wanted = 2 * precision * sensitivity / (precision + sensitivity)
    assert found.cldice == pytest.approx(wanted)


def test_chase_db1_has_the_ceiling_that_was_measured_before(shared_data: Path) -> None:
    """F1, the mean over the last 8 images: 0.593 at cells of 16 pixels."""
    files = sorted((shared_data / "chase_db1").glob("*_1stHO.png"))[-8:]
    masks = [np.asarray(Image.open(file).convert("L")) > 127 for file in files]
    found = [ceiling([mask], 16) for mask in masks[::4]]
    assert np.mean([each.dice for each in found]) == pytest.approx(0.593, abs=0.02)
