"""A tiny DETR and a tiny YOLOS with random weights, for the tests of their formats."""

from __future__ import annotations

from typing import Any

import torch

from tiny import randomise
from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig
from vitrail.data.preprocess import Fit, Preprocess
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.weights.convert import loaded_from
from vitrail.weights.formats.hf_detr import detr_readout
from vitrail.weights.load import Loaded

CLASSES = ("cat", "dog", "N/A (2)")


def preprocess(cut_to: int = 1) -> Preprocess:
    fit = Fit(short=32, long=64, multiple=1, cut_to=cut_to)
    return Preprocess(resize=fit, interpolation="bilinear")


def tiny_detr(**trunk: Any) -> Loaded:
    """With another number of heads, layers and hidden units in the encoder than in the decoder."""
    table: dict[str, Any] = {"image_size": (32, 64), "depths": (1, 2), "width": 6, "widths": (4, 8)}
    task = DetectConfig.model_validate(
        {
            "classes": CLASSES,
            "category_ids": (0, 1, 2),
            "scoring": "softmax",
            "max_detections": 5,
            "readout": detr_readout(
                width=16,
                depth=2,
                heads=4,
                hidden=24,
                queries=5,
                encoder={"depth": 1, "heads": 4, "hidden": 24},
            ),
        }
    )
    backbone = ResNetConfig(**(table | trunk))
    return _loaded(ModelConfig(backbone=backbone, task=task, preprocess=preprocess()))


def tiny_yolos(**changes: Any) -> Loaded:
    table: dict[str, Any] = {
        "image_size": (16, 24),
        "stem": PatchStemConfig(patch_size=8),
        "positions": Learned1dConfig(resampling="bicubic"),
        "positions_in": "layers",
        "width": 16,
        "depth": 3,
        "heads": 4,
        "mlp_ratio": 2.0,
        "eps": 1e-12,
        "detection_tokens": 5,
    }
    task = DetectConfig.model_validate(
        {
            "classes": CLASSES,
            "category_ids": (0, 1, 2),
            "scoring": "softmax",
            "max_detections": 5,
            "readout": {"kind": "tokens"},
        }
    )
    backbone = ViTConfig(**(table | changes))
    return _loaded(ModelConfig(backbone=backbone, task=task, preprocess=preprocess(16)))


def _loaded(config: ModelConfig) -> Loaded:
    torch.manual_seed(0)
    model = randomise(Model(config), std=0.2).eval()
    return loaded_from(model, "tiny", "")


def same(a: Loaded, b: Loaded) -> bool:
    """Whether configuration and weights are alike."""
    weights = all(torch.equal(a.state[key], b.state[key]) for key in a.state)
    one, other = a.described, b.described
    told = (one.backbone, one.task, one.preprocess) == (
        other.backbone,
        other.task,
        other.preprocess,
    )
    return weights and a.state.keys() == b.state.keys() and told
