"""Runs that go on from a checkpoint: what is carried over, what is said, and what is learned."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from pictures import QUICK, in_memory, write_folder, write_multilabel
from presets import PRESETS, preset_model
from tiny import ListDataset, photo, randomise, tiny_config, tiny_model
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.vit import ConvStemConfig, PatchStemConfig
from vitrail.config import build, override
from vitrail.data.dataset import Source
from vitrail.data.open import open_images, open_labelled
from vitrail.data.preprocess import CenterCrop, Squash
from vitrail.errors import CheckpointError, ConfigError, ModelFileError, UserError
from vitrail.evaluate import evaluate
from vitrail.model import Model, ModelConfig
from vitrail.nn.patches import resize_patches
from vitrail.predict import predict
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import LinearReadout
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.train import run as run_module
from vitrail.train import start as start_module
from vitrail.train.carry import at_patch_size, carry, keeps_head
from vitrail.train.recipe import Recipe
from vitrail.train.run import Event, Said, TrainResult, train
from vitrail.train.start import Start, fit_to_data, start_file
from vitrail.weights.convert import loaded_from, write_loaded
from vitrail.weights.load import load_checkpoint
from vitrail.weights.modelfile import Provenance, load_model, save_model
from vitrail.weights.origin import Origin, open_origin
from vitrail.weights.reader import Given

WEIGHTS = ("weights.file=unused",)


def source_of(classes: tuple[str, ...] = ("ant", "bee", "cat"), *, multilabel: bool = False):
    data = in_memory()
    part = ListDataset(data.images, data.targets, classes, multilabel=multilabel)
    return Source(
        "data", "a list", "made here", dict.fromkeys(("train", "val", "test"), part), (), "0"
    )


def recipe_of(*changes: str) -> Recipe:
    return build(Recipe, override({}, [*WEIGHTS, *changes]), source="test")


def origin_of(model: Model) -> Origin:
    config = model.config
    state = dict(model.state_dict())
    return Origin(
        "file", "a model", config.backbone, config.task, config.preprocess, state, "MIT", "0"
    )


def rows_of(start: Start) -> dict[str, tuple[str, str]]:
    return {row.group: (row.found, row.done) for row in start.table}


@pytest.mark.parametrize("name", [n for n in PRESETS if "swin" not in n])
def test_another_size_answers_as_the_original_does_at_that_size(name: str) -> None:
    """Every backbone serves any size; to carry it over must not change what it says there."""
    model = preset_model(PRESETS[name])
    start = fit_to_data(origin_of(model), recipe_of("model.image_size=[12, 16]"), source_of())
    assert start.model.config.backbone.image_size == (12, 16)
    assert start.model.config.preprocess.output_size(99, 99) == (12, 16)
    images = model.normalise(torch.stack([photo(i, 12, 16) for i in range(2)]))
    with torch.no_grad():
        wanted, found = model.backbone(images), start.model.eval().backbone(images)
    torch.testing.assert_close(found.pooled, wanted.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "kind", ["learned_1d", "learned_2d", "sincos_1d", "sincos_2d", "relative_2d", "rotary_2d"]
)
def test_positions_of_every_kind_are_stretched_by_their_own_convention(kind: str) -> None:
    for positions_in in ("stem", "layers"):
        if positions_in == "layers" and kind in ("relative_2d", "rotary_2d"):
            continue
        config = tiny_config(positions={"kind": kind}, positions_in=positions_in)
        model = tiny_model(backbone=config)
        start = fit_to_data(origin_of(model), recipe_of("model.image_size=[16, 16]"), source_of())
        images = model.normalise(torch.stack([photo(i, 16, 16) for i in range(2)]))
        with torch.no_grad():
            wanted, found = model.backbone(images), start.model.eval().backbone(images)
        torch.testing.assert_close(found.pooled, wanted.pooled, atol=1e-4, rtol=1e-4)
        assert start.model.config.preprocess.output_size(99, 99) == (16, 16)
        said = " ".join(done for _, done in rows_of(start).values())
        assert ("resampled" in said) == (kind in ("learned_1d", "learned_2d", "relative_2d"))


@pytest.mark.parametrize("patch", [2, 6])
def test_patches_of_another_size_see_what_the_old_ones_saw(patch: int) -> None:
    model = tiny_model(backbone=tiny_config(image_size=(24, 24)))
    change = f"model.backbone.stem.patch_size={patch}"
    start = fit_to_data(origin_of(model), recipe_of(change), source_of())
    old, new = (each.backbone.patch_embed.proj for each in (model, start.model))
    assert torch.equal(new.weight, resize_patches(old.weight, (patch, patch)))
    assert torch.equal(new.bias, old.bias)
    rows = rows_of(start)
    said = f"taken, patches resized from 4 x 4 to {patch} x {patch} pixels (FlexiViT)"
    assert rows["backbone.patch_embed"] == ("2 tensors", said)
    side = 24 // patch
    assert f"resampled from 6 x 6 to {side} x {side} places" in rows["backbone.pos_embed"][1]
    images = torch.stack([photo(i, 24, 24) for i in range(2)])
    assert start.model(images).shape == (2, 3)


def test_an_enlarged_image_has_the_same_tokens_through_larger_patches() -> None:
    """Patches of one colour are the same at any size."""
    model = tiny_model()
    changes = "model.image_size=[16, 24]", "model.backbone.stem.patch_size=8"
    start = fit_to_data(origin_of(model), recipe_of(*changes), source_of())
    assert start.model.config.backbone.positions == model.config.backbone.positions
    small = torch.rand(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    small, large = (small.repeat_interleave(n, 2).repeat_interleave(n, 3) for n in (4, 8))
    with torch.no_grad():
        wanted, found = model.backbone(small), start.model.eval().backbone(large)
    torch.testing.assert_close(found.tokens, wanted.tokens, atol=1e-4, rtol=1e-4)


def test_one_model_runs_at_several_patch_sizes() -> None:
    model = tiny_model(backbone=tiny_config(image_size=(24, 24)))
    colour = torch.randint(0, 256, (2, 3, 1, 1), dtype=torch.uint8)
    images = colour.expand(2, 3, 24, 24)
    for patch in (2, 3, 4, 6, 8, 12):
        moved = at_patch_size(model, patch)
        assert moved.backbone.strides == (patch,)
        assert not moved.training
        with torch.no_grad():
            features = moved.backbone(model.normalise(images))
            assert features.maps[0].shape[2:] == (24 // patch, 24 // patch)
            assert moved(images).shape == (2, 3)
            if patch == 4:
                assert torch.equal(moved(images), model(images))
    conv = tiny_model(backbone=tiny_config(stem=ConvStemConfig(widths=(4, 8), strides=(2, 2))))
    with pytest.raises(ConfigError, match="the model has no plain patches"):
        at_patch_size(conv, 8)


def test_a_head_of_one_patch_size_is_not_run_at_another() -> None:
    task = SegmentConfig(classes=("road",), readout=LinearReadout(logits="pixel"))
    model = Model(tiny_model().config.model_copy(update={"task": task}))
    with pytest.raises(ConfigError, match="the head is made for patches of 4 pixels; train it"):
        at_patch_size(model, 8)
    cell = task.model_copy(update={"readout": LinearReadout()})
    model = Model(model.config.model_copy(update={"task": cell}))
    logits = at_patch_size(model, 2)(torch.zeros(1, 3, 8, 12, dtype=torch.uint8)).logits
    assert logits.shape == (1, 1, 4, 6)


def swin(kind: type[SwinConfig | SwinV2Config]) -> Model:
    backbone = kind(image_size=(32, 32), width=8, depths=(2, 2), heads=(2, 2), window=4)
    preprocess = tiny_model().config.preprocess.model_copy(
        update={"resize": CenterCrop(size=(32, 32), crop_pct=0.9)}
    )
    task = ClassifyConfig(classes=("ant", "bee", "cat"))
    config = ModelConfig(backbone=backbone, task=task, preprocess=preprocess)
    return cast("Model", randomise(Model(config), std=0.2)).eval()


def test_tables_of_another_window_are_stretched() -> None:
    model = swin(SwinConfig)
    start = fit_to_data(origin_of(model), recipe_of("model.backbone.window=6"), source_of())
    name = "backbone.stages.0.blocks.0.attn.positions.table"
    old, new = model.state_dict()[name], start.model.state_dict()[name]
    square = old.T.reshape(1, 2, 7, 7)
    wanted = F.interpolate(square, size=(11, 11), mode="bicubic", align_corners=False)
    torch.testing.assert_close(new, wanted[0].reshape(2, 121).T)
    assert "windows resampled from 4 x 4 to 6 x 6" in rows_of(start)["backbone.stages"][1]
    assert start.model.config.preprocess.resize == CenterCrop(size=(32, 32), crop_pct=0.9)


def test_version_two_remembers_the_windows_it_learned_with() -> None:
    model = swin(SwinV2Config)
    start = fit_to_data(origin_of(model), recipe_of("model.backbone.window=8"), source_of())
    config = start.model.config.backbone
    assert isinstance(config, SwinV2Config)
    assert config.pretrained_windows == (4, 0)
    same = fit_to_data(origin_of(model), recipe_of("model.drop_path=0.1"), source_of())
    assert same.model.config.backbone.pretrained_windows == ()
    assert "resampled" not in " ".join(done for _, done in rows_of(start).values())


def test_the_same_classes_keep_the_head_in_the_order_of_the_data() -> None:
    model = tiny_model(("cat", "ant", "bee"))
    start = fit_to_data(origin_of(model), recipe_of(), source_of(("ant", "bee", "cat")))
    images = torch.stack([photo(i) for i in range(2)])
    with torch.no_grad():
        assert torch.equal(start.model.eval()(images), model(images)[:, [1, 2, 0]])
    assert "in the order of the data's 3 classes" in rows_of(start)["task.head"][1]
    same = fit_to_data(origin_of(model), recipe_of(), source_of(("cat", "ant", "bee")))
    assert rows_of(same)["task.head"][1] == "taken as it is: the same 3 classes"


@pytest.mark.parametrize("distilled", [False, True])
def test_other_classes_get_a_new_head_of_zeros(*, distilled: bool) -> None:
    model = tiny_model(("a", "b"), tiny_config(distillation_token=distilled), temperature=3.0)
    start = fit_to_data(origin_of(model), recipe_of(), source_of())
    heads = {name for name, _ in start.model.task.named_children()}
    assert heads == ({"head", "head_dist"} if distilled else {"head"})
    for parameter in start.model.task.parameters():
        assert not parameter.any()
    table = rows_of(start)
    for head in heads:
        assert table[f"task.{head}"] == (
            "2 tensors",
            "new: the data's 3 classes instead of 2 others",
        )
    state = start.model.state_dict()
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(state[name], tensor), name
    assert start.model.config.task.temperature == 1.0


def test_a_representation_layer_stays_or_goes_with_its_head() -> None:
    model = tiny_model(("cat", "ant", "bee"), hidden=8)
    kept = fit_to_data(origin_of(model), recipe_of(), source_of())
    images = torch.stack([photo(i) for i in range(2)])
    with torch.no_grad():
        assert torch.equal(kept.model.eval()(images), model(images)[:, [1, 2, 0]])
    assert rows_of(kept)["task.pre_logits"][1] == "taken as it is"
    gone = fit_to_data(origin_of(model), recipe_of(), source_of(("x", "y", "z")))
    assert gone.model.task.config.hidden is None
    assert rows_of(gone)["task.pre_logits"] == ("2 tensors", "left out with the head")


def test_numbers_of_a_foreign_file_are_no_names() -> None:
    origin = replace(origin_of(tiny_model(("0", "1", "2"))), named=False)
    start = fit_to_data(origin, recipe_of(), source_of(("0", "1", "2")))
    assert rows_of(start)["task.head"][1] == (
        "new: the file numbers its classes, it does not name them"
    )
    assert not any(p.any() for p in start.model.task.parameters())


def test_who_names_classes(tmp_path: Path) -> None:
    model = tiny_model(("0", "1", "2"), tiny_config(stem=PatchStemConfig(patch_size=4)))
    ours = save_model(model, tmp_path / "m.safetensors", Provenance())
    assert open_origin(str(ours)).named
    write_loaded(loaded_from(model, "m", ""), "timm", tmp_path / "timm")
    assert not open_origin(str(tmp_path / "timm")).named
    assert open_origin(str(tmp_path / "timm"), Given(classes=("0", "1", "2"))).named


def test_several_labels_are_another_head_even_with_the_same_classes() -> None:
    one = ClassifyConfig(classes=("a", "b"))
    assert keeps_head(one, ClassifyConfig(classes=("b", "a")))
    assert not keeps_head(one, ClassifyConfig(classes=("a", "b"), multilabel=True))
    assert not keeps_head(None, one)
    text = TranscribeConfig(alphabet=("a", "b"), max_length=9)
    assert keeps_head(text, text.model_copy(update={"max_length": 40, "beams": 3}))
    assert not keeps_head(text, TranscribeConfig(alphabet=("b", "a")))
    assert not keeps_head(text, one)


def test_a_decoder_stays_while_the_alphabet_does() -> None:
    alphabet = ("1", "2", "3")
    task = TranscribeConfig(alphabet=alphabet, width=16, heads=2, depth=1)
    model = tiny_model()
    writer = cast("Model", randomise(Model(model.config.model_copy(update={"task": task})))).eval()
    data = ListDataset([photo(i) for i in range(4)], ["12", "3", "2", "1"], alphabet)
    data.text = True
    source = Source("data", "a list", "", dict.fromkeys(("train", "val", "test"), data), (), "0")
    kept = fit_to_data(origin_of(writer), recipe_of(), source)
    assert kept.model.config.task == task.model_copy(update={"max_length": 32})
    for name, tensor in writer.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], tensor), name
    assert rows_of(kept)["task.decoder"][1] == "taken as it is"
    fresh = fit_to_data(origin_of(model), recipe_of(), source)
    assert rows_of(fresh)["task.decoder"] == ("nothing", "new: the file's task is classify")
    assert rows_of(fresh)["task.head"] == ("2 tensors", "left out with the head")
    data.classes = ("1", "2", "3", "4")
    other = fit_to_data(origin_of(writer), recipe_of(), source)
    assert rows_of(other)["task.decoder"][1] == "new: another alphabet or decoder"


def test_a_backbone_without_a_head() -> None:
    model = tiny_model()
    origin = origin_of(model)
    state = {k: t for k, t in origin.state.items() if k.startswith("backbone.")}
    bare = Origin("file", "vit", origin.backbone, None, origin.preprocess, state, "MIT", "0")
    assert rows_of(fit_to_data(bare, recipe_of(), source_of()))["task.head"] == (
        "nothing",
        "new: the file has no head",
    )


def test_the_rule_of_the_checkpoint_prepares_images_at_the_new_size() -> None:
    model = tiny_model()
    for rule in (Squash(size=(8, 12)), CenterCrop(size=(8, 12), crop_pct=0.8)):
        preprocess = model.config.preprocess.model_copy(update={"resize": rule})
        changed = Model(model.config.model_copy(update={"preprocess": preprocess}))
        start = fit_to_data(origin_of(changed), recipe_of("model.image_size=[16, 16]"), source_of())
        assert start.model.config.preprocess.resize == rule.model_copy(update={"size": (16, 16)})
        kept = fit_to_data(origin_of(changed), recipe_of(), source_of())
        assert kept.model.config.preprocess == preprocess


@pytest.mark.parametrize("change", ["depth=3", "width=32", "registers=2", "mlp_ratio=3.0"])
def test_another_backbone_is_refused_by_the_first_tensor(change: str) -> None:
    with pytest.raises(ConfigError, match=r"another model than that of file: '.*' is .* there and"):
        fit_to_data(origin_of(tiny_model()), recipe_of(f"model.backbone.{change}"), source_of())


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("case", ["hf_vit", "google_vit_prelogits", "timm_swinv2"])
def test_checkpoints_of_other_libraries(case: str, tmp_path: Path) -> None:
    beside = Path(__file__).resolve().parents[3] / "shared" / "golden"
    folder = Path(os.environ.get("VITRAIL_GOLDEN") or beside) / case
    if not folder.is_dir():
        pytest.skip("golden files not found: set VITRAIL_GOLDEN or put them in ../shared/golden")
    file = folder / json.loads((folder / "case.json").read_text(encoding="utf-8"))["checkpoint"]
    loaded = load_checkpoint(file)
    result = train(
        str(write_folder(tmp_path / "data")),
        weights=str(file),
        method="head",
        overrides=[*QUICK[1:3], "schedule.epochs=1"],
        out=tmp_path / "run",
    )
    model, provenance = load_model(result.model)
    assert model.config.backbone == loaded.described.backbone
    assert model.config.preprocess == loaded.described.preprocess
    state = model.state_dict()
    for name, tensor in loaded.state.items():
        if name.startswith("backbone."):
            assert torch.equal(state[name], tensor), name
    assert provenance.licence == f"fine-tuned from {file}, licence: {loaded.licence}"


def test_what_a_foreign_file_does_not_tell_is_asked_for_by_its_key(tmp_path: Path) -> None:
    def ask(*_: object) -> None:
        raise CheckpointError("x.pth: give --set heads=3, or --variant NAME of `vitrail models`")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_module, "open_origin", ask)
        with pytest.raises(
            CheckpointError, match=r"--set weights\.backbone\.heads=3, or --model N"
        ):
            train(str(write_folder(tmp_path / "data")), weights="x.pth")


# Whole runs. The first one learns all digits in two epochs, the others go on with three of them.


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "write_report", empty_report)
        return train(
            "digits",
            overrides=["schedule.epochs=2", 'data.workers={kind="serial"}'],
            out=tmp_path_factory.mktemp("first") / "run",
        )


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ones, fours and sevens under other names."""
    from sklearn.datasets import load_digits

    root, digits = tmp_path_factory.mktemp("three"), cast("Any", load_digits())
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        if target in (1, 4, 7) and number < 900:
            (root / f"d{target}").mkdir(exist_ok=True)
            pixels = np.rint(image * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"d{target}" / f"{number:04}.png")
    return root


