"""The ladder of thin structures: each arm is what it says, and a run tells all measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mask_formats import put_image, put_mask
from segmenter import SegmentList
from tiny import photo
from vitrail.data.open import open_labelled, open_source
from vitrail.data.roads import Roads
from vitrail.errors import ConfigError
from vitrail.model import Model
from vitrail.studies.data import Given, Scenes, described
from vitrail.studies.examples import busiest_window, coloured, most_foreground
from vitrail.studies.result import conclude
from vitrail.studies.study import Job
from vitrail.studies.thin import THIN, _insist_one_class, truths
from vitrail.studies.worker import carry_out
from vitrail.tasks.segment import Segment
from vitrail.train.choose import choose_recipe
from vitrail.train.run import run_model_config
from vitrail.types import Segments

STRIDES = {
    "vit16_linear": (16, 16),
    "vit16_pixels": (16, 1),
    "vit8_linear": (8, 8),
    "t2t16_linear": (16, 16),
    "conv16_linear": (16, 16),
    "decoder4": (16, 4),
    "skip2": (16, 2),
    "skip2_cldice": (16, 2),
}
"""Pixels a token, and pixels a logit."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Scenes(train=8, val=4, test=4).prepare(tmp_path_factory.mktemp("s") / "data", None)


def test_scenes_are_the_first_of_roads(scenes: str) -> None:
    source = open_source(scenes)
    assert {name: len(part) for name, part in source.splits.items()} == {
        "train": 8,
        "val": 4,
        "test": 4,
    }
    drawn = Roads(sizes={"train": 8, "val": 4, "test": 4})
    for name, part in source.splits.items():
        for place, index in enumerate(drawn.published[name]):
            found, wanted = part.read(place), drawn.read(index)
            assert torch.equal(found.image, wanted.image)
            assert (truths(part)[place] == (drawn.draw(index).ids[0] > 0).numpy()).all()
    folder = Path(scenes)
    table = folder / "scenes.csv"
    table.write_text("kept")
    assert Scenes(train=8, val=4, test=4).prepare(folder, "roads") == scenes
    assert table.read_text() == "kept", "what is there is not written again"
    assert described(folder) == "the first scenes of roads: 8 train, 4 val, 4 test"
    assert Scenes(train=9, val=4, test=4).prepare(folder, "other.csv") == "other.csv"
    Scenes(train=8, val=4, test=5).prepare(folder, None)
    assert len(table.read_text().splitlines()) == 18
    Scenes(train=8, val=4, test=4).prepare(folder, None)


def test_void_and_nothing_are_refused(tmp_path: Path) -> None:
    for number in range(6):
        put_image(tmp_path / "images" / f"{number}.png", (8, 8))
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[number % 3 :, :2] = 1
        mask[:, 6] = 255
        put_mask(tmp_path / "masks" / f"{number}.png", mask)
    with pytest.raises(ConfigError, match="some pixels are void"):
        _insist_one_class(open_labelled(str(tmp_path)), "data")
    target = Segments(torch.zeros((1, 4, 4), dtype=torch.int16), ())
    empty = SegmentList([photo(0, 4, 4)], [target], kind="semantic", classes=("road",))
    with pytest.raises(ConfigError, match="no mask of the test part shows anything"):
        _insist_one_class(empty, "data")


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_every_arm_has_the_strides_that_its_name_says(scenes: str, scale: str) -> None:
    plan, source = THIN.plans[scale], open_source(scenes)
    params: dict[str, int] = {}
    for arm in plan.arms:
        job = Job("thin", scale, arm.name, 0, scenes, Path("out"))
        chosen = choose_recipe(source, name=plan.recipe, overrides=job.overrides(plan))
        with torch.device("meta"):
            model = Model(run_model_config(chosen.recipe, source))
        assert isinstance(model.task, Segment)
        assert (model.backbone.strides[-1], model.task.segmenter.stride) == STRIDES[arm.name]
        assert chosen.recipe.segment is not None
        assert (chosen.recipe.segment.loss.cldice > 0) == (arm.name == "skip2_cldice")
        params[arm.name] = sum(p.numel() for p in model.parameters())
    assert params["skip2"] == params["skip2_cldice"] > params["decoder4"]
    assert params["decoder4"] > params["conv16_linear"]


def test_a_run_tells_everything_and_the_page_shows_it(scenes: str, tmp_path: Path) -> None:
    plan = THIN.plans["smoke"]
    names = ("vit16_linear", "skip2_cldice")
    for name in names:
        (tmp_path / "runs").mkdir(exist_ok=True)
        carry_out(Job("thin", "smoke", name, 0, scenes, tmp_path))
    jobs = [Job("thin", "smoke", name, 0, scenes, tmp_path) for name in names]
    some = type(plan)(
        arms=tuple(plan.arm(name) for name in names),
        claims=(),
        data=plan.data,
        budget=plan.budget,
        recipe=plan.recipe,
        shared=plan.shared,
    )
    result = conclude(THIN, some, jobs, command="vitrail study thin")
    found = {row["arm"]: row["measures"] for row in result.rows}
    for measures in found.values():
        assert measures.keys() == {measure.name for measure in THIN.measures}
        assert all(0 <= measures[name]["mean"] <= 1 for name in ("f1", "iou", "cldice", "shares"))
        assert measures["ms"]["mean"] > 0
    linear, skip = (found[name]["shares"]["mean"] for name in names)
    assert linear < 0.7 < 0.9 < skip
    text = result.page.read_text()
    assert "| 16 | " in text
    assert "thin-examples.png" in text
    with Image.open(tmp_path / "thin-examples.png") as picture:
        assert picture.width > picture.height > 300


def test_full_scale_needs_data_and_these_of_one_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs --data TABLE\.csv with path, mask and split"):
        THIN.plans["full"].data.prepare(tmp_path, None)
    assert isinstance(THIN.plans["full"].data, Given)
    plan = THIN.plans["smoke"]
    with pytest.raises(ConfigError, match="digits: the study of thin structures needs masks of"):
        THIN.run(Job("thin", "smoke", "skip2", 0, "digits", tmp_path), plan)


def test_the_picture_tells_right_missed_and_false() -> None:
    truth = np.array([[True, True], [False, False]])
    answer = np.array([[True, False], [True, False]])
    right, missed, false, none = coloured(answer, truth).reshape(4, 3).tolist()
    assert len({tuple(each) for each in (right, missed, false, none)}) == 4
    assert coloured(truth, truth)[0].tolist() == [right, right]


def test_large_images_are_shown_where_most_is() -> None:
    truth = np.zeros((300, 700), dtype=np.bool_)
    truth[20:40, 600:690] = True
    rows, columns = busiest_window(truth)
    assert truth[rows, columns].sum() == truth.sum()
    assert truth[rows, columns].shape == (256, 256)
    small = np.zeros((40, 50), dtype=np.bool_)
    assert small[busiest_window(small)].shape == (40, 50)
    assert most_foreground([small, truth, truth[:50]], 2) == [2, 1]
