"""The folder that timm loads: `model.safetensors` and `config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vitrail.data.preprocess import CenterCrop, Preprocess, Squash
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described


def refuses_preprocess(preprocess: Preprocess) -> str:
    """Why timm cannot prepare images like this, or an empty string."""
    if preprocess.channel_order != "rgb":
        return "timm has no BGR images"
    if not preprocess.antialias:
        return "timm resizes with antialias only (--set preprocess.antialias=true gives way)"
    if not isinstance(preprocess.resize, CenterCrop | Squash):
        return f"timm cannot resize by '{preprocess.resize.kind}'"
    return ""


def write_folder(
    described: Described,
    architecture: str,
    args: Mapping[str, Any],
    features: int,
    tensors: Mapping[str, Tensor],
    out: Path,
) -> list[str]:
    """`model.safetensors` and `config.json`, as timm's `local-dir:` and hub folders have them.

    Args:
        described: The model.
        architecture: timm's name of the model that `args` make into this one.
        args: Arguments beside image size and classes.
        features: Width of what the head reads.
        tensors: By timm's names.
        out: The folder.
    """
    classes = described.classifier.classes if described.classifier else ()
    args = {**args, "num_classes": len(classes)}
    table: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": len(classes),
        "num_features": features,
        "global_pool": args["global_pool"],
        "model_args": args,
        "pretrained_cfg": {
            **_written(described.preprocess),
            "fixed_input_size": "img_size" in args,
            "num_classes": len(classes),
            **({"license": described.licence} if described.licence else {}),
        },
    }
    if classes != tuple(str(i) for i in range(len(classes))):
        table["label_names"] = list(classes)
    weights, config = out / "model.safetensors", out / "config.json"
    write_atomically(weights, save(dict(tensors), {"format": "pt"}))
    write_atomically(config, json.dumps(table, indent=2).encode())
    return [str(weights), str(config)]


def _written(preprocess: Preprocess) -> dict[str, Any]:
    resize = preprocess.resize
    assert isinstance(resize, CenterCrop | Squash)
    crop = isinstance(resize, CenterCrop)
    return {
        "input_size": [3, *resize.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": resize.crop_pct if crop else 1.0,
        "crop_mode": "center" if crop else "squash",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }
