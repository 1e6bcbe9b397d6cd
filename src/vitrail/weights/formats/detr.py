"""facebookresearch/detr: `.pth` files under `model`.

The backbone has torchvision's names and frozen norms without counters; query, key and value are
one matrix. Heads and dilation are in no tensor: they come from the arguments of a training dump,
from the user, or, for the heads, from the published files, which all are 256 wide with 8 of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vitrail.backbones.resnet import ResNetConfig
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Fit, Preprocess
from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import QueryReadout
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.detr_names import DetrNames
from vitrail.weights.formats.hf_detection import LONG, SHORT, detector_config
from vitrail.weights.formats.hf_detr import detr_readout, refuses_detr
from vitrail.weights.formats.resnet_names import torchvision_entries, torchvision_fields
from vitrail.weights.formats.shapes import agreed
from vitrail.weights.mapping import Entry, Rows, pair, write_all
from vitrail.weights.modelfile import write_atomically
from vitrail.weights.reader import Described, Given, Reader, Writer, settle

TRUNK = "backbone.0.body."
ENCODER, DECODER = "transformer.encoder.layers.", "transformer.decoder.layers."
PUBLISHED_WIDTH, PUBLISHED_HEADS = 256, 8


class Detr(Reader):
    """DETR as its authors publish it."""

    name = "official"
    publisher_licence = "Apache-2.0"

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """Its queries, its box head, or its Transformer."""
        names = checkpoint.tensors
        bare = not checkpoint.config
        starts = ("bbox_embed.layers.", TRUNK, ENCODER)
        return bare and sum(any(n.startswith(s) for n in names) for s in starts) >= 2

    def describe(self, given: Given) -> Described:
        """The model, from shapes and what was given."""
        dilated = bool(self._arguments().get("dilation", False))
        known = {"image_size": (SHORT, LONG), "dilated": dilated, **torchvision_fields(self, TRUNK)}
        backbone, variant, _ = settle(ResNetConfig, known, {}, given, self.checkpoint)
        readout, notes = self._readout(given)
        fields = {
            "readout": readout,
            "scoring": "softmax",
            "max_detections": readout["queries"]["count"],
        }
        return Described(
            backbone=backbone,
            task=detector_config(self, fields, "class_embed", given, {}),
            preprocess=Preprocess(
                resize=Fit(short=SHORT, long=LONG, multiple=1), interpolation="bilinear"
            ),
            variant=variant,
            notes=(*notes, "preprocessing as the authors evaluate"),
        )

    def entries(self, described: Described) -> list[Entry]:
        """The whole table."""
        counted = any(n.endswith("num_batches_tracked") for n in self.checkpoint.tensors)
        return entries(described, counted=counted)

    def _readout(self, given: Given) -> tuple[dict[str, Any], tuple[str, ...]]:
        checkpoint, parts = self.checkpoint, ("weight", "bias")
        depths = {"encoder": self.count(ENCODER), "decoder": self.count(DECODER)}

        def hidden(stem: str, depth: int) -> int:
            names = [f"{stem}{i}.linear1.{part}" for i in range(max(depth, 1)) for part in parts]
            return agreed(checkpoint, names)

        norms = [f"{DECODER}{i}.norm1.{p}" for i in range(max(depths["decoder"], 1)) for p in parts]
        width = agreed(checkpoint, [*norms, *(f"transformer.decoder.norm.{p}" for p in parts)])
        heads, notes = self._heads(width, given)
        encoder = None
        if depths["encoder"]:
            wide = hidden(ENCODER, depths["encoder"])
            encoder = {"depth": depths["encoder"], "heads": heads, "hidden": wide}
        readout = detr_readout(
            width=width,
            depth=depths["decoder"],
            heads=heads,
            hidden=hidden(DECODER, depths["decoder"]),
            queries=self.shape("query_embed.weight", 2)[0],
            encoder=encoder,
        )
        return readout, notes

    def _heads(self, width: int, given: Given) -> tuple[int, tuple[str, ...]]:
        said: object = given.task.get("readout")
        said = cast("Mapping[str, object]", said) if isinstance(said, Mapping) else {}
        heads: object = said.get("heads", self._arguments().get("nheads"))
        if isinstance(heads, int) and heads > 0:
            return heads, ()
        if width == PUBLISHED_WIDTH:
            note = f"heads = {PUBLISHED_HEADS}, as in all published DETRs, which are as wide"
            return PUBLISHED_HEADS, (note,)
        raise CheckpointError(
            f"{self.checkpoint.path}: the file does not tell heads; give --set task.readout.heads=8"
        )

    def _arguments(self) -> Mapping[str, Any]:
        """Of the training, where the file is a dump of it."""
        arguments = self.checkpoint.extras.get("args")
        return cast("Mapping[str, Any]", arguments) if isinstance(arguments, Mapping) else {}


class DetrWriter(Writer):
    """A `.pth` that the authors' code loads."""

    name = "official"
    task = "detect"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """What the authors' code has no switch for."""
        if reason := refuses_detr(described):
            return reason
        task = described.task
        assert isinstance(task, DetectConfig)
        assert isinstance(task.readout, QueryReadout)
        encoder = task.readout.encoder
        if encoder and (encoder.heads, encoder.hidden) != (task.readout.heads, task.readout.hidden):
            return "DETR's encoder has the heads and the hidden width of its decoder"
        colours = (described.preprocess.mean, described.preprocess.std)
        return "" if colours == (IMAGENET_MEAN, IMAGENET_STD) else "mean and std are ImageNet's"

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """Write the file."""
        file = io.BytesIO()
        torch.save({"model": write_all(entries(described, counted=False), state)}, file)
        write_atomically(Path(out), file.getvalue())
        return [out]


def entries(described: Described, *, counted: bool) -> list[Entry]:
    """The table; it follows from the description alone."""
    config, task = described.backbone, described.task
    assert isinstance(config, ResNetConfig)
    assert isinstance(task, DetectConfig)
    assert isinstance(task.readout, QueryReadout)
    table = torchvision_entries(config, TRUNK, counted=counted)
    return table + _names(task.readout.width).entries(task.readout)


def _names(width: int) -> DetrNames:
    def attention(ours: str, theirs: str) -> list[Entry]:
        rows = [Rows(start=i * width, count=width, total=3 * width) for i in range(3)]
        packed = [
            Entry(f"{ours}.{name}.{kind}", (f"{theirs}in_proj_{kind}",), layout)
            for kind in ("weight", "bias")
            for name, layout in zip("qkv", rows, strict=True)
        ]
        return packed + pair(f"{ours}.proj", f"{theirs}out_proj.")

    return DetrNames(
        encoder=ENCODER,
        decoder=DECODER,
        norm="transformer.decoder.norm.",
        own="self_attn.",
        cross="multihead_attn.",
        norms=("norm1.", "norm2.", "norm3."),
        encoder_end="norm2.",
        fc1="linear1.",
        fc2="linear2.",
        project="input_proj.",
        queries="query_embed.weight",
        classify="class_embed.",
        locate="bbox_embed.layers.",
        attention=attention,
    )
