"""Segmenter's `.pth` with `variant.yml` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import randomise
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.data.preprocess import HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitrail.data.tiles import Windows
from vitrail.errors import CheckpointError
from vitrail.explain.layers import attention_layers
from vitrail.explain.outputs import outputs_of
from vitrail.model import Model, ModelConfig
from vitrail.tasks.joint_segmenters import SegmenterReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import LinearReadout, SegmentReadout
from vitrail.weights.convert import loaded_from, write_loaded
from vitrail.weights.formats.segmenter_classes import CLASSES
from vitrail.weights.formats.segmenter_variant import read_variant
from vitrail.weights.load import Loaded, load_checkpoint
from vitrail.weights.reader import Given

MASKS = SegmenterReadout(width=16, depth=2, heads=1, hidden=64)


def tiny_segmenter(
    readout: SegmentReadout = MASKS,
    classes: tuple[str, ...] = ("0", "1", "2"),
    colours: Any = (HALF, HALF),
    **changes: Any,
) -> Loaded:
    table: dict[str, Any] = {
        "image_size": (16, 24),
        "stem": PatchStemConfig(patch_size=8),
        "positions": Learned1dConfig(resampling="bilinear"),
        "width": 16,
        "depth": 2,
        "heads": 4,
        "eps": 1e-5,
    }
    config = ModelConfig(
        backbone=ViTConfig(**(table | changes)),
        task=SegmentConfig(classes=classes, background=False, readout=readout),
        preprocess=Preprocess(
            resize=Windows(side=16, stride=8),
            interpolation="bilinear",
            antialias=False,
            mean=colours[0],
            std=colours[1],
        ),
    )
    model = Model(config)
    randomise(model)
    return loaded_from(model.eval(), "tiny", "MIT")


def same(a: Loaded, b: Loaded) -> bool:
    return a.state.keys() == b.state.keys() and all(
        torch.equal(a.state[name], b.state[name]) for name in a.state
    )


@pytest.mark.parametrize("readout", [MASKS, LinearReadout()])
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("colours", [(HALF, HALF), (IMAGENET_MEAN, IMAGENET_STD)])
def test_there_and_back(
    readout: SegmentReadout, distilled: bool, colours: Any, tmp_path: Path
) -> None:
    loaded = tiny_segmenter(readout, colours=colours, distillation_token=distilled)
    written = write_loaded(loaded, "official", tmp_path / "model.pth")
    assert [path.name for path in written] == ["model.pth", "variant.yml"]
    again = load_checkpoint(tmp_path / "model.pth")
    assert same(again, loaded)
    for part in ("backbone", "task", "preprocess"):
        assert getattr(again.described, part) == getattr(loaded.described, part), part
    assert again.match.derived == tuple(
        f"encoder.{head}.{part}"
        for head in ("head", "head_dist")[: 1 + distilled]
        for part in ("weight", "bias")
    )


def test_a_folder_serves_too(tmp_path: Path) -> None:
    write_loaded(tiny_segmenter(), "official", tmp_path / "checkpoint.pth")
    assert same(load_checkpoint(tmp_path), tiny_segmenter())


def test_alone_a_file_asks_for_its_heads(tmp_path: Path) -> None:
    loaded = tiny_segmenter(image_size=(16, 16))
    write_loaded(loaded, "official", tmp_path / "model.pth")
    (tmp_path / "variant.yml").unlink()
    with pytest.raises(CheckpointError, match="--set heads="):
        load_checkpoint(tmp_path / "model.pth")
    again = load_checkpoint(tmp_path / "model.pth", Given(backbone={"heads": 4}))
    assert same(again, loaded)
    assert any("no variant.yml" in note for note in again.described.notes)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_names_of_their_data(name: str, tmp_path: Path) -> None:
    loaded = tiny_segmenter(classes=CLASSES[name])
    write_loaded(loaded, "official", tmp_path / "model.pth")
    assert f"dataset: {name}" in (tmp_path / "variant.yml").read_text()
    task = load_checkpoint(tmp_path / "model.pth").described.task
    assert isinstance(task, SegmentConfig)
    assert task.classes == CLASSES[name]


def test_every_data_set_is_whole() -> None:
    assert {name: len(classes) for name, classes in CLASSES.items()} == {
        "ade20k": 150,
        "cityscapes": 19,
        "pascal_context": 60,
    }
    assert all(len(set(classes)) == len(classes) for classes in CLASSES.values())


def test_tags_of_python_are_read_past(tmp_path: Path) -> None:
    """As `yaml.dump` of the authors writes tuples."""
    (tmp_path / "variant.yml").write_text(
        "net_kwargs:\n  image_size: !!python/tuple\n  - 512\n  - 768\n  n_heads: 3\n"
        "  run: !!python/object/apply:os.system [exit]\n"
    )
    variant = read_variant(tmp_path / "model.pth")
    assert variant.sides("net_kwargs", "image_size") == (512, 768)
    assert variant.whole("net_kwargs", "n_heads") == 3
    assert variant.text("net_kwargs", "absent") is None
    assert variant.text("net_kwargs", "n_heads", "deeper") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("net_kwargs: [", "no YAML"),
        ("net_kwargs: {n_heads: many, image_size: [16, 24]}", "net_kwargs.n_heads: a whole number"),
        ("net_kwargs: {n_heads: [3], image_size: [16, 24]}", "net_kwargs.n_heads: a whole number"),
        ("net_kwargs: {n_heads: -3, image_size: [16, 24]}", "net_kwargs.n_heads: a whole number"),
        ("net_kwargs: {image_size: [1, 2, 3]}", "net_kwargs.image_size: one side"),
        ("net_kwargs: {n_heads: 4, image_size: 40}", "pos_embed"),
        ("net_kwargs: {n_heads: 5, image_size: [16, 24]}", "width 16 is not a multiple"),
        ("net_kwargs: {n_heads: 4, image_size: [16, 24], n_layers: 3}", "encoder.blocks.2"),
        ("[" * 20_000, "no YAML"),
        ("x: " + "a" * 1_100_000, "larger than"),
    ],
)
def test_a_variant_that_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    write_loaded(tiny_segmenter(), "official", tmp_path / "model.pth")
    (tmp_path / "variant.yml").write_text(text)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "model.pth")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "variant.yml").write_text("mine: true\n")
    with pytest.raises(CheckpointError, match="exists already and belongs to another model"):
        write_loaded(tiny_segmenter(), "official", tmp_path / "model.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["variant.yml"]


def test_others_are_not_written(tmp_path: Path) -> None:
    wrong = {
        "eps is 1e-06": tiny_segmenter(eps=1e-6),
        "registers is 2": tiny_segmenter(registers=2),
        "final_norm is False": tiny_segmenter(final_norm=False),
        "mlp_ratio is 2.0": tiny_segmenter(mlp_ratio=2.0),
        "the decoder is": tiny_segmenter(MASKS.model_copy(update={"heads": 2})),
        "no readout 'linear'": tiny_segmenter(LinearReadout(logits="pixel")),
        "neither 0.5": tiny_segmenter(colours=(IMAGENET_MEAN, HALF)),
    }
    for reason, loaded in wrong.items():
        with pytest.raises(CheckpointError, match=reason):
            write_loaded(loaded, "official", tmp_path / "model.pth")


def test_class_queries_stand_in_front_here_and_last_there() -> None:
    model = tiny_segmenter().model()
    layers = attention_layers(model)
    assert [layer.key for layer in layers][-1] == "attn_decoder_1"
    layout = layers[-1].place.at((16, 24))
    assert (layout.row("2"), layout.row((0, 0))) == (2, 3)
    found = outputs_of(model, torch.randn(1, 3, 16, 24))
    assert found["attn_encoder_1"].shape == (1, 4, 7, 7)
    assert found["attn_decoder_0"].shape == (1, 1, 9, 9)
    assert torch.equal(found["attn_encoder_1"], found["attn_1"])


def test_masks_lie_on_the_image_and_not_on_what_pads_it() -> None:
    model = tiny_segmenter().model()
    images = torch.randn(1, 3, 13, 21)
    padded = torch.nn.functional.pad(images, (0, 3, 0, 3))
    small, large = (outputs_of(model, one)["masks"] for one in (images, padded))
    assert small.shape == (1, 3, 13, 21)
    torch.testing.assert_close(small, large[:, :, :13, :21])