def empty_report(run: Path, **_: object) -> Path:
    return run / "report.html"


QUIET = ("schedule.epochs=3", 'data.workers={kind="serial"}')


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "write_report", empty_report)


def rests(name: str, method: str) -> bool:
    """Whether a tensor of the nano model must be as it was; its groups are a stem and 4 blocks."""
    if not name.startswith("backbone."):
        return False
    match method:
        case "head":
            return True
        case "lora":
            return not name.endswith((".qkv.weight", ".proj.weight", ".fc1.weight", ".fc2.weight"))
        case "last-2":
            early = ("patch_embed", "pos_embed", "prefix_token", "blocks.0.", "blocks.1.")
            return name.startswith(tuple(f"backbone.{part}" for part in early))
        case _:
            return False


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("method", ["full", "head", "lora", "last-2"])
def test_each_method_learns_and_leaves_the_rest_alone(
    method: str, first: TrainResult, three: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Said):
            said.append(event.text)

    result = train(
        str(three),
        weights=str(first.run if method == "full" else first.model),
        method=method,
        overrides=QUIET,
        out=tmp_path / "run",
        listener=listen,
    )
    assert result.metrics["top1"] > 0.6, "chance is a third"
    before, after = load_file(first.model), load_file(result.model)
    assert before.keys() == after.keys()
    stem_projection = "backbone.patch_embed.proj.weight"
    resting = {name for name in before if rests(name, method)} | (
        {stem_projection} if method == "lora" else set()
    )
    for name in before:
        if name.startswith("backbone.") and before[name].numel():
            assert torch.equal(before[name], after[name]) == (name in resting), name
    model, provenance = load_model(result.model)
    assert model.config.task.classes == ("d1", "d4", "d7")
    test = open_labelled(str(three), split="test")
    assert evaluate(model, test).metrics == result.metrics
    row = next(iter(predict(model, open_images([str(three / "d1")]))))
    assert row.prediction is not None
    assert provenance.licence.startswith("fine-tuned from ")
    assert provenance.licence.endswith("licence: the data owner's; trained from scratch")
    assert provenance.recipe["weights"]["sha256"] == open_origin(str(first.model)).sha256
    info = json.loads((result.run / "run.json").read_text(encoding="utf-8"))
    assert info["weights"]["table"][-1] == [
        "task.head",
        "2 tensors",
        "new: the data's 3 classes instead of 10 others",
    ]
    assert info["method"] == method
    assert sum("task.head" in text for text in said) == 1


