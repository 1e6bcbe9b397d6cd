"""A recipe is chosen from the data, and the choice is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pictures import in_memory, write_folder
from segmenter import SegmentList
from tiny import ListDataset, photo
from vitrail.backbones import VARIANTS
from vitrail.backbones.swin import SwinConfig
from vitrail.backbones.vit import ViTConfig
from vitrail.data.dataset import Source
from vitrail.data.open import open_source
from vitrail.data.planted import PATCH, SIDE
from vitrail.errors import ConfigError, DataError
from vitrail.train.choose import choose_recipe, typical_size, typical_width
from vitrail.types import VOID, Segments


def source_of(train: ListDataset) -> Source:
    parts = {"train": train, "val": train, "test": train}
    return Source("data", "a list", "made here", parts, (), "00")


def sized(height: int, width: int, count: int = 4) -> Source:
    return source_of(ListDataset([photo(i, height, width) for i in range(count)]))


def test_void_is_no_part_of_the_width_of_thin_things() -> None:
    ids = torch.zeros((1, 60, 60), dtype=torch.int16)
    ids[0, 30:33] = 1
    lines = SegmentList([photo(0, 60, 60)], [Segments(ids, (0,))], ("road",))
    assert typical_width(lines) == pytest.approx(3, abs=0.3)
    ids = ids.clone()
    ids[0, :20] = ids[0, 40:] = 2
    framed = SegmentList([photo(0, 60, 60)], [Segments(ids, (0, VOID))], ("road",))
    assert typical_width(framed) == typical_width(lines)


@pytest.mark.parametrize(
    ("height", "width", "preset"),
    [(8, 8, "small-images"), (28, 28, "small-images"), (20, 64, "small-images"),
     (65, 10, "small-data"), (200, 300, "small-data")],
)  # fmt: skip
def test_the_size_of_the_images_decides(height: int, width: int, preset: str) -> None:
    chosen = choose_recipe(sized(height, width))
    assert chosen.name == preset
    assert str(max(height, width)) in chosen.reason
    assert chosen.recipe.schedule.epochs is not None


def test_many_photos_take_the_published_recipe() -> None:
    source = sized(100, 100)
    train = source.splits["train"]

    class Many(ListDataset):
        def __len__(self) -> int:
            return 200_000

        def read(self, index: int):
            return train.read(index % 4)

    many = Many([photo(0)], ids=["one"])
    assert choose_recipe(source_of(many)).name == "deit"


def test_small_images_keep_their_size() -> None:
    recipe = choose_recipe(sized(20, 64)).recipe
    assert recipe.model.image_size == (20, 64)


def test_a_name_a_model_and_overrides_win() -> None:
    chosen = choose_recipe(
        sized(8, 8), name="small-data", model="vit_nano_conv2_8", overrides=["schedule.epochs=7"]
    )
    assert chosen.name == "small-data"
    assert chosen.reason.startswith("as asked; 7 epochs")
    assert chosen.recipe.model.name == "vit_nano_conv2_8"
    own = choose_recipe(sized(8, 8), model="a", overrides=["model.name=vit_nano_conv4_28"])
    assert own.recipe.model.name == "vit_nano_conv4_28"


def test_wrong_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'optim\.larning_rate'"):
        choose_recipe(sized(8, 8), overrides=["optim.larning_rate=1"])


def test_the_typical_size_is_a_median_and_passes_over_bad_files() -> None:
    images = [photo(0, 10, 20), None, photo(1, 30, 40), photo(2, 500, 600), None]
    assert typical_size(ListDataset(images)) == (30, 40)


def test_a_hundred_thousand_images_are_not_all_looked_at() -> None:
    data = in_memory(300)
    looked: list[int] = []
    read = data.read
    data.read = lambda index: looked.append(index) or read(index)
    typical_size(data)
    assert len(looked) == 32
    assert max(looked) > 200, "spread over all"


def test_no_image_that_can_be_read() -> None:
    with pytest.raises(DataError, match="no training image can be read; `vitrail check`"):
        typical_size(ListDataset([None, None]))


def test_files_and_memory_choose_alike(tmp_path: Path) -> None:
    source = open_source(str(write_folder(tmp_path / "data")))
    chosen = choose_recipe(source)
    assert chosen.name == "small-images"
    assert dataclasses.asdict(choose_recipe(source)) == dataclasses.asdict(chosen)


def test_planted_images_have_a_recipe_of_their_own() -> None:
    chosen = choose_recipe(open_source("planted"))
    assert chosen.name == "planted"
    assert "built-in" in chosen.reason
    assert chosen.recipe.model.name == "vit_nano_patch4_40"
    assert chosen.recipe.schedule.epochs == 6
    other = choose_recipe(open_source("planted"), model="swin_nano_40")
    assert (other.name, other.recipe.model.name) == ("planted", "swin_nano_40")
    assert chosen.recipe.augment.geometry.kind == "none", "a cut patch would be another pattern"


@pytest.mark.parametrize(
    "name",
    ["vit_nano_patch4_40", "deit_nano_distilled_patch4_40", "t2t_nano_40", "swin_nano_40"],
)
def test_models_for_planted_images(name: str) -> None:
    backbone = VARIANTS[name].config
    assert backbone.image_size == (SIDE, SIDE)
    finest = backbone.strides[0] if isinstance(backbone, SwinConfig) else backbone.stride
    assert 2 * finest <= PATCH, "a whole cell lies in the patch, wherever that is"
    if isinstance(backbone, ViTConfig):
        assert backbone.stem.kind == "patch"
        assert backbone.pool == "class"


def test_weights_are_gone_on_from_gently_and_bring_their_own_size() -> None:
    chosen = choose_recipe(sized(200, 300), weights='odd "name".pth')
    assert chosen.name == "fine-tune"
    assert chosen.reason.startswith("weights are given; ")
    assert chosen.recipe.weights is not None
    assert chosen.recipe.weights.file == 'odd "name".pth'
    assert chosen.recipe.model.image_size is None
    assert chosen.recipe.optim.method == "full"
    assert chosen.recipe.augment.hflip == 0.5
    same = choose_recipe(sized(200, 300), overrides=["weights.file=x.pth"])
    assert same.name == "fine-tune"


def test_small_images_are_not_mirrored_when_fine_tuning_either() -> None:
    recipe = choose_recipe(sized(8, 8), weights="x").recipe
    assert (recipe.augment.hflip, recipe.augment.geometry.kind) == (0.0, "affine")
    assert recipe.model.image_size is None
    text = ListDataset([photo(0, 8, 30)], ["12"], ("1", "2"))
    text.text = True
    strips = choose_recipe(source_of(text), weights="x")
    assert (strips.name, strips.recipe.model.image_size) == ("strips", None)


def test_what_starts_from_nothing_learns_faster() -> None:
    full, head = (
        choose_recipe(sized(200, 300), weights="x", method=m).recipe for m in ("full", "head")
    )
    assert head.optim.method == "head"
    assert head.optim.lr > full.optim.lr
    assert full.optim.layer_decay < head.optim.layer_decay == 1.0
    own = choose_recipe(sized(9, 9), weights="x", method="lora", overrides=["optim.lr=0.5"])
    assert own.recipe.optim.lr == 0.5


def test_a_model_beside_weights_says_what_they_are() -> None:
    chosen = choose_recipe(sized(8, 8), weights="x", model="deit_tiny_patch16_224")
    assert chosen.recipe.weights is not None
    assert chosen.recipe.weights.variant == "deit_tiny_patch16_224"
    named = choose_recipe(sized(8, 8), name="small-images", weights="x")
    assert named.recipe.model.image_size is None, "the size of the weights"
