from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from tiny import photo, randomise, tiny_config, tiny_model
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.explain.trace.look import Look, look, own_key
from vitrail.explain.trace.scene import Places, Scene, encoder_blocks, watch
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig


def swin(kind: Any) -> Model:
    """Maps of 22 x 15 and 11 x 8 in windows of 4: every block pads, the second of two shifts."""
    backbone = kind(
        image_size=(44, 30), patch_size=2, width=8, depths=(2, 2), heads=(2, 4), window=4
    )
    config = ModelConfig(
        backbone=backbone,
        task=ClassifyConfig(classes=("a", "b")),
        preprocess=Preprocess(resize=CenterCrop(size=(44, 30), crop_pct=1.0)),
    )
    return randomise(Model(config), std=0.2).eval()


def insist_true(seen: Look, scene: Scene) -> None:
    """Weights are the softmax of the scores, their sum of values is the kernel's output."""
    torch.testing.assert_close(seen.scores.softmax(dim=1), seen.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen.weights.sum(dim=1), torch.ones(len(seen.q)))
    torch.testing.assert_close(seen.mixed, seen.out, rtol=1e-5, atol=1e-6)
    assert seen.all_heads[:, scene.head].equal(seen.weights)
    own = seen.cells[torch.arange(len(seen.q)), own_key(seen, scene)]
    assert own.tolist() == list(scene.places.queries)


@pytest.mark.parametrize("changes", [{}, {"registers": 2}, {"qk_norm": True}])
def test_a_whole_map(changes: dict[str, Any]) -> None:
    scene = watch(tiny_model(backbone=tiny_config(**changes)), photo(0), 1, 1)
    seen = look(scene)
    insist_true(seen, scene)
    prefix = 1 + changes.get("registers", 0)
    assert seen.cells[0].tolist() == [*range(-1, -1 - prefix, -1), *range(6)]


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("kind", [SwinConfig, SwinV2Config])
def test_windows(kind: Any, layer: int) -> None:
    scene = watch(swin(kind), photo(1, 44, 30), layer, 1)
    seen = look(scene)
    insist_true(seen, scene)
    windows = scene.windows(scene.block)
    assert (windows.shift > 0) == bool(layer % 2)
    columns = windows.grid[1]
    # Keys of one window lie within its side of each other, once the roll is undone.
    for query, cells in zip(scene.places.queries, seen.cells, strict=True):
        for cell in cells[cells >= 0].tolist():
            for at, mine, side in (
                (cell // columns, query // columns, windows.padded[0]),
                (cell % columns, query % columns, windows.padded[1]),
            ):
                rolled = [(place - windows.shift) % side // windows.size for place in (at, mine)]
                assert rolled[0] == rolled[1]


def test_a_change_in_one_place_is_seen_where_it_is() -> None:
    """Pixels of one patch reach exactly the keys that are said to lie there."""
    model, image = swin(SwinConfig), photo(2, 44, 30)
    changed = image.clone()
    changed[:, 2 * 9 : 2 * 10, 2 * 5 : 2 * 6] = 255 - changed[:, 2 * 9 : 2 * 10, 2 * 5 : 2 * 6]
    before, after = (look(watch(model, each, 0, 0)) for each in (image, changed))
    moved = (before.k != after.k).any(dim=2)
    assert moved.any()
    assert set(before.cells[moved].tolist()) == {9 * 15 + 5}


def test_places_on_another_map() -> None:
    places = Places((4, 6), 8, (0, 8, 23))
    assert places.on((4, 6), 8).tolist() == [0, 8, 23]
    assert places.on((8, 12), 4).tolist() == [13, 41, 95]
    assert places.on((2, 3), 16).tolist() == [0, 1, 5]
    assert places.queries[places.start] == 8


def test_large_maps_offer_evenly_spaced_patches() -> None:
    config = tiny_config(image_size=(160, 160), width=8, depth=1, heads=1)
    scene = watch(tiny_model(backbone=config), photo(0, 160, 160), 0, 0)
    grid, queries = scene.places.grid, scene.places.queries
    assert grid == (40, 40)
    assert 36 <= len(queries) <= 256
    rows = sorted({query // 40 for query in queries})
    assert len({b - a for a, b in pairwise(rows)}) == 1
    assert len(encoder_blocks(scene.backbone)) == 1
