"""A case of golden outputs: an input, and what the original implementation computes from it.

A case is a folder with `case.json` (format, every hyper-parameter, tolerance) and
`io.safetensors` (inputs and outputs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.reader import Given

INTERMEDIATE = 3.0
"""Hidden states grow larger than logits: they are allowed so many times the tolerance."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        folder: Where it lies.
        format: Format of its checkpoint.
        config: Every hyper-parameter, also those that the checkpoint does not hold.
        inputs: What goes into the model.
        expected: What came out of the original.
        atol: Largest absolute difference of a main output.
        rtol: Beside it, relative to the value.
        table: The whole of `case.json`.
    """

    folder: Path
    format: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    atol: float
    rtol: float
    table: Mapping[str, Any]

    @property
    def given(self) -> Given:
        """What the case says of its checkpoint beside the file."""
        family, bare = str(self.table.get("family")), not (self.folder / "config.json").is_file()
        if self.format == "timm" and bare:
            return Given(backbone=_timm(self.config))
        if self.format == "detr-pth":
            return _detr(self.config)
        return Given(backbone=_beside(self.format, family, self.config))

    @property
    def implementation(self) -> str:
        """What computed the outputs."""
        source = self.table.get("source", "")
        if not isinstance(source, dict):
            return str(source)
        return str(cast("dict[str, object]", source).get("implementation", "not stated"))

    def limit(self, output: str) -> float:
        """Absolute tolerance of an output."""
        return self.atol * (1.0 if is_main(output) else INTERMEDIATE)


def is_main(output: str) -> bool:
    """Whether an output is what the model answers, and not a step on the way there."""
    return output.startswith(("logits", "masks", "pred_boxes"))


def read_case(folder: Path) -> Case:
    """A case from its folder.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    path = folder / "case.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        io = load_file(folder / "io.safetensors")
        tolerance = table["tolerance"]
        return Case(
            folder=folder,
            format=table["format"],
            config=table["config"],
            inputs={name: io[name] for name in table["inputs"] if name in io},
            expected={name: io[name] for name in table["outputs"]},
            atol=float(tolerance["suggested_atol"]),
            rtol=float(tolerance["suggested_rtol"]),
            table=table,
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename}: no such file; --golden wants a case") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no golden case, or damaged ({error!r})") from error


def _beside(format_: str, family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the backbone that a checkpoint of the format does not tell."""
    if format_ in ("hf", "timm"):
        return {}
    if family == "transformer":
        return _transformer(config)
    if family in ("swin", "swinv2"):
        return _swin(config)
    fields: dict[str, Any] = {}
    if "heads" in config:
        fields["heads"] = config["heads"]
    if format_ == "bigvision-npz":
        # Without its table or its token, such a file is another whole model.
        fields |= {"positions": {"kind": "learned_1d"}} if config.get("posemb") == "learn" else {}
        fields |= {"class_token": True} if config.get("pooling") == "tok" else {}
    elif format_ == "google-npz":
        fields["positions"] = {"kind": "learned_1d"}
    size = _table_size(config)
    if size is not None and (size[0] != size[1] or config.get("posemb") == "sincos2d"):
        fields["image_size"] = size
    return fields


def _table_size(config: Mapping[str, Any]) -> list[int] | None:
    """Image size that the position table of the file is made for."""
    grid, patch = config.get("file_position_grid"), config.get("patch_size")
    if isinstance(grid, list) and isinstance(patch, int):
        return [side * patch for side in cast("list[int]", grid)]
    size = config.get("image_size")
    return cast("list[int]", size) if isinstance(size, list) else None


def _swin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Windows and image size, which the file has only where its buffers were kept."""
    names = {
        "window_size": "window",
        "image_size": "image_size",
        "pretrained_window_sizes": "pretrained_windows",
        "num_heads": "heads",
    }
    fields = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    absolute = {"positions": "absolute_and_relative"} if config.get("absolute_pos_embed") else {}
    return fields | absolute


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """From timm's arguments, where no `config.json` stands beside the weights."""
    arguments: Mapping[str, Any] = config.get("timm_kwargs", {})
    names = {"num_heads": "heads", "window_size": "window"}
    fields = {ours: arguments[theirs] for theirs, ours in names.items() if theirs in arguments}
    size = config.get("input_size")
    return fields | ({"image_size": size} if isinstance(size, list) else {})


def _detr(config: Mapping[str, Any]) -> Given:
    """Heads and dilation, which no tensor shows."""
    heads, trunk = config["heads"], config.get("backbone", {})
    dilated = config.get("dilation") or trunk.get("dilation")
    return Given(backbone={"dilated": True} if dilated else {}, task={"readout": {"heads": heads}})


def _transformer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `vitrail.transformer.TransformerConfig`."""
    return {
        "heads": config["heads"],
        "activation": config["activation"],
        "eps": config["layernorm_eps"],
        "norm": "pre" if config["norm_first"] else "post",
        "padding_id": config["padding_id"],
    }
