"""The report of a fabricated segmenter, and everything that it has to survive."""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmented import SIZE, MaskList, answer, area_of, tiny_segmenter, truth, void
from test_report import EVIL, Page, write_run
from tiny import photo
from vitrail.data.dataset import Dataset, Source
from vitrail.data.mask_augment import MaskAugmentConfig
from vitrail.evaluate import Evaluation
from vitrail.model import Model
from vitrail.predict import Row
from vitrail.report import write_report
from vitrail.report_samples import augmented_views, label_names
from vitrail.types import Segmentation, Segments, Skipped

Case = tuple[Sequence[Segments], Sequence[Segmentation]]


def fabricate(
    run: Path,
    case: Case,
    *,
    classes: Sequence[str] = ("ant", EVIL),
    unreadable: bool = False,
    **task: Any,
) -> str:
    """The report of a run whose answers are given."""
    model = tiny_segmenter(classes, **task)
    targets, answers = case
    images = [photo(i, *target.size) for i, target in enumerate(targets)]
    kinds: dict[str, Any] = {
        "segments": task.get("answer", "semantic"),
        "background": task.get("background", True),
        "things": task.get("things"),
    }
    train = MaskList([*images, None], [*targets, truth((0, (0, 0, 9, 9)))], classes, **kinds)
    train.dropped = [Skipped("0.png", f"object 2 of class {EVIL}: no area")]
    gone = [None] * len(images) if unreadable else images
    test = MaskList([*gone, None], [*targets, truth()], classes, **kinds)
    splits: dict[str, Dataset] = {"train": train, "val": test, "test": test}
    source = Source("cells", "masks", "it has some", splits, ("test",), "abc")
    write_run(run)
    path = write_report(
        run,
        model=model,
        source=source,
        evaluation=measured(model, test, answers),
        augment=MaskAugmentConfig(hflip=0.5),
        seed=7,
    )
    return path.read_text("utf-8")


def measured(model: Model, test: MaskList, answers: Sequence[Segmentation]) -> Evaluation:
    """An evaluation as `evaluate` gives it; the last image of the data cannot be read."""
    targets = test.targets[: len(answers)]
    bad = Skipped(test.ids[len(answers)], "truncated")
    rows = [Row(name, one) for name, one in zip(test.ids, answers, strict=False)]
    return Evaluation(
        len(answers),
        model.task.measure(answers, targets, intervals=True),
        (*rows, Row(bad.id, error=bad.reason)),
        (bad,),
    )


def section(report: str, name: str) -> str:
    start = report.index(f'<section id="{name}"')
    return report[start : report.index("</section>", start)]


def plain(text: str) -> str:
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", text)).split())


def sure(*levels: tuple[float, tuple[int, int, int, int]]) -> Segmentation:
    """A binary answer: rectangles of a probability, of which those over 0.5 are taken."""
    p = np.zeros(SIZE, dtype=np.uint8)
    for level, part in levels:
        p[area_of(part)] = round(255 * level)
    taken = [("ant", part) for level, part in levels if level >= 0.5]
    return answer(*taken[:1], confidence=zlib.compress(p.tobytes()))


SEMANTIC: Case = (
    (truth((0, (0, 0, 20, 20)), (1, (20, 20, 48, 64))), truth((1, (4, 4, 30, 30)))),
    (answer(("ant", (0, 0, 20, 20)), (EVIL, (20, 20, 48, 64))), answer(("ant", (4, 4, 30, 30)))),
)
"""The first is right throughout; in the second all of one class is taken for the other."""

BINARY: Case = (
    (truth((0, (10, 0, 14, 64))), truth((0, (0, 0, 24, 64))), truth()),
    (
        sure((0.9, (10, 0, 14, 32)), (0.2, (10, 32, 14, 64))),
        sure((0.8, (0, 0, 24, 64))),
        sure((0.3, (0, 0, 5, 5))),
    ),
)
"""Half of a line, all of an area, and nothing where nothing is."""

