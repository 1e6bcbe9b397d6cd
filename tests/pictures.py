"""Small generated images that can be learned in seconds, in memory and as files."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tiny import ListDataset

COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}
"""Class names, sorted, and what their images look like."""

QUICK = (
    "schedule.epochs=2",
    "data.batch_size=8",
    'data.workers={kind="serial"}',
    "model.image_size=[8, 8]",
)
"""Overrides under which a whole run takes a second or two."""


def picture(colour: Sequence[int], seed: int, size: int = 8) -> NDArray[np.uint8]:
    """Noise around a colour, (size, size, 3)."""
    noise = np.random.default_rng(seed).normal(0, 40, (size, size, 3))
    return (noise + np.array(colour)).clip(0, 255).astype(np.uint8)


def in_memory(count: int = 24, seed: int = 0, bad: Sequence[int] = ()) -> ListDataset:
    """Classes in turns; the images of `bad` cannot be read."""
    names = list(COLOURS)
    images = [
        torch.from_numpy(picture(COLOURS[names[i % 3]], 1000 * seed + i)).permute(2, 0, 1)
        for i in range(count)
    ]
    return ListDataset(
        [None if i in bad else image for i, image in enumerate(images)],
        [i % 3 for i in range(count)],
        names,
    )


def write_folder(root: Path, per_class: int = 12, bad: Sequence[str] = ()) -> Path:
    """One folder a class; `bad` names further files, such as `red/x.png`, that are no images."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            image = Image.fromarray(picture(colour, hash_free_seed(name, i)))
            image.save(root / name / f"{i:02}.png")
    for name in bad:
        (root / name).write_bytes(f"no image {name}".encode())
    return root


def write_zip(path: Path, per_class: int = 12) -> Path:
    """The same in an archive."""
    folder = write_folder(path.with_suffix(""), per_class)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path


def write_multilabel(root: Path, count: int = 48) -> Path:
    """A CSV whose images show none, one or two of the colours, left and right."""
    root.mkdir(parents=True)
    names = list(COLOURS)
    grey = (128, 128, 128)
    rows = [["path", "label"]]
    for i in range(count):
        labels = [names[i % 3], *([names[(i + 1) % 3]] if i % 2 else [])] if i % 8 else []
        left, right = ([COLOURS[name] for name in labels] + [grey, grey])[:2]
        pixels = np.concatenate([picture(left, i)[:, :4], picture(right, i + 999)[:, 4:]], axis=1)
        Image.fromarray(pixels).save(root / f"{i:02}.png")
        rows.append([f"{i:02}.png", ";".join(labels)])
    table = root / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return table


def hash_free_seed(name: str, index: int) -> int:
    """A seed of its own for each image, the same in every process."""
    return 1000 * list(COLOURS).index(name) + index
