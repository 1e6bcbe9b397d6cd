"""DETR's positions of cells."""

from __future__ import annotations

import math

import pytest
import torch

from vitrail.nn.sine_positions import sine_positions


def whole(rows: int, columns: int) -> torch.Tensor:
    return torch.ones(1, rows, columns, dtype=torch.bool)


def test_values_are_those_of_the_definition() -> None:
    """pe(2i) = sin(p / 10000^(2i / half)), pe(2i + 1) = cos of the same; rows first."""
    found = sine_positions(whole(2, 3), 8)
    assert found.shape == (1, 6, 8)
    for row in range(2):
        for column in range(3):
            expected: list[float] = []
            for place, count in ((row + 1, 2), (column + 1, 3)):
                angle = place / (count + 1e-6) * 2 * math.pi
                for pair in range(2):
                    wave = 10_000 ** (2 * pair / 4)
                    expected += [math.sin(angle / wave), math.cos(angle / wave)]
            one = found[0, row * 3 + column]
            torch.testing.assert_close(one, torch.tensor(expected), rtol=0, atol=1e-5)


def test_what_was_filled_up_changes_nothing() -> None:
    shown = torch.zeros(1, 5, 7, dtype=torch.bool)
    shown[:, :3, :4] = True
    filled = sine_positions(shown, 16).reshape(5, 7, 16)[:3, :4].flatten(0, 1)
    torch.testing.assert_close(filled, sine_positions(whole(3, 4), 16)[0], rtol=0, atol=0)


def test_places_differ() -> None:
    found = sine_positions(whole(6, 6), 32)[0]
    apart = torch.cdist(found, found) + torch.eye(36)
    assert apart.min() > 0.1


def test_a_width_without_quarters_is_refused() -> None:
    with pytest.raises(AssertionError, match="divisible by 4"):
        sine_positions(whole(2, 2), 6)
