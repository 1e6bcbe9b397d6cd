"""Objects that tiles show in part are put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitrail.data.tiles import Tiles
from vitrail.mask_merge import Tile, merge_objects
from vitrail.masks import decode, encode
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import MatchedQueriesReadout
from vitrail.types import Grid, Region, Segmentation

RULE = Tiles(size=(64, 64), overlap=0.4)
SIZE = (150, 200)
Mask = NDArray[np.bool_]


def config(answer: Any = "instance", **changes: Any) -> SegmentConfig:
    readout = MatchedQueriesReadout()
    return SegmentConfig(classes=("a", "b"), answer=answer, readout=readout, **changes)


def disc(y: float, x: float, radius: float) -> Mask:
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= radius**2


def seen(objects: Sequence[tuple[str, float, Mask]]) -> list[Tile]:
    """What a perfect model says of each tile."""
    rows, columns = RULE.starts(*SIZE)
    found: list[Tile] = []
    for top in rows:
        for left in columns:
            parts = [(n, s, m[top : top + 64, left : left + 64]) for n, s, m in objects]
            regions = [Region(n, s, encode(m), 0) for n, s, m in parts if m.any()]
            found.append(Tile(top, left, Segmentation((64, 64), tuple(regions))))
    return found


def merged(tiles: Sequence[Tile], size: Grid = SIZE, **changes: Any) -> list[tuple[Region, Mask]]:
    answer = merge_objects(tiles, SIZE, size, config(**changes))
    assert answer.size == size
    return [(region, decode(region.rle, size)) for region in answer.regions]


def test_objects_small_and_large_are_whole_again() -> None:
    objects = [
        ("a", 0.9, disc(60, 60, 10)),
        ("a", 0.8, disc(90, 150, 45)),  # larger than a tile: it is cut in all
        ("b", 0.7, disc(60, 85, 14)),
        ("a", 0.6, disc(5, 199, 20)),
        ("b", 0.5, disc(120, 40, 33)),
    ]
    found = merged(seen(objects))
    assert [(region.label, region.score) for region, _ in found] == [o[:2] for o in objects]
    for (_, mask), (_, _, wanted) in zip(found, objects, strict=True):
        assert np.array_equal(mask, wanted)
    assert len(merged(seen(objects), max_regions=2)) == 2


@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(3, 13)), min_size=0, max_size=12
    )
)
def test_neighbours_of_one_class_stay_apart(places: list[tuple[int, int, int]]) -> None:
    grid = {(y, x): radius for y, x, radius in places}
    objects = [("a", 0.9, disc(15 + 29 * y, 14 + 28 * x, r)) for (y, x), r in grid.items()]
    found = merged(seen(objects))
    wanted = {encode(mask) for _, _, mask in objects}
    assert {region.rle for region, _ in found} == wanted
    assert len(found) == len(objects)


def test_the_whole_object_stands_for_what_a_border_cut() -> None:
    whole = disc(30, 55, 12)
    cut, complete = whole[:64, :64].copy(), whole[:64, 38:102]
    cut[:20] = False  # a poor answer at the border, and a sure one
    tiles = [
        Tile(0, 0, Segmentation((64, 64), (Region("a", 0.9, encode(cut)),))),
        Tile(0, 38, Segmentation((64, 64), (Region("a", 0.6, encode(complete)),))),
    ]
    ((region, mask),) = merged(tiles)
    assert region.score == 0.6
    assert np.array_equal(mask, whole)


def test_of_two_whole_ones_the_surer_stands_and_classes_differ() -> None:
    inner = disc(30, 50, 8)
    left = Region("a", 0.5, encode(inner[:64, :64]))
    right = Region("a", 0.7, encode(disc(30, 51, 8)[:64, 38:102]))
    other = Region("b", 0.6, encode(inner[:64, 38:102]))
    tiles = [
        Tile(0, 0, Segmentation((64, 64), (left,))),
        Tile(0, 38, Segmentation((64, 64), (right, other))),
    ]
    found = merged(tiles)
    assert [(r.label, r.score) for r, _ in found] == [("a", 0.7), ("b", 0.6)]
    assert np.array_equal(found[0][1], disc(30, 51, 8))


def test_panoptic_regions_do_not_overlap_and_stuff_is_one() -> None:
    sky = np.zeros(SIZE, dtype=np.bool_)
    sky[:70] = True
    bird = disc(60, 60, 10)
    tiles = seen([("a", 0.9, bird), ("b", 0.6, sky)])
    found = merged(tiles, answer="panoptic", things=(True, False))
    assert [region.label for region, _ in found] == ["a", "b"]
    assert np.array_equal(found[0][1], bird)
    assert np.array_equal(found[1][1], sky & ~bird)


def test_answers_are_in_pixels_of_the_original() -> None:
    ((_, mask),) = merged(seen([("a", 0.9, disc(60, 60, 30))]), size=(300, 400))
    assert np.array_equal(mask, disc(60, 60, 30).repeat(2, 0).repeat(2, 1))


def test_nothing_found_is_an_answer() -> None:
    assert merged(seen([])) == []
    assert merged(seen([]), answer="panoptic") == []
