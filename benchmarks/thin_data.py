"""Tables of the two real sets of thin structures, for `vitrail train` and `vitrail study thin`.

    python benchmarks/thin_data.py DATA OUT

DATA holds `chase_db1` (`Image_01L.jpg`, `Image_01L_1stHO.png`, ...) and `roads` (`images`,
`masks`). OUT gets `chase_db1.csv`, `chase_db1-second.csv` (the second annotator's masks) and
`roads.csv`, each with path, mask and split; the images stay where they are.

Images of one person and crops of one tile stay together. Of CHASE_DB1 the last 8 images are for
testing, as is usual, and the last 2 before them for validation. Of the roads every fifth tile is
for testing (index % 5 == 1, by name) and every tenth for validation (index % 10 == 8).
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable
from pathlib import Path

Row = tuple[Path, Path, str]


def chase_db1(folder: Path, annotator: str = "1stHO") -> list[Row]:
    """Photographs of eyes: 18 to learn from, 2 for validation, 8 for testing."""
    images = sorted(folder.glob("*.jpg"))
    splits = ["train"] * 18 + ["val"] * 2 + ["test"] * 8
    masks = [image.with_name(f"{image.stem}_{annotator}.png") for image in images]
    return list(zip(images, masks, splits, strict=True))


def roads(folder: Path) -> list[Row]:
    """Crops of aerial photographs, split by the tile that they were cut from."""
    images = sorted((folder / "images").iterdir())
    tiles = sorted({tile(image) for image in images})
    masks = [folder / "masks" / f"{image.stem}.png" for image in images]
    splits = [split(tiles.index(tile(image))) for image in images]
    return list(zip(images, masks, splits, strict=True))


def tile(image: Path) -> str:
    """Of a crop: the name up to the first underscore."""
    return image.stem.partition("_")[0]


def split(index: int) -> str:
    """Of a tile."""
    if index % 5 == 1:
        return "test"
    return "val" if index % 10 == 8 else "train"


def write(rows: Iterable[Row], path: Path) -> None:
    """One row an image, relative to the table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "mask", "split"])
        for image, mask, part in rows:
            places = [os.path.relpath(each, path.parent) for each in (image, mask)]
            table.writerow([*places, part])


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(chase_db1(args.data / "chase_db1"), args.out / "chase_db1.csv")
    write(chase_db1(args.data / "chase_db1", "2ndHO"), args.out / "chase_db1-second.csv")
    write(roads(args.data / "roads"), args.out / "roads.csv")


if __name__ == "__main__":
    main()
