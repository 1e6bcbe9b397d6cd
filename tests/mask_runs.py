"""Masks to train on in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

QUICK = (
    *("model.image_size=[32,32]", "model.name=vit_nano_conv4_28", "schedule.epochs=2"),
    *("model.backbone.width=16", "model.backbone.depth=1", "data.batch_size=4"),
    *("data.views=1", 'data.workers={kind="serial"}', "ema=0.9"),
)
"""Overrides under which a whole run is quick."""
SEMANTIC = (
    *("segment.readout.width=16", "segment.readout.depth=1", "segment.readout.hidden=16"),
    *("segment.readout.heads=2", "segment.readout.pixels.widths=[4,8]"),
)
OBJECTS = (
    *("segment.readout.detector.width=16", "segment.readout.detector.depth=1"),
    *("segment.readout.detector.hidden=16", "segment.readout.detector.heads=2"),
    *("segment.readout.detector.queries.count=6", "segment.readout.pixels.widths=[4,8]"),
    *("segment.readout.detector.attention.heads=2", "segment.min_area=0"),
)
"""The same for heads of either kind."""


def write_masks(folder: Path, *, classes: int = 1, count: int = 20) -> Path:
    """Images with a bright square each, and binary masks, or those of class 1 or 2."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(60, 120, (40, 48, 3), dtype=np.uint8)
        x, y, side = rng.integers(2, 20), rng.integers(2, 20), rng.integers(10, 18)
        pixels[y : y + side, x : x + side, index % 2] = 250
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[y : y + side, x : x + side] = 255 if classes == 1 else index % 2 + 1
        Image.fromarray(pixels).save(folder / "images" / f"{index:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index:02}.png")
    return folder


def remask(folder: Path, index: int, mask: np.ndarray) -> None:
    """Write another mask for one image."""
    Image.fromarray(mask).save(folder / "masks" / f"{index:02}.png")
