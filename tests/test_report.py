"""The report of a fabricated classifier: complete, offline, escaped, honest about what it lacks."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from presets import PRESETS
from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.vit import (
    ConvStemConfig,
    Learned1dConfig,
    PatchStemConfig,
    PositionsConfig,
    Rotary2dConfig,
    StemConfig,
    ViTConfig,
)
from vitrail.data.augment import Augment, AugmentConfig, PadCrop
from vitrail.data.dataset import Dataset, Source
from vitrail.data.loader import Loader, on_image
from vitrail.data.order import Shuffled
from vitrail.data.preprocess import HALF, CenterCrop, Preprocess
from vitrail.data.workers import Serial
from vitrail.errors import BadSampleError
from vitrail.evaluate import Evaluation
from vitrail.explain.layers import attention_layers
from vitrail.explain.positions import describe_positions
from vitrail.metrics.classification import classification_metrics
from vitrail.model import Model, ModelConfig
from vitrail.predict import Row
from vitrail.report import duration, write_report
from vitrail.report_samples import augmented_views, percent
from vitrail.tasks.classify import ClassifyConfig
from vitrail.types import Sample, Skipped, Target

EVIL = "<script>alert(1)</script>"
SIZE = 12
LEARNED, PATCHES = Learned1dConfig(), PatchStemConfig(patch_size=4)


class Noise(Dataset):
    """Random images with random labels; some of them cannot be read."""

    def __init__(
        self, split: str, count: int, classes: Sequence[str], *, multilabel: bool, bad: int = -1
    ) -> None:
        rng = np.random.default_rng(0)
        self.classes, self.multilabel, self.bad = tuple(classes), multilabel, bad
        self.ids = [f"{split}/{i}" for i in range(count)]
        if multilabel:
            rows = rng.random((count, len(classes))) < 0.4
            self.targets: list[Target] = [tuple(map(int, np.flatnonzero(row))) for row in rows]
        else:
            self.targets = [int(t) for t in rng.integers(0, len(classes), count)]

    def read(self, index: int) -> Sample:
        if index == self.bad:
            raise BadSampleError("truncated")
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
        return Sample(self.ids[index], image.permute(2, 0, 1), self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        return b""

    def stored_size(self, index: int) -> int:
        return 0


def fabricate(
    run: Path,
    classes: Sequence[str] = ("cat", "dog", "cow"),
    *,
    multilabel: bool = False,
    count: int = 60,
    positions: PositionsConfig = LEARNED,
    stem: StemConfig = PATCHES,
    right: bool = False,
    family: BackboneConfig | None = None,
) -> Path:
    """Write the report of a run that never was: a fresh model and random predictions."""
    torch.manual_seed(0)
    size = (SIZE, SIZE)
    backbone = family or ViTConfig(
        image_size=size, stem=stem, positions=positions, width=16, depth=2, heads=2
    )
    task = ClassifyConfig(classes=tuple(classes), multilabel=multilabel, temperature=1.3)
    preprocess = Preprocess(resize=CenterCrop(size=size, crop_pct=1), mean=HALF, std=HALF)
    model = Model(ModelConfig(backbone=backbone, task=task, preprocess=preprocess))
    splits: dict[str, Dataset] = {
        "train": Noise("train", 20, classes, multilabel=multilabel, bad=3),
        "val": Noise("val", 10, classes, multilabel=multilabel),
        "test": Noise("test", count, classes, multilabel=multilabel, bad=1),
    }
    source = Source("pets", "folder of classes", "it has one", splits, ("test",), "abc123")
    write_run(run)
    return write_report(
        run,
        model=model,
        source=source,
        evaluation=_evaluation(model, splits["test"], right=right),
        augment=AugmentConfig(geometry=PadCrop(padding=2)),
        seed=7,
    )


def _evaluation(model: Model, test: Dataset, *, right: bool) -> Evaluation:
    task = model.config.task
    logits = torch.randn(len(test), len(task.classes), generator=torch.Generator().manual_seed(1))
    if right:
        logits = 30 * model.task.encode(test.targets) - 15
    predictions = model.task.postprocess(logits)
    rows = [Row(name, p) for name, p in zip(test.ids, predictions, strict=True)]
    rows[1] = Row(test.ids[1], error="truncated")
    good = [i for i in range(len(rows)) if i != 1]
    scores = np.array([list(predictions[i].scores.values()) for i in good])
    result = classification_metrics(
        scores, [test.targets[i] for i in good], task.classes, multilabel=task.multilabel
    )
    return Evaluation(len(good), result, tuple(rows), (Skipped(test.ids[1], "truncated"),))


def write_run(run: Path) -> None:
    """What training leaves in a run folder, as far as the report reads it."""
    info = {
        "command": f"vitrail train pets --set data.note='{EVIL}'",
        "started": "2026-01-02T03:04:05",
        "seconds": 102.4,
        "versions": {"python": "3.11.2", "torch": "2.13"},
        "model": "vit_nano",
        "params": 12345,
        "recipe": "small-images",
        "recipe_reason": "images of 12 pixels",
        "best_epoch": 1,
        "selection_metric": "top1",
        "key_of_a_later_version": 1,
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps(info))
    (run / "config.toml").write_text("[optim]\nlr = 0.001\n")
    lines: list[str] = []
    for epoch in range(3):
        for step in range(5 * epoch + 1, 5 * epoch + 6):
            row = {"kind": "step", "epoch": epoch, "step": step, "loss": 1 / step, "lr": 1e-3}
            lines.append(json.dumps(row | {"images_per_second": 900.0}))
        done = {
            "kind": "epoch",
            "epoch": epoch,
            "step": 5 * epoch + 5,
            "train_loss": 1 / (epoch + 1),
        }
        lines.append(json.dumps(done | {"seconds": 1.0, "val": {"top1": 0.5 + epoch / 10}}))
    (run / "metrics.jsonl").write_text("\n".join([*lines[:4], lines[0], *lines[4:], '{"kind": "s']))
    with (run / "quarantine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [
                ("split", "id", "reason"),
                ("train", f"a{EVIL}.jpg", "no\nimage"),
                ("test", "test/1", "x"),
            ]
        )


class Page(HTMLParser):
    """Tags with their attributes, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = fabricate(tmp_path_factory.mktemp("run"), ("cat", EVIL, "a & b"))
    assert path.name == "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_accessible(report: str) -> None:
    page = Page(report)
    assert page.open == []
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.of("a")]
    assert all(link and link.startswith("#") and link[1:] in ids for link in links)
    assert all("alt" in image for image in page.of("img"))
    assert all(svg.get("aria-label") for svg in page.of("svg"))
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
    references = re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', report)
    assert {a or b for a, b in references} <= set(ids)


