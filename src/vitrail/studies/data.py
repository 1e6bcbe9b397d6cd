"""What the runs of a study see: a built-in name, a part of one, or a generated task.

Parts and generated tasks are written as idx files into the study's folder, so that `vitrail train`
can read them too and every run can be repeated.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from vitrail.data import roads
from vitrail.data.arrays import ArrayDataset
from vitrail.data.open import open_labelled
from vitrail.errors import ConfigError, DataError
from vitrail.machine import read_text
from vitrail.types import Segments
from vitrail.weights.modelfile import write_atomically

COLOURS = tuple(product((0, 255), repeat=3))
"""The corners of the RGB cube: the alphabet of the recall task."""


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a built-in data set."""

    name: str

    def prepare(self, folder: Path, given: str | None) -> str:
        """Its name, or the data given in its place."""
        del folder
        return given or self.name


@dataclass(frozen=True, slots=True)
class Given:
    """Data that the user must name.

    Attributes:
        example: What would do, for people.
    """

    example: str = "FOLDER, such as ImageNet-1k or a hundred of its classes in class folders"

    def prepare(self, folder: Path, given: str | None) -> str:
        """What was given.

        Raises:
            ConfigError: nothing was.
        """
        del folder
        if not given:
            raise ConfigError(f"at full scale this study needs --data {self.example}")
        return given


@dataclass(frozen=True, slots=True)
class First:
    """The first images of a data set in one array with train and test parts (Fashion-MNIST)."""

    name: str
    train: int
    test: int

    def prepare(self, folder: Path, given: str | None) -> str:
        """Write the part, unless it has been written.

        Raises:
            DataError: the data are not here, are of another kind, or the disk is full.
        """
        name = given or self.name
        what = f"the first {self.train:,} training and {self.test:,} test images of {name}"
        if described(folder) == what:
            return str(folder)
        whole = open_labelled(name)
        if not isinstance(whole, ArrayDataset) or not {"train", "test"} <= whole.published.keys():
            raise DataError(
                f"{name}: at small scale a study takes a part of an idx data set with train and "
                "test, such as fashion-mnist; use --scale full for other data"
            )
        parts: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        for part, count in (("train", self.train), ("test", self.test)):
            places = list(whole.published[part][:count])
            labels = np.array([whole.targets[i] for i in places], dtype=np.uint8)
            parts[part] = np.ascontiguousarray(whole.images[places]), labels
        return write_folder(folder, parts, whole.classes, what)


@dataclass(frozen=True, slots=True)
class Scenes:
    """The first scenes of the built-in `roads`, as files: to read one is quicker than to draw it.

    Attributes:
        train: Training scenes.
        val: Validation scenes.
        test: Test scenes.
    """

    train: int
    val: int
    test: int

    def prepare(self, folder: Path, given: str | None) -> str:
        """Write images, masks and a table, unless they have been written; or the data given."""
        if given is not None and given != roads.NAME:
            return given
        sizes = {"train": self.train, "val": self.val, "test": self.test}
        counts = ", ".join(f"{count:,} {part}" for part, count in sizes.items())
        what = f"the first scenes of {roads.NAME}: {counts}"
        if described(folder) == what:
            return str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        data = roads.Roads(sizes=sizes)
        rows = ["path,mask,split"]
        for index, name in enumerate(data.ids):
            sample = data.read(index)
            assert isinstance(sample.target, Segments)
            image, mask = sample.image.permute(1, 2, 0).numpy(), sample.target.ids[0].numpy() > 0
            for kind, pixels in (("images", image), ("masks", np.uint8(255) * mask)):
                _write_png(folder / kind / f"{name}.png", pixels)
            rows.append(f"images/{name}.png,masks/{name}.png,{name.partition('/')[0]}")
        write_atomically(folder / "scenes.csv", "\n".join([*rows, ""]).encode())
        write_atomically(folder / "source.txt", f"{what}\n".encode())
        return str(folder)


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall at a distance: the class is the first pixel's colour, random colours follow.

    An image is a strip of one row: the colour to keep, then `length` distractors of the same eight
    colours, so that a model must know which came first and carry it to the end.

    Attributes:
        length: Distractors.
        train: Training strips.
        test: Test strips.
    """

    length: int
    train: int = 20_000
    test: int = 2_000

    def prepare(self, folder: Path, given: str | None) -> str:
        """Write the strips, unless they have been written."""
        del given
        folder = folder.with_name(f"{folder.name}-recall-{self.length}")
        what = f"{self.train:,} and {self.test:,} strips of 1 + {self.length} random colours"
        if described(folder) == what:
            return str(folder)
        rng = np.random.default_rng(self.length)
        parts = {
            part: self.strips(n, rng) for part, n in (("train", self.train), ("test", self.test))
        }
        return write_folder(folder, parts, [f"colour {i}" for i in range(len(COLOURS))], what)

    def strips(
        self, count: int, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "K 1 L 3"], UInt8[np.ndarray, "K"]]:
        """Random strips and the index of their first colour."""
        index = rng.integers(0, len(COLOURS), (count, 1 + self.length), dtype=np.uint8)
        return np.array(COLOURS, dtype=np.uint8)[index][:, None], index[:, 0]


Data = Whole | Given | First | Scenes | Recall


def described(folder: Path) -> str:
    """What the idx files in a folder are; empty where there are none."""
    return read_text(folder / "source.txt").strip()


def write_folder(
    folder: Path,
    parts: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    classes: list[str] | tuple[str, ...],
    what: str,
) -> str:
    """Write images and labels as idx files; the description comes last and tells them whole."""
    shutil.rmtree(folder, ignore_errors=True)
    for part, (images, labels) in parts.items():
        _write_idx(folder / f"{part}-images-idx{images.ndim}-ubyte", images)
        _write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    write_atomically(folder / "classes.txt", "\n".join(classes).encode())
    write_atomically(folder / "source.txt", f"{what}\n".encode())
    return str(folder)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    write_atomically(path, header + values.tobytes())
