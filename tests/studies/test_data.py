from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitrail.data.open import open_labelled, open_source
from vitrail.errors import ConfigError, DataError
from vitrail.studies.data import COLOURS, First, Given, Recall, Whole, described, write_folder


def arrays(root: Path, count: int = 60) -> str:
    """An idx data set whose images are told apart by their mean."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 5, 4), dtype=np.uint8)
    labels = (np.arange(count) % 3).astype(np.uint8)
    parts = {"train": (images[:40], labels[:40]), "test": (images[40:], labels[40:])}
    return write_folder(root, parts, ["a", "b", "c"], "made up")


def test_the_first_images_of_each_part(tmp_path: Path) -> None:
    whole = open_source(arrays(tmp_path / "whole"))
    part = First("", train=20, test=12)
    place = part.prepare(tmp_path / "part", str(tmp_path / "whole"))
    source = open_source(place)
    counts = {name: len(split) for name, split in source.splits.items()}
    assert counts == {"train": 17, "val": 3, "test": 12}
    assert source.splits["train"].classes == ("a", "b", "c")
    assert list(source.splits["test"].ids) == [f"test/{i}" for i in range(12)]
    for i in range(12):
        mine, theirs = source.splits["test"].read(i), whole.splits["test"].read(i)
        assert mine.target == theirs.target
        assert bool((mine.image == theirs.image).all())
    assert described(Path(place)).startswith("the first 20 training and 12 test images of ")


def test_a_part_is_written_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    whole = arrays(tmp_path / "whole")
    place = Path(First("", 20, 12).prepare(tmp_path / "part", whole))
    mark = place / "source.txt"
    before = mark.stat().st_mtime_ns
    First("", 20, 12).prepare(tmp_path / "part", whole)
    assert mark.stat().st_mtime_ns == before
    First("", 21, 12).prepare(tmp_path / "part", whole)
    assert len(open_labelled(str(place))) == 33


def test_other_data_have_no_first_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits: at small scale a study takes a part of an idx"):
        First("fashion-mnist", 20, 12).prepare(tmp_path / "part", "digits")


def test_recall_asks_for_the_first_colour(tmp_path: Path) -> None:
    place = Recall(5, train=40, test=16).prepare(tmp_path / "data", None)
    assert Path(place).name == "data-recall-5"
    source = open_source(place)
    test = source.splits["test"]
    assert len(test) == 16
    assert len(test.classes) == 8
    for i in range(16):
        sample = test.read(i)
        assert sample.image.shape == (3, 1, 6)
        assert isinstance(sample.target, int)
        assert tuple(sample.image[:, 0, 0].tolist()) == COLOURS[sample.target]
        for place_ in range(6):
            assert tuple(sample.image[:, 0, place_].tolist()) in COLOURS
    again = Recall(5, train=40, test=16).prepare(tmp_path / "again", None)
    assert open_source(again).fingerprint == source.fingerprint, "a function of the length alone"


def test_whole_data_can_be_replaced_and_given_data_must_be_given(tmp_path: Path) -> None:
    assert Whole("digits").prepare(tmp_path, None) == "digits"
    assert Whole("digits").prepare(tmp_path, "other") == "other"
    assert Given().prepare(tmp_path, "imagenet") == "imagenet"
    with pytest.raises(ConfigError, match="needs --data FOLDER"):
        Given().prepare(tmp_path, None)