def test_the_page_requests_nothing(report: str) -> None:
    page = Page(report)
    sources = [
        a[k] for _, a in page.tags for k in ("src", "href", "xlink:href", "action") if k in a
    ]
    assert all(str(source).startswith(("data:", "#")) for source in sources)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp", report)
    assert len(report) < 1_000_000


def test_text_from_data_is_escaped_and_only_our_script_may_run(report: str) -> None:
    assert EVIL not in report
    assert report.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert len(Page(report).of("script")) == 1
    assert "script-src 'sha256-" in report


def test_every_section_is_there(report: str) -> None:
    for text in (
        "vit_nano trained on pets",
        "12,345 parameters",
        "1 min 42 s",
        "images of 12 pixels",
        "On 59 test images",
        "Training loss",
        "Validation: Top-1 accuracy",
        "Learning rate",
        "95&nbsp;% interval",
        "Most frequent mix-ups",
        "Temperature 1.30",
        "conservative propagation",
        "a heuristic",
        "principal components",
        "Each patch has a position vector",
        "no\nimage",
        "lr = 0.001",
        "abc123",
    ):
        assert text in report, text
    assert report.count("Conservative propagation over") == 12
    assert "2 files were skipped" in report


def test_errors_are_the_most_confident_ones_in_order(report: str) -> None:
    shown = [float(v) for v in re.findall(r'class="confidence">([\d.]+)', report)]
    assert len(shown) == 12
    assert shown == sorted(shown, reverse=True)
    error = re.search(r"relative difference of at most ([\d.e-]+)", report)
    assert error is not None
    assert float(error[1]) < 1e-4


