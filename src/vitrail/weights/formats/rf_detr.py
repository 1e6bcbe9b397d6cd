"""RF-DETR's own dumps (roboflow/rf-detr, `.pth`): the weights beside the arguments of the training.

The tensors have the names of the Hugging Face folders, which keep Roboflow's. What `config.json`
says there follows here from shapes and arguments, and for the published models, from their sizes
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any, NamedTuple

from vitrail.errors import CheckpointError
from vitrail.weights.checkpoint import Checkpoint
from vitrail.weights.formats.hf_rf_detr import HfRfDetrReader
from vitrail.weights.formats.shapes import insist
from vitrail.weights.reader import Reader

BODY = "backbone.0.encoder.encoder."


class _Size(NamedTuple):
    """What no tensor tells of a published model.

    Attributes:
        resolution: Side of its images.
        windows: Along each side.
        taps: After how many blocks each feature map is taken.
    """

    resolution: int
    windows: int
    taps: tuple[int, ...]


_SIXTEEN = (3, 6, 9, 12)

PUBLISHED = {
    (16, 24): _Size(384, 2, _SIXTEEN),
    (16, 32): _Size(512, 2, _SIXTEEN),
    (16, 36): _Size(576, 2, _SIXTEEN),
    (16, 44): _Size(704, 2, _SIXTEEN),
    (14, 37): _Size(560, 4, (2, 5, 8, 11)),
}
"""Nano, small, medium, large and base by side of a patch and of the table of positions."""


class RfDetrReader(HfRfDetrReader):
    """A `.pth` of RF-DETR with one map: nano, small, medium, base, and large of 2026."""

    name = "rf-detr"

    def __init__(self, checkpoint: Checkpoint) -> None:
        Reader.__init__(self, checkpoint)
        if self.any("backbone.0.projector.stages.1."):
            raise CheckpointError(
                f"{checkpoint.path}: an RF-DETR whose decoder reads several maps (large of 2025), "
                "which is replaced by large of 2026; that one can be read"
            )
        config, processor = self._settings()
        super().__init__(replace(checkpoint, config=config, preprocessor=processor))

    def known(self) -> dict[str, Any]:
        """As in the folders; Roboflow's own code refuses images that are not square."""
        return {**super().known(), "exchanged": False}

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        """By the names of query boxes and backbone, without a `config.json`."""
        names = checkpoint.tensors
        return (
            not checkpoint.config
            and "refpoint_embed.weight" in names
            and f"{BODY}embeddings.cls_token" in names
        )

    def _settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the two JSON files of a Hugging Face folder would say."""
        shapes, told = self.shape, _arguments(self.checkpoint)
        width, _, patch, _ = shapes(f"{BODY}embeddings.patch_embeddings.projection.weight", 4)
        side = isqrt(shapes(f"{BODY}embeddings.position_embeddings", 3)[1] - 1)
        size = self._size(told, patch, side)
        groups = self.count("transformer.enc_output.")
        hidden = shapes(f"{BODY}encoder.layer.0.mlp.fc1.weight", 2)[0]
        points = told.get("dec_n_points", 2)
        samples = insist(
            self.checkpoint,
            "transformer.decoder.layers.0.cross_attn.attention_weights.bias",
            (None,),
            "each head weighs its samples",
        )[0]
        backbone = {
            "hidden_size": width,
            "num_hidden_layers": self.count(f"{BODY}encoder.layer."),
            "num_attention_heads": max(1, width // 64),
            "mlp_ratio": hidden // width,
            "image_size": side * patch,
            "patch_size": patch,
            "num_windows": size.windows,
            "out_indices": list(size.taps),
        }
        config = {
            "model_type": "rf_detr",
            "backbone_config": backbone,
            "c2f_num_blocks": self.count("backbone.0.projector.stages.0.0.m."),
            "d_model": shapes("query_feat.weight", 2)[1],
            "decoder_ffn_dim": shapes("transformer.decoder.layers.0.linear1.weight", 2)[0],
            "decoder_layers": self.count("transformer.decoder.layers."),
            "decoder_n_points": points,
            "decoder_cross_attention_heads": samples // points,
            "decoder_self_attention_heads": told.get("sa_nheads", 8),
            "num_queries": shapes("query_feat.weight", 2)[0] // max(groups, 1),
            "group_detr": groups,
        }
        square = {"height": size.resolution, "width": size.resolution}
        return config, {"image_processor_type": "RfDetrImageProcessor", "size": square}

    def _size(self, told: Mapping[str, Any], patch: int, side: int) -> _Size:
        """As the arguments say, else as of the published model of these sizes.

        Raises:
            CheckpointError: neither tells.
        """
        names = ("resolution", "num_windows", "out_feature_indexes")
        if all(name in told for name in names):
            resolution, windows, taps = (told[name] for name in names)
            return _Size(resolution, windows, tuple(taps))
        if (patch, side) not in PUBLISHED:
            raise CheckpointError(
                f"{self.checkpoint.path}: no published RF-DETR has patches of {patch} pixels and "
                f"{side} x {side} positions, and its arguments do not tell {', '.join(names)}"
            )
        return PUBLISHED[patch, side]


def _arguments(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What the training was called with, as far as it is of the right kind."""
    found = checkpoint.extras.get("args")
    kinds = {
        "resolution": int,
        "num_windows": int,
        "out_feature_indexes": list,
        "dec_n_points": int,
        "sa_nheads": int,
    }
    if not isinstance(found, Mapping):
        return {}
    return {
        name: found[name]
        for name, kind in kinds.items()
        if name in found and isinstance(found[name], kind) and found[name]
    }
