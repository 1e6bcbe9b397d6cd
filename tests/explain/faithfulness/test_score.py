from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from linear import CELL
from presets import PRESETS, preset_model
from tiny import ListDataset, photo, tiny_config, tiny_model
from vitrail.data.preprocess import Preprocess, TokenBudget
from vitrail.errors import DataError, ExplainError
from vitrail.explain.faithfulness.score import score
from vitrail.explain.faithfulness.scores import Scores
from vitrail.explain.method import Method
from vitrail.explain.relevance import Relevance
from vitrail.explain.rollout import Rollout
from vitrail.model import Model, ModelConfig
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.types import Sample

IMAGES = [photo(seed) for seed in range(9)]


class Known(ListDataset):
    """The evidence of each image is the cell that `places` names; None where nothing is known."""

    places: Sequence[tuple[int, int] | None] = ()

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        place = self.places[index]
        if place is None:
            return sample
        mask = torch.zeros(sample.image.shape[1:], dtype=torch.bool)
        row, column = (CELL * at for at in place)
        mask[row : row + CELL, column : column + CELL] = True
        return Sample(sample.id, sample.image, sample.target, mask)


@dataclass(frozen=True, slots=True)
class Corner(Method):
    """Points at the first cell, whatever is asked."""

    key: ClassVar[str] = "corner"
    name: ClassVar[str] = "Corner"
    paper: ClassVar[str] = "none"

    def explain(self, model: Model, images: Tensor, classes: Sequence[int]) -> Tensor:
        del model, classes
        maps = torch.zeros(len(images), 2, 3)
        maps[:, 0, 0] = 1.0
        return maps


@dataclass(frozen=True, slots=True)
class OfClass(Corner):
    """Points at the cell with the number of the class."""

    key: ClassVar[str] = "of_class"
    name: ClassVar[str] = "Of the class"

    def explain(self, model: Model, images: Tensor, classes: Sequence[int]) -> Tensor:
        del model
        maps = torch.zeros(len(images), 6)
        maps[torch.arange(len(images)), torch.tensor(classes)] = 1.0
        return maps.view(-1, 2, 3)


def timeless(found: Scores) -> str:
    """All but the seconds."""
    table = found.to_dict()
    for method in table["methods"]:
        del method["seconds"]
    return json.dumps(table)


def values(found: Scores, key: str) -> dict[str, float]:
    return {row.label: row.values[key].value for row in found.rows if key in row.values}


def test_baselines_stand_beside_every_method() -> None:
    found = score(tiny_model(), ListDataset(IMAGES), [Relevance(), Rollout(), Relevance()])
    assert [row.label for row in found.rows] == [
        Relevance().name,
        "Attention rollout",
        "Random",
        "Centre",
    ]
    assert found.count == found.asked == 9
    assert found.chance is None
    assert found.skipped == ()
    for row in found.rows:
        assert "pointing" not in row.values
        assert row.seconds >= 0
        for value in row.values.values():
            assert value.count == 9
            assert value.low <= value.value <= value.high
    assert values(found, "randomised")["Centre"] == 1
    first, _, random, _ = found.rows
    gap = first.gaps["random"]["insertion_mean"]
    expected = first.values["insertion_mean"].value - random.values["insertion_mean"].value
    assert gap.value == pytest.approx(expected)
    assert gap.low < gap.value < gap.high
    assert random.gaps == {}
    assert list(found.rows[0].cascade) == ["head", "upper half", "all"]


@pytest.mark.parametrize("batch_size", [2, 4])
def test_all_but_the_seconds_is_a_function_of_the_arguments(batch_size: int) -> None:
    model, data = tiny_model(), ListDataset(IMAGES)
    found = score(model, data, [Relevance()])
    assert timeless(found) == timeless(score(model, data, [Relevance()]))
    other = score(model, data, [Relevance()], batch_size=batch_size)
    for row, same in zip(found.rows, other.rows, strict=True):
        for key, value in row.values.items():
            assert same.values[key].value == pytest.approx(value.value, abs=1e-5), key
    assert timeless(found) != timeless(score(model, data, [Relevance()], seed=1))