def test_the_report_shows_the_table(first: TrainResult, three: Path, tmp_path: Path) -> None:
    result = train(
        str(three),
        weights=str(first.run),
        method="last-1",
        overrides=[*QUIET, "schedule.epochs=1"],
        out=tmp_path / "run",
    )
    page = result.report.read_text(encoding="utf-8")
    section = page[page.index('<section id="start"') : page.index('<section id="curves"')]
    assert "<td>new: the data&#39;s 3 classes instead of 10 others</td>" in section
    assert section.count("<tr>") == 1 + 5
    assert "(<code>last-1</code>)" in section
    assert "fine-tuned from" in section


class StopError(Exception):
    """In the place of `kill -9`."""


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("method", "stop"), [("lora", 3), ("lora", 6), ("head", 5), ("full", 1)])
def test_resuming_needs_the_weights_no_more_and_leaves_no_trace(
    method: str, stop: int, first: TrainResult, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data")
    weights = tmp_path / "weights.safetensors"
    options: dict[str, Any] = {
        "weights": str(weights),
        "method": method,
        "overrides": [*QUICK, "run.checkpoint_steps=2"],
    }
    shutil.copy(first.model, weights)
    whole = train(str(data), out=tmp_path / "whole", **options)
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if sum(not isinstance(event, Said) for event in seen) == stop:
            raise StopError

    with pytest.raises(StopError):
        train(str(data), out=tmp_path / "cut", listener=listen, **options)
    weights.unlink()
    resumed = train(out=tmp_path / "cut", resume=True)
    one, two = load_file(whole.model), load_file(resumed.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert load_model(resumed.model)[1].licence == load_model(whole.model)[1].licence


@pytest.mark.usefixtures("no_report")
def test_a_damaged_start_is_told(first: TrainResult, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    train(str(data), weights=str(first.run), overrides=QUICK, out=tmp_path / "run")
    path = start_file(tmp_path / "run")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"start\.safetensors: damaged"):
        train(out=tmp_path / "run", resume=True)


@pytest.mark.usefixtures("no_report")
def test_several_labels_from_one(first: TrainResult, tmp_path: Path) -> None:
    table = write_multilabel(tmp_path / "data")
    result = train(
        str(table), weights=str(first.run), method="head", overrides=QUICK, out=tmp_path / "run"
    )
    assert "map" in result.metrics


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"weights": "nowhere.safetensors"}, "nowhere"),
        ({"weights": "vit_tiny_patch16_224"}, "is a variant without weights"),
        ({"method": "last-9"}, "the model has 5 layer groups; take fewer"),
        ({"method": "first-2"}, "no method 'first-2'; take full, head, lora, or last-N"),
        ({"method": "last-0"}, "no method 'last-0'"),
        ({"method": "head", "overrides": [*QUICK, "optim.freeze=1"]}, "goes with method = 'full'"),
        ({"overrides": [*QUICK, 'weights.sha256="00"']}, "its SHA-256 is"),
        ({"overrides": [*QUICK, "model.backbone.depth=9"]}, "makes another model than that of"),
    ],
)
def test_what_cannot_be_gone_on_from_leaves_no_folder(
    changes: dict[str, Any], wanted: str, first: TrainResult, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data")
    options = {"weights": str(first.run), "overrides": QUICK} | changes
    with pytest.raises(UserError) as caught:
        train(str(data), out=tmp_path / "run", **options)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_not_finished_is_no_origin(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelFileError, match="finish it with"):
        open_origin(str(tmp_path))


def test_an_origin_of_ours(tmp_path: Path) -> None:
    model = tiny_model()
    path = save_model(model, tmp_path / "x.safetensors", Provenance(seed=7, licence="MIT"))
    origin = open_origin(str(path))
    assert (origin.seed, origin.licence, origin.name) == (7, "MIT", "vit")
    assert origin.state.keys() == model.state_dict().keys()
    fresh = Model(model.config)
    rows = carry(origin, fresh)
    assert {row.found for row in rows} >= {"1 tensor", "2 tensors"}
    assert all(torch.equal(fresh.state_dict()[k], t) for k, t in model.state_dict().items())
