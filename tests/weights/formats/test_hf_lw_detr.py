"""Hugging Face lw_detr and rf_detr folders, and Roboflow's own dumps of the latter."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.backbones import VARIANTS
from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.data.preprocess import Fit, Squash
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import C2fProjectorConfig, QueryReadout, TwoStageConfig
from vitrail.weights.checkpoint import Checkpoint, Held
from vitrail.weights.files.containers import open_checkpoint
from vitrail.weights.formats import recognise
from vitrail.weights.formats.hf_group_detr import GroupDetrReader
from vitrail.weights.formats.hf_lw_detr import HfLwDetrReader, WithoutFirstRow, WithoutKeyBias
from vitrail.weights.formats.hf_rf_detr import HfRfDetrReader
from vitrail.weights.formats.rf_detr import PUBLISHED, RfDetrReader
from vitrail.weights.reader import Described, Given
from weights.reading import Read, case, read, told, with_config

READERS: dict[str, type[GroupDetrReader]] = {
    "hf_lw_detr": HfLwDetrReader,
    "hf_rf_detr": HfRfDetrReader,
}
every = pytest.mark.parametrize("name", READERS)


def opened(name: str) -> Checkpoint:
    return open_checkpoint(case(name)[0])


def inner(checkpoint: Checkpoint, **changes: object) -> Checkpoint:
    """Other settings of the backbone; None takes one away."""
    table = {**checkpoint.config["backbone_config"], **changes}
    kept = {key: value for key, value in table.items() if value is not None}
    return with_config(checkpoint, backbone_config=kept)


def parts(found: Read) -> tuple[WindowedViTConfig, DetectConfig, QueryReadout]:
    backbone, task = found.described.backbone, found.described.task
    assert isinstance(backbone, WindowedViTConfig)
    assert isinstance(task, DetectConfig)
    assert isinstance(task.readout, QueryReadout)
    return backbone, task, task.readout


@every
def test_the_model_is_that_of_the_settings(name: str) -> None:
    found = read(READERS[name], opened(name))
    backbone, task, readout = parts(found)
    rf = name == "hf_rf_detr"
    assert (backbone.windows, backbone.taps, backbone.depth) == (2, (2, 4), 4)
    assert backbone.whole == ((2,) if rf else (1, 3))
    assert backbone.class_token == backbone.norm_taps == rf
    assert isinstance(readout.queries, TwoStageConfig)
    assert (readout.queries.count, readout.queries.groups, readout.refinement) == (6, 2, "once")
    assert isinstance(readout.projector, C2fProjectorConfig)
    assert readout.projector.norm == ("channels" if rf else "batch")
    assert task.classes == tuple(f"class {i}" for i in range(5))
    assert task.category_ids == (0, 1, 2, 3, 4)
    assert found.described.preprocess.resize == Squash(size=backbone.image_size)


@every
def test_all_groups_are_kept(name: str) -> None:
    """Inference takes the first; fine-tuning goes on with all."""
    state = read(READERS[name], opened(name)).state
    assert state["task.detector.queries.content"].shape == (12, 32)
    assert state["task.detector.queries.proposers.1.classify.weight"].shape == (5, 32)


@every
def test_what_is_missing_is_named(name: str) -> None:
    checkpoint = opened(name)
    for gone in ("enc_output.1.weight", "cross_attn.sampling_offsets.bias", "position_embeddings"):
        key = next(key for key in checkpoint.tensors if key.endswith(gone))
        tensors = {k: t for k, t in checkpoint.tensors.items() if k != key}
        assert key in told(READERS[name], replace(checkpoint, tensors=tensors))


@every
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_function": "gelu"}, "activation_function"),
        ({"decoder_activation_function": "silu"}, "decoder_activation_function"),
        ({"hidden_expansion": 1.0}, "hidden_expansion"),
        ({"decoder_layers": 7}, "the weights have 2"),
        ({"backbone_config": None}, "backbone_config"),
    ],
)
def test_what_we_cannot_express_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    assert said in told(READERS[name], with_config(opened(name), **changes))


@every
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_channels": 4}, "num_channels"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"out_indices": [9]}, "out_indices"),
        ({"out_indices": None, "out_features": ["stage9"]}, "out_features"),
        ({"patch_size": [8, 4]}, "patch_size"),
        ({"num_hidden_layers": 40, "out_indices": [2, 40]}, "the weights have 4"),
    ],
)
def test_so_is_what_its_backbone_cannot(name: str, changes: dict[str, Any], said: str) -> None:
    assert said in told(READERS[name], inner(opened(name), **changes))


@every
def test_feature_maps_go_by_name_or_by_number(name: str) -> None:
    by_number = read(READERS[name], opened(name))
    by_name = read(READERS[name], inner(opened(name), out_indices=None))
    from_the_end = read(READERS[name], inner(opened(name), out_indices=[2, -1]))
    assert by_number.described == by_name.described == from_the_end.described


@every
def test_blocks_behind_the_last_map_are_not_built(name: str) -> None:
    """As in RF-DETR base: the twelfth block of DINOv2 is in the file and nothing reads it."""
    shorter = inner(opened(name), out_indices=[1, 2], out_features=["stage1", "stage2"])
    found = read(READERS[name], shorter)
    backbone, _, _ = parts(found)
    assert backbone.depth == 2
    idle = [key for key in found.match.derived if "mask_token" not in key]
    assert {key.split("encoder.layer.")[1][0] for key in idle} == {"2", "3"}


def test_images_are_prepared_as_the_processor_does() -> None:
    squashed = {
        "size": {"height": 64, "width": 128},
        "image_processor_type": "RfDetrImageProcessor",
    }
    found = HfRfDetrReader(replace(opened("hf_rf_detr"), preprocessor=squashed))
    preprocess, _ = found.preprocess((56, 56))
    assert preprocess.resize == Squash(size=(64, 128))
    assert not preprocess.antialias
    kept = {"size": {"shortest_edge": 64, "longest_edge": 128}}
    preprocess, _ = HfLwDetrReader(replace(opened("hf_lw_detr"), preprocessor=kept)).preprocess(
        (64, 64)
    )
    assert isinstance(preprocess.resize, Fit)
    assert preprocess.antialias


def test_images_that_are_not_square_are_read_as_transformers_does() -> None:
    wide = replace(opened("hf_rf_detr"), preprocessor={"size": {"height": 56, "width": 84}})
    found = read(HfRfDetrReader, wide)
    assert parts(found)[0].exchanged
    assert any("--set exchanged=false" in note for note in found.described.notes)
    plain = read(HfRfDetrReader, wide, Given(backbone={"exchanged": False}))
    assert not parts(plain)[0].exchanged
    square = read(HfRfDetrReader, opened("hf_rf_detr"))
    for quiet in (plain, square):
        assert not any("exchanged" in note for note in quiet.described.notes)


def test_a_model_for_masks_is_refused_in_one_line() -> None:
    checkpoint = opened("hf_rf_detr")
    mask = {"segmentation_head.bias": Held(torch.zeros(1))}
    said = told(HfRfDetrReader, replace(checkpoint, tensors={**checkpoint.tensors, **mask}))
    assert "masks" in said
    assert "\n" not in said


def test_layouts_go_there_and_back() -> None:
    query, value = torch.randn(3), torch.randn(3)
    bias = WithoutKeyBias(3).read([query, value])
    assert not bias[3:6].any()
    assert all(map(torch.equal, WithoutKeyBias(3).write(bias), (query, value)))
    table = torch.randn(1, 5, 2)
    assert torch.equal(WithoutFirstRow().read([table]), table[:, 1:])
    assert torch.equal(WithoutFirstRow().read(WithoutFirstRow().write(table)), table)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """The golden RF-DETR as Roboflow would have saved it."""
    tensors = {name: stored.read() for name, stored in opened("hf_rf_detr").tensors.items()}
    arguments = Namespace(
        resolution=56,
        num_windows=2,
        out_feature_indexes=[2, 4],
        dec_n_points=2,
        sa_nheads=4,
        class_names=["a"],
    )
    torch.save({"model": tensors, "args": arguments, "epoch": 3}, tmp_path / "rf.pth")
    return tmp_path / "rf.pth"


def test_a_dump_of_roboflow_is_the_same_model(dump: Path) -> None:
    assert type(recognise(open_checkpoint(dump))) is RfDetrReader
    folder = read(HfRfDetrReader, opened("hf_rf_detr"))
    found = read(RfDetrReader, dump, Given(backbone={"heads": 4}))  # DINOv2's are 64 wide
    (backbone, task, readout), (wanted, _, decoder) = parts(found), parts(folder)
    assert backbone == wanted.model_copy(update={"exchanged": False})
    assert readout == decoder
    assert task.classes == ("0", "1", "2", "3", "4"), "whether its names count from 0 is not told"
    assert not found.described.preprocess.antialias
    assert found.state.keys() == folder.state.keys()
    assert all(torch.equal(found.state[key], folder.state[key]) for key in found.state)


def test_a_dump_without_arguments_needs_a_published_size(dump: Path) -> None:
    bare = replace(open_checkpoint(dump), extras={})
    assert "no published RF-DETR has patches of 14 pixels and 4 x 4 positions" in told(
        RfDetrReader, bare
    )


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_are_those_of_the_named_backbones(size: tuple[int, int]) -> None:
    resolution, windows, taps = PUBLISHED[size]
    alike = [
        variant.config
        for name, variant in VARIANTS.items()
        if name.startswith("rf_detr") and variant.config.image_size == (resolution, resolution)
    ]
    (config,) = alike
    assert (config.patch_size, config.windows, config.taps) == (size[0], windows, taps)
    assert (config.table or config.grid) == (size[1], size[1])
    assert config.whole == tuple(i for i in range(config.depth) if i in taps)


def test_several_maps_of_the_old_large_are_refused(dump: Path) -> None:
    checkpoint = open_checkpoint(dump)
    more = {"backbone.0.projector.stages.1.1.bias": Held(torch.zeros(1))}
    said = told(RfDetrReader, replace(checkpoint, tensors={**checkpoint.tensors, **more}))
    assert "large of 2025" in said


@pytest.mark.parametrize(("scales", "named"), [((1.0,), "medium"), ((2.0, 0.5), "large")])
def test_medium_and_large_are_told_apart_by_their_scales(
    scales: tuple[float, ...], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their backbones are the same."""
    checkpoint = with_config(opened("hf_lw_detr"), projector_scale_factors=list(scales))
    found = read(HfLwDetrReader, opened("hf_lw_detr")).described

    def described(self: GroupDetrReader, given: Given) -> Described:
        del self, given
        return found.model_copy(update={"variant": "lw_detr_medium"})

    monkeypatch.setattr(GroupDetrReader, "describe", described)
    assert HfLwDetrReader(checkpoint).describe(Given()).variant == f"lw_detr_{named}"
