"""`check`: each kind of finding on data made for it, and on real data."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mask_formats import SCENES, Scene, write_indices
from vitrail.data.check import Report, check
from vitrail.data.class_balance import MIN_SAMPLES, label_names
from vitrail.data.dataset import Dataset, Source
from vitrail.data.findings import SHOWN, Finding
from vitrail.data.open import open_labelled, open_source
from vitrail.errors import BadSampleError
from vitrail.types import Sample, Target

Row = tuple[str, Tensor | str, Target]


class Listed(Dataset):
    """Images from memory; a string in place of pixels is a file that cannot be read."""

    def __init__(self, rows: Sequence[Row], classes: tuple[str, ...]) -> None:
        self.classes, self.multilabel = classes, any(isinstance(r[2], tuple) for r in rows)
        self.text = any(isinstance(r[2], str) for r in rows)
        self.ids = [name for name, _, _ in rows]
        self.images = [image for _, image, _ in rows]
        self.targets = [target for _, _, target in rows]

    def read(self, index: int) -> Sample:
        return Sample(self.ids[index], self._image(index), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        image = self._image(index)
        return str(tuple(image.shape)).encode() + image.numpy().tobytes()

    def stored_size(self, index: int) -> int:
        return len(self.read_bytes(index))

    def _image(self, index: int) -> Tensor:
        image = self.images[index]
        if isinstance(image, str):
            raise BadSampleError(image)
        return image


def image(seed: int, height: int = 40, width: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def picture(seed: int) -> Tensor:
    """Large enough for a perceptual hash."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")[0].byte()


