"""Occlusion: what is covered, what is measured, and that memory is bounded."""

from __future__ import annotations

import pytest
import torch

from presets import PRESETS, preset_model
from spotted import SIZE, STRIDE, spot_image, spot_model
from tiny import photo, tiny_config, tiny_model
from vitrail.errors import ExplainError
from vitrail.explain.occlusion import Occlusion, default_stride


@pytest.mark.parametrize("cover", ["mean", "blur"])
@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("place", [(0, 0), (1, 4), (3, 5)])
def test_the_patch_that_decides_is_found(score: str, cover: str, place: tuple[int, int]) -> None:
    method = Occlusion(window=STRIDE, stride=STRIDE, cover=cover, score=score)
    found = method.explain(spot_model("mean"), spot_image(*place)[None], [0])[0]
    assert found.shape == (4, 6)
    assert divmod(int(found.argmax()), 6) == place
    others = found.clone()
    others[place] = 0
    assert float(others.max()) < 0.2 * float(found[place])


def by_hand(image: torch.Tensor, cell: tuple[int, int], window: int, stride: int) -> torch.Tensor:
    """The image with one square of its mean colour, whose middle is the middle of a cell."""
    covered = image.clone()
    top, left = (stride * at + (stride - window) // 2 for at in cell)
    mean = image.float().mean(dim=(1, 2), keepdim=True).round().to(torch.uint8)
    covered[:, max(top, 0) : top + window, max(left, 0) : left + window] = mean
    return covered


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (8, 4), (3, 2), (5, 5), (6, 1)])
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_each_cell_is_the_drop_of_one_covered_image(score: str, window: int, stride: int) -> None:
    model, images = tiny_model(), torch.stack([photo(1, 9, 11), photo(2, 9, 11)])
    method = Occlusion(window=window, stride=stride, score=score, batch=7)
    drops = method.drops(model, images, [2, 0])
    assert drops.shape == (2, -(-9 // stride), -(-11 // stride))
    with torch.no_grad():

        def measured(image: torch.Tensor, about: int) -> float:
            logits = model(image[None])
            return float((logits.softmax(1) if score == "probability" else logits)[0, about])

        for i, about in enumerate((2, 0)):
            whole = measured(images[i], about)
            for cell in [(0, 0), (drops.shape[1] - 1, drops.shape[2] - 1), (1, 1)]:
                expected = whole - measured(by_hand(images[i], cell, window, stride), about)
                assert float(drops[(i, *cell)]) == pytest.approx(expected, abs=1e-5)
    assert torch.equal(method.explain(model, images, [2, 0]), drops.clamp_min(0))
    assert float(drops.min()) < 0


def test_probabilities_are_those_of_the_model() -> None:
    """At its temperature, and by label where there may be several."""
    image = photo(1)[None]
    for task in ({"temperature": 3.0}, {"multilabel": True}):
        model = tiny_model(**task)
        drop = Occlusion(window=4, stride=4).drops(model, image, [1])[0, 1, 2]
        with torch.no_grad():
            two = model(torch.stack([image[0], by_hand(image[0], (1, 2), 4, 4)]))
        before, after = model.task.probabilities(two)[:, 1]
        torch.testing.assert_close(drop, before - after)


def test_a_blurred_copy_keeps_what_is_even() -> None:
    """In an even image blur changes nothing; at a spot it does."""
    model, even = spot_model("mean"), torch.full((1, 3, *SIZE), 110, dtype=torch.uint8)
    method = Occlusion(window=STRIDE, stride=STRIDE, cover="blur", score="logit")
    assert float(method.drops(model, even, [0]).abs().max()) < 1e-6
    assert float(method.drops(model, spot_image(2, 2)[None], [0]).max()) > 0.01


@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_no_more_images_run_at_a_time_than_allowed(batch: int) -> None:
    model, sizes = tiny_model(), list[int]()
    model.backbone.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    maps = Occlusion(batch=batch).explain(model, photo(1)[None], [0])
    cells = maps[0].numel()
    assert max(sizes) == min(batch, cells)
    assert sum(sizes) == cells + 1
    torch.testing.assert_close(maps, Occlusion().explain(model, photo(1)[None], [0]))


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [
        ("resnet_nano_8", (32, 32), 4),
        ("resnet_nano_8", (16, 32), 2),
        ("swin_nano_8", (16, 16), 2),
        ("swin_nano_8", (8, 8), 1),
        ("vit_nano_conv2_8", (8, 8), 2),
    ],
)
def test_the_default_stride_is_a_cell_of_a_map_that_is_fine_enough(
    name: str, size: tuple[int, int], stride: int
) -> None:
    model = preset_model(PRESETS[name])
    assert default_stride(model.backbone, size) == stride


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stride": 0}, "each must be at least 1"),
        ({"window": 0}, "each must be at least 1"),
        ({"batch": 0}, "each must be at least 1"),
        ({"window": 3, "stride": 4}, "window 3 is smaller than stride 4"),
    ],
)
def test_settings_that_make_no_map_are_refused(changes: dict[str, int], said: str) -> None:
    model = tiny_model(backbone=tiny_config())
    with pytest.raises(ExplainError, match=said):
        Occlusion(**changes).explain(model, photo(1)[None], [0])
