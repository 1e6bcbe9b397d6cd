from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from vitrail.backbones.vit import (
    ConvStemConfig,
    Learned1dConfig,
    PatchStemConfig,
    Rotary2dConfig,
    SineCosine2dConfig,
    ViTConfig,
)
from vitrail.config import Config, build, merge, nearest, override, read_toml, write_toml
from vitrail.errors import ConfigError, UserError
from vitrail.tasks.classify import ClassifyConfig


class Optim(Config):
    lr: float = Field(default=1e-3, gt=0)
    kind: Literal["adamw", "sgd"] = "adamw"


class Run(Config):
    optim: Optim = Optim()
    name: str = "run"
    size: tuple[int, int] = (1, 2)
    patience: int | None = None


keys = st.text("abcdefgh", min_size=1, max_size=4)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
runs = st.builds(
    Run,
    optim=st.builds(
        Optim,
        lr=st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False),
        kind=st.sampled_from(["adamw", "sgd"]),
    ),
    name=texts,
    size=st.tuples(st.integers(-(2**60), 2**60), st.integers(-(2**60), 2**60)),
    patience=st.none() | st.integers(0, 9),
)
backbones = st.builds(
    ViTConfig,
    image_size=st.tuples(st.integers(32, 999), st.integers(32, 999)),
    stem=st.builds(PatchStemConfig, patch_size=st.integers(1, 32))
    | st.just(ConvStemConfig(widths=(3, 4), strides=(2, 1))),
    positions=st.builds(
        Learned1dConfig,
        prefix=st.booleans(),
        resampling=st.sampled_from(["bicubic", "bilinear_aligned", "bicubic_antialias"]),
    )
    | st.just(Rotary2dConfig())
    | st.just(SineCosine2dConfig()),
    width=st.just(48),
    heads=st.sampled_from([1, 2, 3, 4]),
    depth=st.integers(1, 50),
    mlp_ratio=st.floats(min_value=0.1, max_value=8),
    layer_scale=st.none() | st.floats(min_value=1e-6, max_value=1),
    drop_path=st.floats(min_value=0, max_value=0.9),
    registers=st.integers(0, 4),
    pool=st.sampled_from(["class", "mean", "attention"]),
)


@given(runs | backbones)
def test_toml_and_json_round_trip(config: Config) -> None:
    kind = type(config)
    assert build(kind, tomllib.loads(write_toml(config)), source="toml") == config
    assert build(kind, json.loads(config.model_dump_json()), source="json") == config


@given(
    st.dictionaries(keys, st.integers() | texts, max_size=3), keys, st.integers() | st.booleans()
)
def test_override_sets_one_key_and_leaves_the_rest(
    table: dict[str, object], key: str, value: int | bool
) -> None:
    before = json.dumps(table)
    changed = override({"inner": table}, [f"inner.{key}={str(value).lower()}"])
    assert changed["inner"] == table | {key: value}
    assert json.dumps(table) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3", 3),
        ("true", True),
        ("[4, 5]", [4, 5]),
        ('"7"', "7"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("a = b", "a = b"),
        ("{kind = 'sgd'}", {"kind": "sgd"}),
        ("", ""),
        ("1\nb = 2", "1\nb = 2"),
    ],
)
def test_values_are_toml_and_else_plain_text(text: str, value: object) -> None:
    assert override({}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_later_assignments_win() -> None:
    assert override({"a": 1}, ["a=2", "a=3"]) == {"a": 3}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr", "--set lr: write it as key=value"),
        ("=3", "--set =3: write it as key=value"),
        ("name.x=3", "--set name.x=3: 'name' is a value, not a table"),
        ("a..b=1", "--set a..b=1: write it as key=value"),
        (".a=1", "--set .a=1: write it as key=value"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"name": "run"}, [assignment])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"optm": {}}, "here: unknown key 'optm'; did you mean 'optim'?"),
        ({"optim": {"lrr": 1}}, "here: unknown key 'optim.lrr'; did you mean 'lr'?"),
        ({"zzzzzz": 1}, "here: unknown key 'zzzzzz'"),
        ({"optim": {"lr": "fast"}}, "here: 'optim.lr' = 'fast': "),
        ({"optim": {"lr": 0}}, "here: 'optim.lr' = 0: input should be greater than 0"),
        ({"optim": {"lr": float("inf")}}, "here: 'optim.lr' = inf: "),
        ({"optim": {"kind": "adam"}}, "here: 'optim.kind' = 'adam': input should be 'adamw' or"),
        ({"size": [1, 2, 3]}, "here: 'size' = [1, 2, 3]: "),
        ({"name": "x" * 10, "size": "y" * 99}, "..."),
    ],
)
def test_a_wrong_table_is_one_line_that_names_the_key(
    table: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Run, table, source="here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"stem": {"kind": "patch", "patch_siz": 3}}, "unknown key 'stem.patch_siz'; did you mean"),
        ({"stem": {"kind": "conv", "widths": [0], "strides": [1]}}, "'stem.widths.0' = 0: "),
        ({"stem": {"kind": "conv", "widths": [8]}}, "'stem.strides': field required"),
        ({"stem": {"kind": "conv", "widths": [8], "strides": []}}, "'stem': a convolutional stem"),
        ({"positions": {"kind": "rotary"}}, "'positions' = {'kind': 'rotary'}: "),
    ],
)
def test_keys_are_named_as_they_were_written(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(ViTConfig, table, source="here")
    assert str(caught.value).startswith(f"here: {message}")


def test_names_keep_their_case() -> None:
    with pytest.raises(ConfigError, match=r"^here: 'classes': .* twice: Ant$|^here: .*twice: Ant$"):
        build(ClassifyConfig, {"classes": ["Ant", "Bee", "Ant"]}, source="here")


def test_a_rule_between_keys_names_the_config() -> None:
    with pytest.raises(ConfigError, match=r"^recipe\.toml: width 10 is not a multiple of heads 3$"):
        build(ViTConfig, {"width": 10, "heads": 3}, source="recipe.toml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Run().name = "other"


def test_nearest_offers_nothing_where_nothing_is_near() -> None:
    assert nearest("xyz", ["abc"]) == ""
    assert nearest("abd", ["abc", "abe"]) == "; did you mean 'abe' or 'abc'?"


def test_read_toml_names_file_and_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the recipe \(No such file"):
        read_toml(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = 1\nb = = 2")
    with pytest.raises(ConfigError, match=r"broken\.toml: not a TOML file .*line 2"):
        read_toml(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(broken)
    good = tmp_path / "good.toml"
    good.write_text("name = 'ä'\n[optim]\nlr = 0.1\n", encoding="utf-8")
    assert read_toml(good) == {"name": "ä", "optim": {"lr": 0.1}}


def test_merge_lays_tables_over_each_other() -> None:
    table = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(table, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}
    assert merge(table, {"a": 5}) == {"a": 5, "d": 3}
    assert table == {"a": {"b": 1, "c": 2}, "d": 3}


def test_merge_replaces_a_table_of_another_kind() -> None:
    table = {"stem": {"kind": "patch", "patch_size": 4}}
    other = {"kind": "conv", "widths": [8]}
    assert merge(table, {"stem": other}) == {"stem": other}
    same = merge(table, {"stem": {"kind": "patch", "patch_size": 8}})
    assert same == {"stem": {"kind": "patch", "patch_size": 8}}
