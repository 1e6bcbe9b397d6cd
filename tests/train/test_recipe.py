"""Recipes: what is shipped can be used, what is wrong is named."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.backbones import VARIANTS
from vitrail.config import build, override, write_toml
from vitrail.errors import ConfigError
from vitrail.train.recipe import PRESETS, Recipe, ScheduleRecipe, load_recipe

FOLDER = Path(str(files("vitrail") / "recipes"))


def test_what_is_shipped_is_what_is_offered() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_names_a_model(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.name in VARIANTS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_starts_with_command_hardware_and_result(name: str) -> None:
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    assert comment[0].startswith("vitrail train"), "the command"
    text = " ".join(comment)
    assert re.search(r"\b(CPU|GPU)s?\b|\b[AHV]100\b", text), "the hardware"
    assert re.search(r"top-1|AP50|accuracy|mIoU|\bF1\b|%", text), "the expected result"
    assert re.search(r"\d", text), "in figures"


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "config.toml"
    path.write_text(write_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_overrides_win() -> None:
    recipe = load_recipe(
        "small-images",
        [
            "optim.lr=5e-4",
            "model.name=vit_tiny_patch16_224",
            'data.workers={kind="threads",count=2}',
        ],
    )
    assert recipe.optim.lr == 5e-4
    assert recipe.model.name == "vit_tiny_patch16_224"
    assert recipe.data.workers.kind == "threads"
    assert recipe.augment == load_recipe("small-images").augment, "the rest stays"


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("optim.learning_rat=1", "unknown key 'optim.learning_rat'"),
        ("optim.clip_grd=1", "did you mean 'clip_grad'"),
        ("sed=1", "did you mean 'seed'"),
        ("optim.lr=fast", "'optim.lr' = 'fast': input should be a valid number"),
        ("optim.lr=-1", "'optim.lr' = -1: input should be greater than 0"),
        ("schedule.epochs=1.5", "'schedule.epochs' = 1.5"),
        ("seed=-1", "'seed' = -1"),
        ("data=3", "'data' = 3"),
        ("data.workers.kind=robots", "data.workers"),
        ('data.workers={kind="threads",count=0}', "data.workers.count"),
        ("augment.geometry.kind=twist", "augment.geometry"),
        ("stop.metric=topp1", "'stop.metric' = 'topp1'"),
        ("ema=1", "'ema' = 1"),
        ("mix.probability=2", "'mix.probability' = 2"),
        ("optim.lr=nan", "'optim.lr' = nan"),
        ("seed.x=1", "'seed' is a value, not a table"),
        ("seed", "write it as key=value"),
        ("=3", "write it as key=value"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(assignment: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path), [assignment])
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("small-image", r"no recipe 'small-image'; did you mean 'small-images'"),
        ("nothing.toml", r"nothing.toml: cannot read the recipe \(No such file"),
    ],
)
def test_an_unknown_recipe(name: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        load_recipe(name)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("seed = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"r\.toml: not a TOML file .*line 1"):
        load_recipe(str(path))


@settings(deadline=None)
@given(count=st.integers(1, 10_000_000))
def test_epochs_follow_the_size_of_the_data(count: int) -> None:
    schedule = ScheduleRecipe(images_seen=600_000, min_epochs=5, max_epochs=100)
    epochs = schedule.epochs_for(count)
    assert 5 <= epochs <= 100
    if 6_000 <= count <= 120_000:
        assert abs(epochs * count - 600_000) <= count / 2


def test_epochs_that_are_given_count() -> None:
    assert ScheduleRecipe(epochs=3).epochs_for(10_000_000) == 3


@settings(deadline=None)
@given(
    lr=st.floats(1e-6, 1.0),
    warmup=st.floats(0, 1),
    clip=st.none() | st.floats(0.1, 10),
    seed=st.integers(0, 2**31),
)
def test_round_trip(lr: float, warmup: float, clip: float | None, seed: int) -> None:
    table = override({}, [f"optim.lr={lr!r}", f"schedule.warmup={warmup!r}", f"seed={seed}"])
    table["optim"] |= {} if clip is None else {"clip_grad": clip}
    recipe = build(Recipe, table, source="test")
    text = write_toml(recipe)
    assert build(Recipe, tomllib.loads(text), source="again") == recipe
