"""The report of a fabricated transcriber."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from test_report import Page, write_run
from vitrail.backbones.vit import PatchStemConfig, ViTConfig
from vitrail.data.augment import AugmentConfig, PadCrop
from vitrail.data.dataset import Dataset, Source
from vitrail.data.preprocess import HALF, Line, Preprocess
from vitrail.errors import BadSampleError
from vitrail.evaluate import Evaluation
from vitrail.metrics.transcription import transcription_metrics
from vitrail.model import Model, ModelConfig
from vitrail.predict import Row
from vitrail.report import write_report
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.types import Sample, Skipped, Transcription

SIZE = (8, 48)
TEXTS = ("1<2", "12", "2211", "121", "<<", "2")
READ = ("1<1", "12", "2111", "11", "<2<", "")
SCORES = (0.9, 0.99, 0.5, 0.7, 0.3, 0.1)


class Lines(Dataset):
    """Wide noise with texts; one image cannot be read."""

    multilabel = False
    text = True

    def __init__(self, split: str, texts: Sequence[str], alphabet: str, bad: int = -1) -> None:
        self.classes, self.bad = tuple(alphabet), bad
        self.ids = [f"{split}/{i}" for i in range(len(texts))]
        self.targets = list(texts)

    def read(self, index: int) -> Sample:
        if index == self.bad:
            raise BadSampleError("truncated")
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8, generator=generator)
        return Sample(self.ids[index], image.permute(2, 0, 1), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        return b""


def fabricate(
    run: Path,
    *,
    texts: Sequence[str] = TEXTS,
    read: Sequence[str] = READ,
    scores: Sequence[float] = SCORES,
    alphabet: str = "12<",
) -> str:
    """The report of a run whose answers are given."""
    torch.manual_seed(0)
    backbone = ViTConfig(
        image_size=SIZE, stem=PatchStemConfig(patch_size=8), width=16, depth=1, heads=2
    )
    task = TranscribeConfig(alphabet=tuple(alphabet), width=16, depth=1, heads=2)
    preprocess = Preprocess(resize=Line(size=SIZE), mean=HALF, std=HALF)
    model = Model(ModelConfig(backbone=backbone, task=task, preprocess=preprocess))
    test = Lines("test", [*texts, "12"], alphabet, bad=len(texts))
    splits: dict[str, Dataset] = {
        "train": Lines("train", TEXTS, alphabet),
        "val": Lines("val", TEXTS, alphabet),
        "test": test,
    }
    source = Source("plates", "csv", "it has texts", splits, ("test",), "abc123")
    rows = [
        Row(name, Transcription(text, score))
        for name, text, score in zip(test.ids, read, scores, strict=False)
    ]
    bad = Skipped(test.ids[-1], "truncated")
    evaluation = Evaluation(
        len(texts),
        transcription_metrics(read, list(texts)),
        (*rows, Row(bad.id, error=bad.reason)),
        (bad,),
    )
    write_run(run)
    augment = AugmentConfig(geometry=PadCrop(padding=1))
    path = write_report(
        run, model=model, source=source, evaluation=evaluation, augment=augment, seed=7
    )
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fabricate(tmp_path_factory.mktemp("run"))


def test_the_page_is_well_formed_and_requests_nothing(report: str) -> None:
    page = Page(report)
    assert page.open == []
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(link["href"] and link["href"][1:] in ids for link in page.of("a"))
    assert all("alt" in image for image in page.of("img"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp", report)
    references = re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', report)
    assert {a or b for a, b in references} <= set(ids)
    assert "1<2" not in report.replace("1&lt;2", "")


def test_the_headline_and_every_section(report: str) -> None:
    for text in (
        "vit_nano trained on plates",
        "Exact match on the test images",
        "On 6 test images, 2.5 symbols long on average",
        "read 1 without an error and 5 with at least one; 5 of these are off by a single symbol",
        "Of all symbols, 33.3",
        "texts of 3 symbols",
        "Character error rate",
        "Training loss",
        "Learning rate",
        "of 15 symbols 2 were taken for another and 2 left out; 1 were read where nothing stands",
        "Exact match by length",
        "Expected calibration error",
        "Each patch has a position vector",
        "lr = 0.001",
    ):
        assert text in report, text
    assert "Top-1" not in report
    assert "Temperature" not in report


def test_every_length_has_its_row(report: str) -> None:
    section = report[report.index('id="length"') : report.index('id="confusion"')]
    rows = re.findall(r'<th scope="row" data-value="(\d+)">', section)
    assert rows == ["1", "2", "3", "4"]


def test_confused_symbols_are_counted_on_the_alignment(report: str) -> None:
    section = report[report.index('id="confusion"') : report.index('id="calibration"')]
    body = section[section.index("<tbody>") : section.index("</tbody>")]
    cells = [int(n) for n in re.findall(r'style="--v:[\d.]+">(\d+)', body)]
    # Rows 1, 2, < and nothing; columns 1, 2, < and left out.
    assert cells == [6, 0, 0, 0, 2, 2, 0, 2, 0, 0, 3, 0, 0, 1, 0, 0]
    listed = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in section.split("<li>")[1:]]
    assert listed[0] == "2 → 1 2 of 6"
    assert "2 → left out 2 of 6" in listed
    assert "nothing → 2 1" in " ".join(listed)


def test_mistakes_are_the_most_confident_with_the_wrong_symbols_marked(report: str) -> None:
    section = report[report.index('id="errors"') : report.index('id="augmentation"')]
    shown = [float(v) for v in re.findall(r'class="confidence">([\d.]+)', section)]
    assert shown == [90.0, 70.0, 50.0, 30.0, 10.0]
    symbol = r'<span>(?:<span class="gap">)?(.)(?:</span>)?</span>'
    marked = re.findall(f'class="wrong">{symbol}{symbol}</span>', section)
    assert marked == [("2", "1"), ("2", "–"), ("2", "1"), ("–", "2"), ("2", "–")]
    assert 'aria-label="is 1&lt;2, read as 1&lt;1"' in section
    assert 'aria-label="is 2, read as nothing"' in section


def test_lines_get_rows_of_their_own(report: str) -> None:
    assert report.count('class="strip lines"') == 4
    assert 'class="gallery lines"' in report


def test_a_perfect_reader_is_told_so(tmp_path: Path) -> None:
    text = fabricate(tmp_path, read=TEXTS)
    assert "every test image was read without an error" in text
    assert "none were taken for another and none left out" in text
    assert "No symbol was taken for another" in text


def test_a_large_alphabet_shows_pairs_instead_of_a_matrix(tmp_path: Path) -> None:
    alphabet = "".join(chr(0x4E00 + i) for i in range(40))
    texts, read = [alphabet[:3], alphabet[5:9]], [alphabet[1:3], alphabet[5:8] + alphabet[20]]
    text = fabricate(tmp_path, texts=texts, read=read, scores=(0.5, 0.6), alphabet=alphabet)
    assert "a matrix cannot be read" in text
    assert 'class="matrix"' not in text
    assert f"{alphabet[8]} → {alphabet[20]}" in text
