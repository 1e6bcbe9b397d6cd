"""The owners' Swin checkpoints: microsoft/Swin-Transformer, v1 and v2, and backbones of its forks.

A file tells window and image size by the shapes of its buffers, and v2's pretrained windows by the
values of its coordinates; where buffers were stripped, they have to be given. A v1 file is brought
to another window or image size as the owners' `load_pretrained` does: tables are stretched
bicubically.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.config import build
from vitrail.data.preprocess import CenterCrop, Preprocess, Squash
from vitrail.errors import CheckpointError
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.shapes import outputs
from vitrail.weights.formats.swin_file import COORDS, INDEX, MASK, SwinFile, window_mask
from vitrail.weights.formats.swin_table import (
    TABLE,
    AnySwin,
    StretchedPositions,
    StretchedTable,
    swin_table,
)
from vitrail.weights.formats.swin_windows import relative_coordinates, relative_index
from vitrail.weights.mapping import Derived, Entry, pair, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

DENSE_HEADS = {
    "decode_head.": "segment",
    "auxiliary_head.": "segment",
    "neck.": "detect",
    "rpn_head.": "detect",
    "roi_head.": "detect",
    "bbox_head.": "detect",
    "mask_head.": "detect",
}
"""Heads of the forks for dense prediction, and the task that each waits for."""


MOST_CLASSES = 1 << 16
"""Heads beyond it are nonsense; each class takes a name in memory."""


class SwinReader(Reader):
    """A checkpoint of the owners, for classification or as the backbone of dense prediction."""

    name = "swin"
    publisher_licence = "MIT"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.file = SwinFile(self)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """By its names; merging stands at the end of stage 0, at timm's beginning of stage 1."""
        if checkpoint.config:
            return False
        for stem in ("", "backbone."):
            names = [n for n in checkpoint.tensors if n.startswith(f"{stem}layers.")]
            blocks = any(n.startswith(f"{stem}layers.0.blocks.0.attn.") for n in names)
            ends = any(n.startswith(f"{stem}layers.0.downsample.") for n in names)
            single = not any(n.startswith(f"{stem}layers.1.") for n in names)
            if blocks and (ends or (single and "head.fc.weight" not in checkpoint.tensors)):
                return True
        return False

    def describe(self, given: Given) -> Described:
        """The model, from shapes and buffers."""
        file = self.file
        self._refuse_dense_heads()
        if not all(file.depths):
            raise CheckpointError(f"{self.checkpoint.path}: a stage without blocks: {file.depths}")
        known = self._sizes()
        unknown, notes = self._places(known)
        kind = SwinV2Config if file.v2 else SwinConfig
        backbone, variant, more = settle(kind, known, unknown, given, self.checkpoint)
        if not given.variant and not {"window", "image_size"} & given.backbone.keys():
            self._insist_windows(backbone)
        task = None
        if self.any("head.") and not file.dense:
            count = outputs(self.checkpoint, ("head.weight", "head.bias"))
            if count > MOST_CLASSES:
                raise CheckpointError(f"{self.checkpoint.path}: 'head.bias' names {count} classes")
            classes = self.class_names(count, given, {})
            source = str(self.checkpoint.path)
            task = build(ClassifyConfig, {"classes": classes}, source=source)
        return Described(
            backbone=backbone,
            task=task,
            preprocess=_evaluation(backbone.image_size),
            variant=variant,
            notes=(*notes, *more, "images are prepared as in the owners' evaluation"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table; what was made for another window or image size is stretched."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        norm = f"norm{len(config.depths) - 1}" if self.file.dense else "norm"
        entries = swin_table(config, self.file.stem, norm)
        if described.classifier:
            entries += pair("task.head", "head.")
        return [self._stretched(entry, config) for entry in entries]

    def derived(self, described: Described) -> list[Derived]:
        """Buffers, with what they must hold, and norms that belong to dense heads."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        found = self.file.derived(config)
        if self.file.dense:
            for stage, width in enumerate(config.widths[:-1]):
                name = f"{self.file.stem}norm{stage}"
                found += [Derived(f"{name}.weight", (width,)), Derived(f"{name}.bias", (width,))]
        return found

    def _refuse_dense_heads(self) -> None:
        for beginning, task in DENSE_HEADS.items():
            heads = [name for name in self.checkpoint.tensors if name.startswith(beginning)]
            if heads:
                raise CheckpointError(
                    f"{self.checkpoint.path}: a Swin of dense prediction with a head "
                    f"('{heads[0]}' and {len(heads) - 1} more); it needs the task '{task}', which "
                    "this version does not have yet; the file without its head is read"
                )

    def _sizes(self) -> dict[str, object]:
        """What shapes of parameters tell."""
        file, tensors = self.file, self.checkpoint.tensors
        width = self.shape(f"{file.stem}patch_embed.proj.bias", 1)[0]
        kernel = self.shape(f"{file.stem}patch_embed.proj.weight", 4)
        if kernel[:2] != (width, 3) or kernel[2] != kernel[3] or kernel[3] == 0:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor '{file.stem}patch_embed.proj.weight' has shape "
                f"{list(kernel)}, which is no square patch of three colours to width {width}"
            )
        absolute = f"{file.stem}absolute_pos_embed" in tensors
        known: dict[str, object] = {
            "width": width,
            "patch_size": kernel[3],
            "depths": file.depths,
            "heads": tuple(file.heads(stage) for stage in range(len(file.depths))),
            "mlp_ratio": file.mlp_ratio(width),
            "positions": "absolute_and_relative" if absolute else "relative",
            "eps": 1e-5,
        }
        if not file.v2:
            known["qkv_bias"] = any(name.endswith(".attn.qkv.bias") for name in tensors)
        return known

    def _places(self, known: dict[str, object]) -> tuple[dict[str, str], list[str]]:
        """Add windows and image size to what is known; what nothing tells, and notes."""
        file, unknown, notes = self.file, dict[str, str](), list[str]()
        patch = self.shape(f"{file.stem}patch_embed.proj.weight")[3]
        largest = max((window for window in file.windows if window), default=0)
        if largest:
            known["window"] = largest
        else:
            unknown["window"] = "8"
        image = file.image(patch)
        if file.dense:
            notes.append("norms before the last stage belong to a dense head and are not taken")
        if image:
            known["image_size"] = (image, image)
        elif file.dense and largest:
            # A dense model never shrinks a window: its maps are larger than that.
            side = patch * 2 ** (len(file.depths) - 1) * max(16, -(-largest * 5 // 3))
            known["image_size"] = (side, side)
            notes.append(f"image_size {side} is assumed, where every map exceeds its window")
        else:
            unknown["image_size"] = "[256, 256]"
        if file.v2:
            before = [file.pretrained(stage) for stage in range(len(file.depths))]
            if all(window is None for window in before):
                unknown["pretrained_windows"] = "[12, 12, 12, 6]"
            else:
                windows = tuple(window or 0 for window in before)
                known["pretrained_windows"] = windows if any(windows) else ()
        return unknown, notes

    def _insist_windows(self, config: AnySwin) -> None:
        """Windows that follow from window and image size must be those of the tables."""
        for stage, windows in enumerate(config.windows):
            own = self.file.windows[stage]
            if own is not None and own != windows.size:
                names = [*self.file.named(stage, TABLE), *self.file.named(stage, INDEX)]
                raise CheckpointError(
                    f"{self.checkpoint.path}: tensor '{(names or ['attn_mask'])[0]}' is for "
                    f"windows of {own}, but at image size {config.image_size}, which other "
                    f"tensors tell, they are {windows.size}; give --set image_size=[height,width]"
                )

    def _stretched(self, entry: Entry, config: AnySwin) -> Entry:
        theirs = entry.theirs[0]
        if theirs.endswith(TABLE):
            stage = int(theirs.removeprefix(f"{self.file.stem}layers.").split(".")[0])
            before, after = self.file.windows[stage], config.windows[stage].size
            if before and before != after:
                return Entry(entry.ours, entry.theirs, StretchedTable(before, after))
        if theirs.endswith("absolute_pos_embed"):
            count = self.shape(theirs, 3)[1]
            side, grid = math.isqrt(count), config.grids[0]
            if count != grid[0] * grid[1] and side and side * side == count:
                return Entry(entry.ours, entry.theirs, StretchedPositions((side, side), grid))
        return entry


class SwinWriter(Writer):
    """A checkpoint that the owners' code loads, buffers included."""

    name = "official"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the owners' code cannot express."""
        config, task = described.backbone, described.classifier
        if not isinstance(config, SwinConfig | SwinV2Config):
            return f"family '{config.kind}' is not Swin"
        relative = config.positions in ("relative", "absolute_and_relative")
        whole = all(w.padded == w.grid for w in config.windows)
        checks = (
            (task is None or task.hidden is None, "a tanh layer before the head"),
            (config.eps == 1e-5, f"eps {config.eps:g}, only 1e-5"),
            (relative and config.shift, "windows without a shift or without relative positions"),
            (
                whole and not any(side % config.stride for side in config.image_size),
                f"image_size {config.image_size}, whose maps are no multiples of the window",
            ),
        )
        return next((f"the owners' Swin has no {lacks}" for fine, lacks in checks if not fine), "")

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> list[str]:
        """Write one .pth with the weights under `model`."""
        config = described.backbone
        assert isinstance(config, SwinConfig | SwinV2Config)
        entries = swin_table(config, "", "norm")
        entries += pair("task.head", "head.") if described.classifier else []
        tensors = write_all(entries, state) | _buffers(config)
        data = io.BytesIO()
        torch.save({"model": {name: tensor.clone() for name, tensor in tensors.items()}}, data)
        write_atomically(Path(out), data.getvalue())
        return [out]


def _buffers(config: AnySwin) -> dict[str, Tensor]:
    """What the owners' strict loading wants beside the weights."""
    found: dict[str, Tensor] = {}
    for stage, depth in enumerate(config.depths):
        windows = config.windows[stage]
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}."
            found[name + INDEX] = relative_index(windows.size)
            if block % 2 and windows.shift:
                found[name + MASK] = window_mask(windows)
            if isinstance(config, SwinV2Config):
                before = config.pretrained_windows[stage] if config.pretrained_windows else 0
                found[name + COORDS] = relative_coordinates(windows.size, before or windows.size)
    return found


def _evaluation(image_size: tuple[int, int]) -> Preprocess:
    """The owners' transform: a crop of 0.875, and none at 384 pixels."""
    if max(image_size) >= 384:
        return Preprocess(resize=Squash(size=image_size))
    return Preprocess(resize=CenterCrop(size=image_size, crop_pct=0.875))
