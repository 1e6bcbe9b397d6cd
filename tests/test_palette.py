from __future__ import annotations

from itertools import combinations

import numpy as np

from vitrail.palette import BACKGROUND, FIRST, colours, distinct

# Machado et al. (2009), full severity, linear RGB.
BLIND = {
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
}


def test_the_first_colours_differ_for_everybody() -> None:
    linear = (np.array(FIRST) / 255) ** 2.2
    for matrix in BLIND.values():
        seen = (linear @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2) * 255
        assert min(np.abs(a - b).max() for a, b in combinations(seen, 2)) > 25


def test_more_colours() -> None:
    assert colours(3) == colours(200)[:3] == list(FIRST[:3])
    assert len(set(colours(255))) > 240
    assert BACKGROUND not in colours(255)


def test_distinct_colours() -> None:
    found = distinct(3000)
    assert len(set(found)) == 3000
    assert found[:200] == colours(200) or len(set(colours(200))) < 200
    assert BACKGROUND not in found
    assert all(0 <= part <= 255 for colour in found for part in colour)