def test_augmented_views_are_those_that_the_loader_gave() -> None:
    size = (SIZE, SIZE)
    model = Model(
        ModelConfig(
            backbone=ViTConfig(image_size=size, stem=PATCHES, width=16, depth=1, heads=2),
            task=ClassifyConfig(classes=("a", "b")),
            preprocess=Preprocess(resize=CenterCrop(size=size, crop_pct=1)),
        )
    )
    data = Noise("train", 8, ("a", "b"), multilabel=False)
    config = AugmentConfig(geometry=PadCrop(padding=2), hflip=0.5)
    loader = Loader(
        data,
        on_image(Augment(config, model.config.preprocess)),
        batch_size=8,
        order=Shuffled(),
        seed=5,
        workers=Serial(),
        drop_last=False,
        strict=True,
    )
    samples = augmented_views(model, data, config, seed=5, epochs=3)
    assert [sample.label for sample in samples[:2]] == ["b", "a"]
    for epoch in range(3):
        (batch,) = loader.epoch(epoch)
        for sample in samples:
            number, view = sample.views[epoch]
            assert number == epoch + 1
            png = base64.b64decode(view.uri.removeprefix("data:image/png;base64,"))
            shown = torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)
            assert torch.equal(shown, batch.images[batch.ids.index(sample.id)])


def test_pictures_follow_the_colours_of_the_page(report: str) -> None:
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", report))
    assert colours <= {f"var(--{n})" for n in ("text", "muted", "line", "first", "second")} | {
        "none"
    }


def test_many_classes_show_pairs_instead_of_a_matrix(tmp_path: Path) -> None:
    text = fabricate(tmp_path, [f"class {i}" for i in range(40)], count=100).read_text("utf-8")
    assert "a matrix cannot be read" in text
    assert 'class="matrix"' not in text
    assert text.count("Taken for") == 1


def test_multilabel_has_map_and_no_confusion(tmp_path: Path) -> None:
    text = fabricate(tmp_path, multilabel=True).read_text("utf-8")
    assert "Mean average precision" in text
    assert "got every label right" in text
    assert 'id="confusion"' not in text
    assert "wrongly named: " in text
    assert "missed: " in text


def test_a_model_without_errors_or_position_vectors_says_so(tmp_path: Path) -> None:
    stem = ConvStemConfig(widths=(8, 8), strides=(2, 2))
    text = fabricate(tmp_path, positions=Rotary2dConfig(), stem=stem, right=True).read_text("utf-8")
    assert "every test image was predicted right" in text
    assert "No test image was taken for another class" in text
    assert "rotates queries" in text
    assert "The stem is convolutional" in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_a_whole_report(tmp_path: Path, name: str) -> None:
    text = fabricate(tmp_path, family=PRESETS[name]).read_text("utf-8")
    page = Page(text)
    assert page.open == []
    attends = bool(attention_layers(build_backbone(PRESETS[name])))
    assert text.count("Conservative propagation over") == (12 if attends else 0)
    assert text.count("Grad-CAM over") == (0 if attends else 12)
    assert ("has no attention to show" in text) != attends
    assert ("How far each head looks" in text) == attends
    assert describe_positions(PRESETS[name]) in html.unescape(text)
    assert not re.search(r"<figure class=\"card\">\s*<h3>[^<]*</h3>\s*</figure>", text)


def test_multilabel_explains_the_class_that_is_wrong(tmp_path: Path) -> None:
    family = PRESETS["resnet_nano_8"]
    text = fabricate(tmp_path, multilabel=True, family=family).read_text("utf-8")
    assert "label that the model got wrong" in text


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    assert fabricate(tmp_path / "a").read_bytes() == fabricate(tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(47.6, "48 s"), (59.7, "1 min 00 s"), (102.0, "1 min 42 s"), (11_100.0, "3 h 05 min")],
)
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.98611, 2, "98.61 %"),
        (1.0, 1, "100.0 %"),
        (0.0, 1, "0.0 %"),
        (0.99999, 1, ">99.9 %"),
        (0.00001, 2, "<0.01 %"),
        (1 - 1e-15, 1, "100.0 %"),
    ],
)
def test_percent_never_rounds_to_certainty(value: float, digits: int, text: str) -> None:
    assert percent(value, digits) == text.replace(" ", "\u00a0")
