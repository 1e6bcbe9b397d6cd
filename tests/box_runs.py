"""Boxes to train on in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

QUICK = (
    *("model.image_size=[32,32]", "model.name=vit_nano_conv4_28", "schedule.epochs=2"),
    *("model.backbone.width=16", "model.backbone.depth=1", "data.batch_size=4"),
    *("detect.readout.width=16", "detect.readout.depth=1", "detect.readout.hidden=16"),
    *("detect.readout.queries.count=6", 'data.workers={kind="serial"}', "ema=0.9"),
)
"""Overrides under which a whole run is quick."""


def write_boxes(folder: Path, *extra: str, count: int = 20) -> Path:
    """Images with one bright square each, red or green, and a table of where it is."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["path,x1,y1,x2,y2,label"]
    for index in range(count):
        pixels = rng.integers(60, 120, (40, 48, 3), dtype=np.uint8)
        x, y, side = rng.integers(2, 20), rng.integers(2, 20), rng.integers(10, 18)
        pixels[y : y + side, x : x + side, index % 2] = 250
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
        rows.append(f"{index:02}.png,{x},{y},{x + side},{y + side},{('red', 'green')[index % 2]}")
    (folder / "boxes.csv").write_text("\n".join([*rows, *extra]) + "\n", encoding="utf-8")
    return folder / "boxes.csv"