def rows(split: str, counts: Sequence[int], start: int = 0) -> list[Row]:
    """Different images, so many a class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [(f"{split}/{i}", image(start + i), label) for i, label in enumerate(labels)]


def source(
    train: Sequence[Row], val: Sequence[Row] = (), classes: tuple[str, ...] = ("cat", "dog")
) -> Source:
    splits: dict[str, Dataset] = {
        "train": Listed(train, classes),
        "val": Listed(val, classes),
        "test": Listed(rows("test", [1] * len(classes), start=9000), classes),
    }
    published = ("train", "val", "test")
    return Source("made", "memory", "made by the test", splits, published, fingerprint="")


def found(report: Report) -> dict[str, Finding]:
    kinds = {finding.kind: finding for finding in report.findings}
    assert len(kinds) == len(report.findings)
    return kinds


def ids(finding: Finding) -> list[tuple[str, ...]]:
    return [example.ids for example in finding.samples]


CLEAN_TRAIN, CLEAN_VAL = rows("train", [6, 6]), rows("val", [2, 2], start=100)


def test_clean_data_have_no_findings() -> None:
    report = check(source(CLEAN_TRAIN, CLEAN_VAL))
    assert report.findings == ()
    assert (report.format, report.reason) == ("memory", "made by the test")
    assert report.counts["train"].samples == 12
    assert report.counts["val"].classes == {"cat": 2, "dog": 2}
    assert "18 images not compared" in report.notes[0]


def test_progress_counts_every_sample() -> None:
    calls: list[tuple[int, int]] = []
    check(source(CLEAN_TRAIN, CLEAN_VAL), progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (18, 18)


def test_unreadable_files_with_their_reasons() -> None:
    bad: list[Row] = [("train/x", "the file is empty", 0), ("train/y", "the file is empty", 1)]
    finding = found(check(source([*CLEAN_TRAIN, *bad], CLEAN_VAL)))
    assert set(finding) == {"unreadable"}
    assert finding["unreadable"].severity == "error"
    assert [str(example) for example in finding["unreadable"].samples] == [
        "train/x: the file is empty",
        "train/y: the file is empty",
    ]


def test_data_of_unreadable_files_only() -> None:
    bad: list[Row] = [(f"train/{i}", "the file is missing", i % 2) for i in range(12)]
    assert "unreadable" in found(check(source(bad, CLEAN_VAL)))


def test_duplicates_within_a_split() -> None:
    copy: Row = ("train/copy", image(0), 0)
    finding = found(check(source([*CLEAN_TRAIN, copy], CLEAN_VAL)))
    assert set(finding) == {"duplicate"}
    assert finding["duplicate"].severity == "warning"
    assert ids(finding["duplicate"]) == [("train/0", "train/copy")]


def test_duplicates_across_splits_are_leakage() -> None:
    leak: Row = ("val/leak", image(7), 1)
    finding = found(check(source(CLEAN_TRAIN, [*CLEAN_VAL, leak])))
    assert set(finding) == {"leak"}
    assert finding["leak"].severity == "error"
    assert str(finding["leak"].samples[0]) == "train/7 and val/leak: in train, val"


@pytest.mark.parametrize(("target", "disputed"), [(0, False), (1, True), (None, False)])
def test_one_image_with_two_labels(target: Target, disputed: bool) -> None:
    copy: Row = ("train/copy", image(0), target)
    finding = found(check(source([*CLEAN_TRAIN, copy], CLEAN_VAL)))
    assert ("conflicting-labels" in finding) is disputed
    if disputed:
        assert finding["conflicting-labels"].severity == "error"
        assert finding["conflicting-labels"].samples[0].note == "labelled cat, dog"


def test_labels_of_multilabel_data() -> None:
    train: list[Row] = [(f"train/{i}", image(i), ((0,), (0, 1))[i % 2]) for i in range(12)]
    val: list[Row] = [("val/0", image(100), (0, 1)), ("val/1", image(0), (1,))]
    report = check(source(train, val))
    assert report.counts["train"].classes == {"cat": 12, "dog": 6}
    assert set(found(report)) == {"leak", "conflicting-labels"}


def test_near_duplicates_within_and_across() -> None:
    train = [*CLEAN_TRAIN, ("train/a", picture(1), 0), ("train/b", picture(2), 0)]
    again = (picture(1).float() * 0.9).byte()
    darker: Row = ("train/a2", again, 0)
    leaked: Row = ("val/b2", (picture(2).float() * 0.9).byte(), 1)
    finding = found(check(source([*train, darker], [*CLEAN_VAL, leaked])))
    assert {"near-leak", "near-duplicate"} == set(finding) - {"odd-size"}
    assert ids(finding["near-duplicate"]) == [("train/a", "train/a2")]
    assert str(finding["near-leak"].samples[0]) == (
        "train/b and val/b2: in train, val; labelled cat, dog"
    )


def test_exact_copies_are_not_near_duplicates_as_well() -> None:
    train = [*CLEAN_TRAIN, ("train/a", picture(1), 0), ("train/b", picture(1), 0)]
    assert set(found(check(source(train, CLEAN_VAL)))) == {"duplicate"}


def test_a_near_duplicate_comes_with_the_exact_copies() -> None:
    darker = (picture(1).float() * 0.9).byte()
    train = [*CLEAN_TRAIN, ("train/a", picture(1), 0), ("train/a2", darker, 0)]
    leaked: Row = ("val/a", picture(1), 0)
    finding = found(check(source(train, [*CLEAN_VAL, leaked])))
    assert set(finding) == {"leak", "near-leak"}
    assert set(ids(finding["near-leak"])[0]) == {"train/a", "train/a2", "val/a"}


def test_a_large_group_shows_every_split() -> None:
    copies: list[Row] = [(f"train/y{i}", image(0), 0) for i in range(30)]
    leaked: Row = ("val/y", image(0), 0)
    finding = found(check(source([*CLEAN_TRAIN, *copies], [*CLEAN_VAL, leaked])))
    assert ids(finding["leak"])[0][:3] == ("train/0", "val/y", "train/y0")
    assert finding["leak"].samples[0].note == "and 24 more; in train, val"


@pytest.mark.parametrize(
    ("size", "note"),
    [
        ((40, 201), "201 x 40 (5.0 times as long as wide)"),
        ((15, 40), "40 x 15 (tiny)"),
        ((300, 300), "300 x 300 (far larger than the others)"),
        ((40, 200), ""),
        ((100, 100), ""),
    ],
)
def test_odd_sizes(size: tuple[int, int], note: str) -> None:
    odd: Row = ("train/odd", image(500, *size), 0)
    finding = found(check(source([*CLEAN_TRAIN, odd], CLEAN_VAL)))
    assert [e.note for f in finding.values() for e in f.samples] == ([note] if note else [])


def test_small_images_are_not_odd_where_all_are_small() -> None:
    train: list[Row] = [(f"train/{i}", image(i, 8, 8), i % 2) for i in range(12)]
    val: list[Row] = [(f"val/{i}", image(50 + i, 8, 8), i % 2) for i in range(4)]
    small = source(train, val)
    small.splits["test"] = Listed(
        [("t", image(80, 8, 8), 0), ("u", image(81, 8, 8), 1)], ("a", "b")
    )
    small.splits["train"].classes = small.splits["val"].classes = ("a", "b")
    assert check(small).findings == ()


def test_class_findings() -> None:
    classes = ("many", "few", "absent", "alone", "unseen")
    train = rows("train", [60, MIN_SAMPLES - 1, 0, 6, 0])
    val = rows("val", [2, 2, 0, 0, 2], start=200)
    made = source(train, val, classes)
    made.splits["test"] = Listed(rows("test", [2, 2], start=300), classes)
    finding = found(check(made))
    notes = {kind: [e.note for e in f.samples] for kind, f in finding.items()}
    assert notes == {
        "empty-class": ["absent"],
        "label-in-one-split": ["alone (only in train)", "unseen (only in val)"],
        "few-samples": ["few (4 training samples)"],
        "imbalance": ["many (60)", "few (4)"],
    }
    assert finding["label-in-one-split"].severity == "error"
    assert "15.0 times" in finding["imbalance"].message


def test_imbalance_of_ten_is_accepted() -> None:
    assert check(source(rows("train", [50, 5]), rows("val", [2, 2], start=100))).findings == ()


def written(split: str, texts: Sequence[str], start: int = 0) -> list[Row]:
    """Different long images, one a text."""
    return [(f"{split}/{i}", image(start + i, 16, 160), text) for i, text in enumerate(texts)]


def texts(train: Sequence[Row], val: Sequence[Row]) -> Source:
    made = source(train, val, classes=("0", "1", "7"))
    made.splits["test"] = Listed(written("test", ["71", "0"], start=500), ("0", "1", "7"))
    return made


def test_texts_that_are_fit() -> None:
    report = check(texts(written("train", ["0017"] * 6), written("val", ["70", "1"], start=100)))
    assert report.findings == ()
    assert report.counts["train"].classes == {"0": 12, "1": 6, "7": 6}
    assert report.counts["val"].lengths == {1: 1, 2: 1}
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert "rows of text" in report.notes[0]
    assert check(source(CLEAN_TRAIN, CLEAN_VAL)).counts["train"].lengths == {}


def test_findings_about_texts() -> None:
    train = written("train", [*["00"] * 60, "1", "11"])
    val: list[Row] = [*written("val", ["0", "100"], start=100), ("val/x", image(0, 16, 160), "01")]
    made = texts(train, val)
    finding = found(check(made))
    assert set(finding) == {
        "leak",
        "conflicting-labels",
        "label-in-one-split",
        "few-samples",
        "long-text",
    }
    assert finding["conflicting-labels"].samples[0].note == "in train, val; labelled 00, 01"
    assert finding["label-in-one-split"].samples[0].note == "7 (only in test)"
    assert finding["few-samples"].message == (
        "1 symbol with fewer than 5 training samples: add images."
    )
    assert finding["long-text"].samples[0].note == "val (3 symbols)"
    assert finding["long-text"].severity == "warning"


def test_many_cases_are_counted_and_a_few_are_shown() -> None:
    bad: list[Row] = [(f"train/x{i}", "damaged", 0) for i in range(SHOWN + 5)]
    copies: list[Row] = [(f"train/y{i}", image(0), 0) for i in range(30)]
    finding = found(check(source([*CLEAN_TRAIN, *bad, *copies], CLEAN_VAL)))
    assert finding["unreadable"].count == SHOWN + 5
    assert len(finding["unreadable"].samples) == SHOWN
    assert finding["duplicate"].count == 1
    assert finding["duplicate"].samples[0].note == "and 23 more"


def test_errors_come_first_and_the_report_survives_json() -> None:
    bad: Row = ("train/x", "damaged", 0)
    copy: Row = ("train/copy", image(0), 0)
    report = check(source([copy, *CLEAN_TRAIN, bad], CLEAN_VAL))
    assert [finding.severity for finding in report.findings] == ["error", "warning"]
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_digits_are_fit() -> None:
    assert check(open_source("digits")).findings == ()


def test_the_three_duplicates_of_the_flowers(shared_data: Path) -> None:
    archive = shared_data / "flowers-128.tar.xz"
    digests: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                digests[member.name] = hashlib.sha256(content.read()).hexdigest()
    twice = {digest for digest, count in Counter(digests.values()).items() if count > 1}
    expected = {
        frozenset(name for name, digest in digests.items() if digest == one) for one in twice
    }
    finding = found(check(open_source(str(archive))))
    assert len(expected) == finding["duplicate"].count == 3
    assert {frozenset(group) for group in ids(finding["duplicate"])} == expected
    assert "leak" not in finding
    assert finding["conflicting-labels"].count == 1
    assert finding["near-leak"].count + finding["near-duplicate"].count == 13


@pytest.mark.parametrize("seed", [1, 2])
def test_no_duplicate_crosses_a_seeded_split(shared_data: Path, seed: int) -> None:
    splits = open_source(str(shared_data / "flowers-128.tar.xz"), seed=seed).splits
    homes: dict[str, set[str]] = {}
    for name, dataset in splits.items():
        for index in range(len(dataset)):
            digest = hashlib.sha256(dataset.read_bytes(index)).hexdigest()
            homes.setdefault(digest, set()).add(name)
    assert all(len(split) == 1 for split in homes.values())


def test_the_photos_are_fit(shared_data: Path) -> None:
    report = check(open_source(str(shared_data / "flowers")))
    assert report.findings == report.notes == ()


def test_masks_are_looked_at(tmp_path: Path) -> None:
    """One that cannot be drawn is a finding, and none is a crash."""
    scenes = [Scene(f"{i}{s.stem}", s.size, s.objects) for i in range(4) for s in SCENES]
    write_indices(tmp_path, scenes)
    (tmp_path / "masks" / "1one.png").write_bytes(b"x")
    report = check(open_source(str(tmp_path)))
    (found,) = [one for one in report.findings if one.kind == "unreadable"]
    assert "masks/1one.png" in found.samples[0].note
    names = label_names(open_labelled(str(tmp_path)).targets[0], ("field", "road", "house"))
    assert names == ("1 field", "1 road")
