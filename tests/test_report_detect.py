"""The report of a fabricated detector, and everything that it has to survive."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector import SIZE, BoxList, scene, tiny_detector
from test_report import EVIL, Page, write_run
from tiny import photo
from vitrail.data.box_augment import BoxAugmentConfig
from vitrail.data.dataset import Dataset, Source
from vitrail.evaluate import Evaluation
from vitrail.metrics.detection import detection_metrics
from vitrail.metrics.detection_confusion import confusion
from vitrail.metrics.detection_pairs import judge
from vitrail.predict import Row
from vitrail.report import write_report
from vitrail.report_answers import Shown, worst_answers, worst_misses
from vitrail.report_judged import count_by_threshold
from vitrail.report_samples import augmented_views, label_names
from vitrail.types import Box, Boxes, Detection, Skipped

CLASSES = ("ant", EVIL)


def found(*answers: tuple[tuple[int, int, int, int], float] | tuple[Any, float, str]) -> Detection:
    """Answers of corners, score and class, which is the first if it is not named."""
    boxes = tuple((float(a), float(b), float(c), float(d)) for (a, b, c, d), *_ in answers)
    labels = tuple(str(rest[0]) if rest else "ant" for _, _, *rest in answers)
    return Detection(
        boxes, labels, tuple(score for _, score, *_ in answers), tuple(range(len(boxes)))
    )


TRUTH = (
    scene((2, 2, 12, 12, 0), (20, 8, 40, 28, 1)),
    scene((0, 0, 8, 8, 0), (30, 2, 46, 14, 0)),
    scene(),
    scene((10, 10, 30, 30, 1), (4, 4, 9, 9, 1)),
)
"""Two, two, no and two objects."""

FOUND = (
    found(((2, 2, 12, 12), 0.9), ((21, 8, 40, 28), 0.8, EVIL), ((0, 20, 9, 31), 0.7)),
    found(((0, 0, 8, 8), 0.95), ((31, 2, 46, 14), 0.6, EVIL)),
    found(((5, 5, 20, 20), 0.99)),
    found(((10, 11, 30, 30), 0.75, EVIL)),
)
"""Four are right, two about nothing, one of another class; one object of the last is missed."""


def fabricate(
    run: Path,
    *,
    truth: Sequence[Boxes] = TRUTH,
    answers: Sequence[Detection] = FOUND,
    classes: Sequence[str] = CLASSES,
    readout: str = "deformable",
    fit: bool = False,
    unreadable: bool = False,
) -> str:
    """The report of a run whose answers are given."""
    model = tiny_detector(readout, classes=classes, fit=fit)
    images = [photo(i, *SIZE) for i in range(len(truth))]
    train = BoxList([*images, None], [*truth, scene((1, 1, 5, 5, 0))], classes)
    train.dropped = [Skipped("0.png", f"box 2 of class {EVIL}: no area")]
    gone = [None] * len(truth) if unreadable else images
    test = BoxList([*gone, None], [*truth, scene()], classes)
    splits: dict[str, Dataset] = {"train": train, "val": BoxList(images, truth, classes)}
    source = Source("cells", "COCO JSON", "it has one", splits | {"test": test}, ("test",), "abc")
    rows = [Row(name, answer) for name, answer in zip(test.ids, answers, strict=False)]
    bad = [Skipped(name, "truncated") for name in test.ids[len(truth) :]]
    evaluation = Evaluation(
        len(truth),
        detection_metrics(list(answers), list(truth), classes),
        (*rows, *(Row(one.id, error=one.reason) for one in bad)),
        tuple(bad),
    )
    write_run(run)
    augment = BoxAugmentConfig(hflip=0.5, mosaic=0.5)
    path = write_report(
        run, model=model, source=source, evaluation=evaluation, augment=augment, seed=7
    )
    return path.read_text("utf-8")


def section(report: str, name: str) -> str:
    start = report.index(f'<section id="{name}"')
    return report[start : report.index("</section>", start)]


def plain(text: str) -> str:
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", text).split())


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
    assert all(svg.get("aria-label") for svg in page.of("svg"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp", report)
    references = re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', report)
    assert {a or b for a, b in references} <= set(ids)
    assert EVIL not in report


def test_the_headline_in_words(report: str) -> None:
    text = plain(report)
    # Five answers from there on, four of them right: no other score has a better F1.
    assert "Of 6 objects in 4 test images it found 4, with 1 false alarm, when" in text
    assert "from a score of 0.75 on" in text
    assert "AP50" in text
    assert "COCO JSON, 2 classes of objects" in text


def test_the_chosen_threshold_has_the_figures_of_the_metrics() -> None:
    result = detection_metrics(FOUND, TRUTH, CLASSES, intervals=False)
    counts = count_by_threshold(FOUND, TRUTH, CLASSES, result.threshold)
    at = counts.thresholds.index(result.threshold)
    given, right = (sum(row[at] for row in table) for table in (counts.given, counts.right))
    assert result.overall.best is not None
    assert right / given == pytest.approx(result.overall.best.precision)
    assert right / sum(counts.support) == pytest.approx(result.overall.best.recall)
    assert [row[0] for row in counts.given] == [4, 3]  # from a score of 0 on: everything
    assert [row[-1] for row in counts.given] == [0, 0]


def test_the_script_has_what_it_computes_from(report: str) -> None:
    (text,) = re.findall(r'<script type="application/json" id="scores">(.*?)</script>', report)
    scores = json.loads(text)
    assert scores["support"] == [3, 3]
    (slider,) = (tag for tag in Page(report).of("input") if tag.get("id") == "threshold")
    assert int(slider["max"] or 0) == len(scores["thresholds"]) - 1
    assert int(slider["value"] or 0) == scores["best"]
    figures = re.findall(r'data-figure="(\w+)"', section(report, "classes"))
    assert figures == ["found", "alarms", "precision", "recall", "f1"] * 3
    script = report[report.rindex("<script>") :]
    for name in set(figures):
        assert name in script


def random_case(seed: int) -> tuple[Detection, Boxes]:
    rng = np.random.default_rng(seed)

    def corners() -> Any:
        low, size = rng.random(2) * 20, 4 + rng.random(2) * 12
        return (*low.tolist(), *(low + size).tolist())

    items = tuple(
        Box(corners(), int(rng.integers(3)), crowd=bool(rng.random() < 0.2)) for _ in range(6)
    )
    boxes = tuple(corners() for _ in range(8)) + tuple(box.corners for box in items[:3])
    labels = tuple("abc"[int(i)] for i in rng.integers(3, size=len(boxes)))
    scores = tuple(rng.permutation(len(boxes)).astype(float) / len(boxes))
    return Detection(boxes, labels, scores), Boxes(items, (40, 40))


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_judged_as_the_confusion_counts_them(seed: int) -> None:
    answer, target = random_case(seed)
    table = np.zeros((4, 4), dtype=int)
    judged = judge(answer, target, "abc", 0.3)
    for one in judged.answers:
        column = "abc".index(answer.labels[one.number])
        if one.verdict != "crowd":
            row = -1 if one.about is None else target.items[one.about].label
            table[row, column] += 1
    for number in judged.missed:
        table[target.items[number].label, -1] += 1
    assert table.tolist() == [list(row) for row in confusion([answer], [target], "abc", 0.3)]


def test_misses_and_false_alarms_are_drawn_with_what_their_query_saw(report: str) -> None:
    misses = section(report, "misses")
    assert misses.count('class="missed"') >= 2  # in the picture, perhaps over the map, in the key
    assert "missed" in plain(misses)
    assert re.search(r"\d+ x \d+ pixels", misses)
    alarms = section(report, "alarms")
    shown = [float(v) for v in re.findall(r'class="confidence">([\d.]+)', alarms)]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == 99.0
    assert "nothing is labelled there" in alarms
    assert "relative difference of at most" in alarms


def test_the_gallery_says_what_was_found(report: str) -> None:
    gallery = section(report, "gallery")
    assert gallery.count("<figure") == 4
    assert "no object" in gallery
    assert 'class="truth"' in gallery
    assert 'class="right"' in gallery


def test_the_data_in_figures(report: str) -> None:
    text = plain(section(report, "data"))
    assert "train 5 1 7 2 7 0 0 0 1" in text
    assert "no area" in text


def test_augmented_samples_have_their_boxes(report: str) -> None:
    views = section(report, "augmentation")
    assert views.count('class="marked"') >= 12
    assert "1 ant" in views
    assert "no object" in views


@pytest.mark.parametrize("readout", ["two scales", "dense", "tokens"])
@pytest.mark.parametrize("fit", [False, True])
def test_every_kind_of_detector_shows_where_it_looked(readout: str, *, fit: bool) -> None:
    model = tiny_detector(readout, classes=CLASSES, fit=fit)
    test = BoxList([photo(i, *SIZE) for i in range(4)], TRUTH, CLASSES)
    shown = [
        Shown(i, answer, target, judge(answer, target, CLASSES, 0.5))
        for i, (answer, target) in enumerate(zip(FOUND, TRUTH, strict=True))
    ]
    misses, error = worst_misses(model, test, shown)
    assert [case.label for case in misses] == [EVIL]
    alarms, other = worst_answers(model, test, shown)
    assert [case.score for case in alarms] == [0.99, 0.7, 0.6]
    assert [case.detail for case in alarms] == ["nothing is labelled there"] * 2 + ["it is ant"]
    assert max(error or 0, other or 0) < 1e-5
    assert all(len(case.looked.marks) == 1 for case in [*misses, *alarms] if case.looked)


NOTHING = found()


@pytest.mark.parametrize(
    ("truth", "answers", "words"),
    [
        (TRUTH, [NOTHING] * 4, "it found none, with no false alarms"),
        ([scene()] * 2, [NOTHING] * 2, "There is no object in the 2 test images"),
        ([scene()] * 2, FOUND[1:3], "there are 3 false alarms"),
        (
            TRUTH[:1],
            [found(((2, 2, 12, 12), 0.9), ((20, 8, 40, 28), 0.8, EVIL))],
            "every answer from 0.80 on is right",
        ),
    ],
    ids=["no answers", "nothing at all", "only false alarms", "perfect"],
)
def test_it_survives(
    tmp_path: Path, truth: Sequence[Boxes], answers: Sequence[Detection], words: str
) -> None:
    text = fabricate(tmp_path, truth=truth, answers=answers)
    assert Page(text).open == []
    assert words in plain(text)


def test_it_survives_one_class(tmp_path: Path) -> None:
    answers = [found(((0, 0, 8, 8), 0.5))]
    text = fabricate(tmp_path, truth=TRUTH[1:2], answers=answers, classes=["ant"])
    assert "pr-0" not in text


def test_it_survives_many_classes(tmp_path: Path) -> None:
    text = fabricate(tmp_path, classes=["ant", EVIL, *(f"class {i}" for i in range(90))])
    assert "No object was taken for one of another class" in text
    assert 'class="matrix"' not in text
    assert text.count("data-class=") == 92
    assert len(text) < 1_500_000


def test_it_survives_test_images_that_are_gone(tmp_path: Path) -> None:
    text = plain(fabricate(tmp_path, unreadable=True))
    assert "None of the images with wrong answers could be read again" in text
    assert "No test image could be read again" in text


def test_labels_of_boxes_are_counted() -> None:
    data = BoxList([photo(0, *SIZE)], [scene((1, 1, 2, 2, 0), (1, 1, 3, 3, 1), (2, 2, 9, 9, 1))])
    assert label_names(data, data.targets[0]) == ["2 bee", "1 ant"]


def test_views_are_those_of_the_run() -> None:
    model = tiny_detector()
    boxes = scene((4, 4, 20, 20, 0))
    data = BoxList([photo(0, *SIZE)] * 2, [boxes, boxes])
    views = augmented_views(model, data, BoxAugmentConfig(hflip=1.0), seed=0, epochs=3)
    (original,), (_, flipped) = views[0].original.marks, views[0].views[0]
    assert flipped.marks[0].left == pytest.approx(1 - original.left - original.width)
    assert torch.get_default_dtype() == torch.float32