OBJECTS: Case = (
    (
        truth((0, (0, 0, 10, 10)), (0, (0, 20, 10, 30)), (0, (0, 31, 10, 41))),
        truth((0, (0, 0, 20, 20)), (1, (30, 30, 40, 40)), (0, (40, 0, 44, 4))),
    ),
    (
        answer(("ant", (0, 0, 10, 9)), ("ant", (0, 20, 10, 41))),
        answer(
            ("ant", (0, 0, 20, 8)),
            ("ant", (0, 9, 20, 17)),
            ("ant", (30, 30, 40, 41)),
            ("ant", (40, 50, 44, 60)),
            ("ant", (40, 0, 44, 4), 0.1),
        ),
    ),
)
"""One found, two merged; one split, one of another class, one below the threshold; one wrong."""


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fabricate(tmp_path_factory.mktemp("run"), SEMANTIC)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fabricate(tmp_path_factory.mktemp("run"), BINARY, classes=["ant"])


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fabricate(tmp_path_factory.mktemp("run"), OBJECTS, answer="instance")


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("run")
    return fabricate(run, SEMANTIC, answer="panoptic", things=(True, False))


@pytest.mark.parametrize("kind", ["semantic", "binary", "objects", "panoptic"])
def test_the_page_is_well_formed_and_requests_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    report: str = request.getfixturevalue(kind)
    page = Page(report)
    assert page.open == []
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(link["href"] and link["href"][1:] in ids for link in page.of("a"))
    assert all("alt" in image for image in page.of("img"))
    assert all((image["src"] or "").startswith("data:") for image in page.of("img"))
    assert all(svg.get("aria-label") for svg in page.of("svg"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp", report)
    assert EVIL not in report
    assert "no area" in section(report, "dropped")


def test_classes_in_words(semantic: str) -> None:
    text = plain(semantic)
    assert "Mean IoU on the test images" in text
    assert "“ant” worst" in text
    assert "masks of 2 classes and background" in text


def test_the_worst_image_comes_first(semantic: str) -> None:
    worst = section(semantic, "worst")
    assert worst.index("1.png") < worst.index("0.png")
    assert "Dice 0.0 %" in plain(worst)
    # 26 x 26 of 48 x 64 pixels.
    assert "22.0 % of its pixels wrong" in plain(worst)
    assert worst.count("<img") == 8


def test_what_is_taken_for_what(semantic: str) -> None:
    text = section(semantic, "confusion")
    # 676 pixels of 676 + 28 x 44.
    assert f"{EVIL} → ant 35.4 % of {EVIL}" in plain(text)
    assert 'class="matrix"' in text


def test_a_binary_set_by_threshold(binary: str) -> None:
    text = plain(binary)
    # Half of 256 and all of 1536 pixels.
    assert "Of the pixels that are ant it found 92.9 %, and 100.0 % of those" in text
    found = plain(section(binary, "threshold"))
    assert "threshold of 0.50 in the model file: precision 100.0 %, recall 92.9 %" in found
    assert 'id="pr-' in binary
    assert 'id="by-threshold-' in binary
    assert "0.20 would have the best F1, 99.3 %" in found


def test_a_broken_line_is_told(binary: str) -> None:
    worst = plain(section(binary, "worst"))
    # The centreline of a rectangle ends a little before the rectangle.
    assert "in 1 piece, the truth in 1; 49 % of its centreline missing 0.png" in worst
    assert "clDice" in worst
    assert "nothing to find" in worst


def test_objects_are_found_merged_split_and_mistaken(objects: str) -> None:
    text = plain(objects)
    assert (
        "Of 6 objects in 2 test images it found 1, missed 1, merged 2 with others, split 1 and "
        "took 1 for another class; 5 answers found nothing, when answers count from a score of "
        "0.50 on." in text
    )
    assert "small, up to 32 x 32 pixels 6 1" in plain(section(objects, "objects"))
    assert "ant" in section(objects, "confusion")
    assert "3 objects: 1 found, 2 merged with others, 1 wrong answer" in text
    assert "3 objects: none found, 1 missed, 1 split, 1 taken for another class, 4 wrong" in text


def test_segments_of_panoptic_answers(panoptic: str) -> None:
    text = plain(panoptic)
    assert "Panoptic quality (PQ) on the test images" in text
    assert "Of 3 segments in 2 test images it found 2, missed none and took 1" in text
    assert "PQ of objects" in text


def test_augmented_samples_have_their_masks(objects: str) -> None:
    views = section(objects, "augmentation")
    assert "3 ant" in views
    assert views.count("<img") >= 8


NOTHING = answer()


@pytest.mark.parametrize(
    ("case", "task", "words"),
    [
        ((SEMANTIC[0], [NOTHING] * 2), {}, "It took"),
        (([void((0, 0, *SIZE))], [NOTHING]), {}, "their masks are void throughout"),
        (([truth()], [NOTHING]), {"answer": "instance"}, "There is nothing to find in the 1"),
        ((OBJECTS[0], [NOTHING] * 2), {"answer": "instance"}, "it found none, missed 6"),
        (([truth()], [sure()]), {"classes": ["ant"]}, "so that nothing can be found"),
        (
            ([truth((0, (0, 0, 20, 64)), (1, (20, 0, 48, 64)))], [SEMANTIC[1][0]]),
            {"background": False},
            "masks of 2 classes",
        ),
    ],
    ids=["no answers", "void", "no objects", "no objects found", "empty", "no background"],
)
def test_it_survives(tmp_path: Path, case: Case, task: dict[str, Any], words: str) -> None:
    text = fabricate(tmp_path, case, **task)
    assert Page(text).open == []
    assert words in plain(text)


def test_it_survives_test_images_that_are_gone(tmp_path: Path) -> None:
    many = ([*SEMANTIC[0]] * 5, [*SEMANTIC[1]] * 5)
    text = plain(fabricate(tmp_path, many, unreadable=True))
    assert "None of the images could be read again" in text
    assert "No test image could be read again" in text


def test_random_images_are_shown_where_there_are_more_than_the_worst(tmp_path: Path) -> None:
    text = fabricate(tmp_path, ([*SEMANTIC[0]] * 5, [*SEMANTIC[1]] * 5))
    assert section(text, "worst").count("<figure") == 8
    assert section(text, "gallery").count("<figure") == 6


def test_it_survives_many_classes(tmp_path: Path) -> None:
    classes = ["ant", EVIL, *(f"class {i}" for i in range(90))]
    text = fabricate(tmp_path, SEMANTIC, classes=classes)
    assert 'class="matrix"' not in text
    assert "With 92 classes a matrix cannot be read" in text


def test_large_images_are_shown_reduced(tmp_path: Path) -> None:
    size = (1500, 1000)
    case = (
        [truth((0, (0, 0, 700, 900)), size=size)],
        [answer(("ant", (0, 0, 1400, 900)), size=size)],
    )
    text = fabricate(tmp_path, case)
    widths = [int(image["width"] or 0) for image in Page(section(text, "worst")).of("img")]
    assert max(widths) == 480
    assert len(text) < 1_500_000


def test_labels_of_segments() -> None:
    target = truth((1, (0, 0, 9, 9)), (1, (20, 20, 30, 30)), (0, (40, 40, 44, 44)))
    data = MaskList([photo(0, *SIZE)], [target])
    assert label_names(data, target) == ["bee", "ant"]
    data.segments = "instance"
    assert label_names(data, target) == ["2 bee", "1 ant"]


def test_only_some_masks_are_read_for_the_samples() -> None:
    count = 100
    target = truth((0, (0, 0, 20, 20)))
    data = MaskList([photo(0, *SIZE)] * count, _Watched([target] * count))
    views = augmented_views(tiny_segmenter(), data, MaskAugmentConfig(), seed=0, epochs=3, most=2)
    assert len(views) == 2
    assert isinstance(data.targets, _Watched)
    assert len(data.targets.seen) <= 42


class _Watched(list[Segments]):
    """Targets that know which of them were asked for."""

    def __init__(self, targets: Sequence[Segments]) -> None:
        super().__init__(targets)
        self.seen: set[int] = set()

    def __getitem__(self, index: Any) -> Any:
        self.seen.add(index)
        return super().__getitem__(index)
