"""Two processes measure what one measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from scenes import tiny_detector
from tiny import BoxSet, ListDataset, photo, tiny_model
from vitrail.data.dataset import Dataset
from vitrail.data.workers import Serial
from vitrail.errors import BadSampleError
from vitrail.evaluate import Evaluation, evaluate
from vitrail.evaluate_distributed import evaluate_distributed
from vitrail.model import Model
from vitrail.types import Box, Boxes, Sample

CLASSES = ("ant hill", "cat", "dog")
TASKS = ("classify", "detect")


class Torn(BoxSet):
    """Photos that do not depend on the boxes; one cannot be read."""

    def read(self, index: int) -> Sample:
        if index == 3:
            raise BadSampleError("truncated file")
        return Sample(self.ids[index], photo(index, 16, 24), self.targets[index])


def case(task: str) -> tuple[Model, Dataset]:
    """A model and 7 images, which no two processes can share evenly."""
    if task == "classify":
        images = [None if i == 3 else photo(i, 8 + i, 14) for i in range(7)]
        dataset = ListDataset(images, [i % 3 for i in range(7)], CLASSES)
        return tiny_model(CLASSES), dataset
    model = tiny_detector(CLASSES)
    plain = Torn(CLASSES, [Boxes() for _ in range(7)])
    rows = evaluate(model, plain, batch_size=1, workers=Serial(), intervals=False).rows
    # Its own answers, moved, are the truth: random weights would find nothing.
    targets = [
        Boxes(
            tuple(
                Box((x1, y1, x2, y2 + 0.2 * (place % 4)), CLASSES.index(label))
                for place, ((x1, y1, x2, y2), label) in enumerate(
                    zip(row.prediction.boxes[:3], row.prediction.labels[:3], strict=True)
                )
                if x2 > x1 and y2 > y1
            )
            if row.prediction
            else ()
        )
        for row in rows
    ]
    return model, Torn(CLASSES, targets)


def as_text(found: Evaluation) -> str:
    rows = [row.to_dict() for row in found.rows]
    bad = [skipped.id for skipped in found.quarantined]
    return json.dumps([found.count, found.result.model_dump(mode="json"), rows, bad])


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for task in TASKS:
        model, dataset = case(task)
        # A batch an image: in larger ones the last digits depend on the neighbours.
        found = evaluate_distributed(model, dataset, batch_size=1, workers=Serial())
        Path(folder, f"{task}{rank}.json").write_text(as_text(found), encoding="utf-8")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes found; they are started once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("group")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the other processes, so that sums are the same to the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_measure_what_one_measures(task: str, written: Path) -> None:
    model, dataset = case(task)
    alone = evaluate(model, dataset, batch_size=1, workers=Serial())
    first, second = (json.loads((written / f"{task}{rank}.json").read_text()) for rank in (0, 1))
    assert first == second == json.loads(as_text(alone))
    assert first[0] == 6
    assert [row["path"] for row in first[2]] == list(dataset.ids), "no image twice, none missing"
    assert first[3] == [dataset.ids[3]]
    if task == "detect":
        assert 0.1 < alone.metrics["map"] <= 1