def test_unreadable_images_are_counted_and_named() -> None:
    images = [IMAGES[0], None, IMAGES[1], None]
    seen: list[int] = []
    found = score(
        *(tiny_model(), ListDataset(images), [Corner()]),
        batch_size=3,
        progress=seen.append,
    )
    assert (found.asked, found.count) == (4, 2)
    assert {(s.id, s.reason) for s in found.skipped} == {
        ("1.png", "truncated file"),
        ("3.png", "truncated file"),
    }
    assert seen == [3, 4]
    with pytest.raises(DataError, match="none of 2 images can be read"):
        score(tiny_model(), ListDataset([None, None]), [Corner()])


def test_a_larger_draw_holds_the_smaller_one() -> None:
    class Counted(ListDataset):
        def read(self, index: int) -> Sample:
            seen.append(index)
            return super().read(index)

    seen: list[int] = []
    score(tiny_model(), Counted(IMAGES), [], samples=3, seed=5)
    few = set(seen)
    seen.clear()
    assert score(tiny_model(), Counted(IMAGES), [], samples=7, seed=5).count == 7
    assert len(few) == 3
    assert few < set(seen)


def test_localisation_counts_only_where_the_evidence_is_known_and_in_sight() -> None:
    data = Known(IMAGES[:4])
    data.places = [(0, 0), (0, 0), (1, 2), None]
    found = score(tiny_model(), data, [Corner()])
    row = found.rows[0]
    assert row.values["pointing"].count == row.values["energy"].count == 3
    assert row.values["saco"].count == 4
    assert row.values["pointing"].value == row.values["energy"].value == pytest.approx(2 / 3)
    assert found.chance == pytest.approx(1 / 6)
    assert values(found, "pointing")["Random"] < 1


def test_the_predicted_class_or_the_label_is_explained() -> None:
    model = tiny_model(seed=20)
    data = Known(IMAGES, targets=[2] * 9, classes=("ant", "bee", "cat"))
    data.places = [(0, 2)] * 9
    predicted = model(torch.stack(IMAGES)).argmax(dim=1)
    expected = float((predicted == 2).float().mean())
    assert 0 < expected < 1
    found = score(model, data, [OfClass()])
    assert values(found, "pointing")["Of the class"] == pytest.approx(expected)
    named = score(model, data, [OfClass()], explained="label")
    assert values(named, "pointing")["Of the class"] == 1
    assert named.to_dict()["explained"] == "label"


def test_several_labels_are_none_to_explain() -> None:
    targets: list[Any] = [(0, 1)] * 9
    data = ListDataset(IMAGES, targets, ("ant", "bee", "cat"), multilabel=True)
    model = tiny_model(multilabel=True)
    assert score(model, data, [Relevance()]).count == 9
    with pytest.raises(ExplainError, match="no single label; explain the predicted class"):
        score(model, data, [Relevance()], explained="label")


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_is_scored_or_says_why_not(name: str) -> None:
    model = preset_model(PRESETS[name])
    found = score(model, ListDataset([photo(s, 8, 8) for s in range(3)]), [Relevance()])
    labels = [row.label for row in found.rows]
    assert labels[-2:] == ["Random", "Centre"]
    assert (Relevance().name in labels) != (Relevance().name in found.refused)
    assert all("no attention" in reason for reason in found.refused.values())


def test_images_of_several_sizes() -> None:
    backbone = tiny_config()
    config = tiny_model(backbone=backbone).config
    preprocess = Preprocess(resize=TokenBudget(patch=4, tokens=8))
    model = Model(ModelConfig(backbone=backbone, task=config.task, preprocess=preprocess)).eval()
    images = [photo(1), photo(2, 12, 8), photo(3), photo(4, 9, 9)]
    assert score(model, ListDataset(images), [Rollout()]).count == 4


def test_a_model_that_reads_has_no_classes() -> None:
    config = tiny_model().config
    task = TranscribeConfig(alphabet=("a", "b"), width=8, depth=1, heads=2, max_length=4)
    model = Model(ModelConfig(backbone=config.backbone, task=task, preprocess=config.preprocess))
    with pytest.raises(ExplainError, match="this model does transcribe"):
        score(model, ListDataset(IMAGES), [Rollout()])
