from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import ListDataset, photo
from vitrail.draw import draw_boxes
from vitrail.errors import UserError
from vitrail.predict import Row
from vitrail.prediction_boxes import Numbers
from vitrail.prediction_pictures import draw_predictions
from vitrail.types import Detection

FOUND = Detection(((2.0, 2.0, 30.0, 20.0),), ("cat",), (0.75,))
NUMBERS = Numbers({"cat": 1}, {})
PATHS = ["in/a.png", "in/b/a.png", "in/c.jpg", "in/bad.png", "in/e.gif"]


def some() -> tuple[list[Row], ListDataset]:
    images = [None if "bad" in path else photo(i, 40, 60) for i, path in enumerate(PATHS)]
    rows = [
        Row(path, error="truncated") if image is None else Row(path, FOUND, size=(40, 60))
        for path, image in zip(PATHS, images, strict=True)
    ]
    return rows, ListDataset(images, ids=PATHS)


def test_drawn_images_are_named_as_the_originals(tmp_path: Path) -> None:
    rows, dataset = some()
    assert draw_predictions(rows, dataset, tmp_path / "drawn", NUMBERS) == 4
    files = {str(p.relative_to(tmp_path / "drawn")) for p in (tmp_path / "drawn").rglob("*.*")}
    assert files == {"a.png", "b/a.png", "c.jpg", "e.gif.png"}
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "drawn" / "a.png"))).permute(2, 0, 1)
    expected = draw_boxes(dataset.images[0], FOUND.boxes, FOUND.labels, FOUND.scores)
    assert torch.equal(pixels, expected)


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    rows, dataset = some()
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="give a new or empty folder"):
        draw_predictions(rows, dataset, tmp_path, NUMBERS)
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    rows, dataset = some()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*give another --draw"):
        draw_predictions(rows, dataset, tmp_path / "file" / "below", NUMBERS)
