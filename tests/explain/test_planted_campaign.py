"""Maps find the patch that the label rests on, in models that were trained on such images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spotted import SIZE, STRIDE, spot_image, spot_model
from vitrail.data.dataset import Dataset
from vitrail.data.open import open_source
from vitrail.data.planted import PATCH, SIDE
from vitrail.explain.baselines import RandomMap
from vitrail.explain.conservative import Conservative
from vitrail.explain.faithfulness.localisation import pointing, prepared_mask
from vitrail.explain.faithfulness.pixels import cell_side
from vitrail.explain.faithfulness.score import score
from vitrail.explain.gradient_rollout import GradientRollout
from vitrail.explain.method import Method
from vitrail.explain.methods import METHODS, default_method
from vitrail.explain.occlusion import Occlusion
from vitrail.model import Model
from vitrail.train.run import train
from vitrail.weights.modelfile import load_model

MODELS = ("vit_nano_patch4_40", "deit_nano_distilled_patch4_40", "t2t_nano_40", "swin_nano_40")
CHOSEN_BY = 200
"""Test images that the methods' rules were chosen by; the others judge."""


def hits(
    model: Model, method: Method, images: Tensor, classes: list[int], masks: Iterable[Tensor]
) -> list[float]:
    """Whether the greatest cell of a map lies on the evidence, image by image."""
    maps = method.explain(model, images, classes)
    cell = cell_side(model, (images.shape[2], images.shape[3]), (maps.shape[1], maps.shape[2]))
    return [pointing(heat, mask, cell) for heat, mask in zip(maps, masks, strict=True)]


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_bright_patch_is_found(pool: str) -> None:
    """In small: a model made by hand, which sees nothing but bright patches."""
    model = spot_model(pool)
    places = itertools.product(range(SIZE[0] // STRIDE), range(SIZE[1] // STRIDE))
    images = torch.stack([spot_image(*place) for place in places])
    masks, classes = list((images > 200).all(dim=1)), [0] * len(images)
    # Squares of the default size cover a patch and half of its neighbours: neighbours tie.
    exact = [m for m in METHODS if m.of_class and m.key != "occlusion"]
    assert {m.key for m in exact} >= {"conservative", "gradient_rollout", "relevance", "gradcam"}
    for method in (*exact, Occlusion(window=STRIDE)):
        assert min(hits(model, method, images, classes, masks)) == 1, method.key
    assert sum(hits(model, RandomMap(), images, classes, masks)) <= 4


def insist_found(model: Model, test: Dataset) -> None:
    """At least 95 % by both methods; a random peak is at chance."""
    methods = (Conservative(), GradientRollout(), RandomMap())
    found: dict[str, list[float]] = {method.key: [] for method in methods}
    for start in range(CHOSEN_BY, len(test), 50):
        samples = [test.read(index) for index in range(start, min(start + 50, len(test)))]
        preprocess = model.config.preprocess
        images = torch.stack([preprocess.prepare(sample.image) for sample in samples])
        masks = [prepared_mask(s.evidence, preprocess) for s in samples if s.evidence is not None]
        with torch.no_grad():
            classes = model(images).argmax(dim=1).tolist()
        for method in methods:
            found[method.key] += hits(model, method, images, classes, masks)
    shares = {key: sum(of_one) / len(of_one) for key, of_one in found.items()}
    assert shares.pop("random") == pytest.approx(PATCH**2 / SIDE**2, abs=0.02)
    assert min(shares.values()) >= 0.95, shares


@pytest.mark.campaign
@pytest.mark.parametrize("name", MODELS)
def test_the_planted_patch_is_found(name: str, tmp_path: Path) -> None:
    """Trained by the recipe that `vitrail train planted` chooses: seven minutes of one core."""
    result = train("planted", model=name, out=tmp_path / "run")
    assert result.metrics["top1"] > 0.99
    model, test = load_model(result.model)[0].eval(), open_source("planted").splits["test"]
    insist_found(model, test)
    method = default_method(model)
    scores = score(model, test, [method], samples=100)
    assert scores.beats(scores.rows[0]), scores.verdict(scores.rows[0])
