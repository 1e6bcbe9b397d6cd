"""Write a few digits as image files, taken from the test part: no training has seen them.

    python examples/new_digits.py FOLDER [COUNT]

The true digit is the first character of each file name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from vitrail import open_source


def main(folder: str, count: str = "8") -> None:
    """Decode samples of the held-out part and save them as PNG."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    test = open_source("digits").splits["test"]
    for index in range(int(count)):
        sample = test.read(index)
        assert isinstance(sample.target, int)
        name = f"{test.classes[sample.target]}-{index}.png"
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(out / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
