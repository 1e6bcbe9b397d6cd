"""The tensors of LW-DETR's projector and decoder, which RF-DETR has under other names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import C2fProjectorConfig, QueryReadout, TwoStageConfig
from vitrail.weights.mapping import Entry, Rows, pair

DETECTOR = "task.detector"


@dataclass(frozen=True, slots=True)
class DetectorNames:
    """What the parts are called; all begin with what leads them in the file.

    Attributes:
        scale: One scale of the projector; `{}` is its number.
        split: Its first convolution.
        join: Its last convolution.
        mix: The convolutions between; `{}` are the numbers of pair and member.
        conv_norm: The norm that follows a convolution.
        scale_norm: The norm that ends the projector.
        boxes: Learned shifts of the first boxes.
        content: Learned contents of the queries.
        proposer: What leads the first stage.
        decoder: What leads the layers.
        norms: After self-attention, after cross-attention, after the MLP.
        mlp: Its two linear maps.
        last: The norm that ends the decoder.
        packed: Whether the projections of self-attention are one tensor.
    """

    scale: str
    split: str
    join: str
    mix: str
    conv_norm: str
    scale_norm: str
    boxes: str
    content: str
    proposer: str
    decoder: str
    norms: tuple[str, str, str]
    mlp: tuple[str, str]
    last: str
    packed: bool


IN_TRANSFORMERS = DetectorNames(
    scale="model.backbone.projector.scale_layers.{}.",
    split="projector_layer.conv1",
    join="projector_layer.conv2",
    mix="projector_layer.bottlenecks.{}.conv{}",
    conv_norm="norm",
    scale_norm="layer_norm",
    boxes="model.reference_point_embed.weight",
    content="model.query_feat.weight",
    proposer="model.",
    decoder="model.decoder.",
    norms=("self_attn_layer_norm", "cross_attn_layer_norm", "layer_norm"),
    mlp=("mlp.fc1", "mlp.fc2"),
    last="layernorm",
    packed=False,
)
"""LW-DETR in files and in the memory of transformers; RF-DETR in memory, but for `scale`."""

BY_ROBOFLOW = DetectorNames(
    scale="backbone.0.projector.stages.{}.",
    split="0.cv1",
    join="0.cv2",
    mix="0.m.{}.cv{}",
    conv_norm="bn",
    scale_norm="1",
    boxes="refpoint_embed.weight",
    content="query_feat.weight",
    proposer="transformer.",
    decoder="transformer.decoder.",
    norms=("norm1", "norm2", "norm3"),
    mlp=("linear1", "linear2"),
    last="norm",
    packed=True,
)
"""RF-DETR in files, Roboflow's own and those of Hugging Face."""


def detector_entries(
    names: DetectorNames, task: DetectConfig, widths: Sequence[int]
) -> list[Entry]:
    """Which tensor of projector, queries and decoder is which.

    Args:
        names: What they are called.
        task: The detector.
        widths: Of the backbone's maps.
    """
    readout = task.readout
    assert isinstance(readout, QueryReadout), "a decoder of queries"
    assert isinstance(readout.queries, TwoStageConfig), "queries are chosen from the tokens"
    entries = _projector(names, readout, widths)
    entries += [
        Entry(f"{DETECTOR}.queries.content", (names.content,)),
        Entry(f"{DETECTOR}.queries.shift", (names.boxes,)),
    ]
    for group in range(readout.queries.groups):
        ours = f"{DETECTOR}.queries.proposers.{group}"
        entries += pair(f"{ours}.project", f"{names.proposer}enc_output.{group}.")
        entries += pair(f"{ours}.norm", f"{names.proposer}enc_output_norm.{group}.")
        entries += pair(f"{ours}.classify", f"{names.proposer}enc_out_class_embed.{group}.")
        entries += _linears(f"{ours}.locate", f"{names.proposer}enc_out_bbox_embed.{group}", 3)
    for layer in range(readout.depth):
        entries += _layer(names, layer, readout.width)
    return [
        *entries,
        *pair(f"{DETECTOR}.decoder.norm", f"{names.decoder}{names.last}."),
        *_linears(f"{DETECTOR}.decoder.place", f"{names.decoder}ref_point_head", 2),
        *pair(f"{DETECTOR}.classify", "class_embed."),
        *_linears(f"{DETECTOR}.locate", "bbox_embed", 3),
    ]


def _linears(ours: str, theirs: str, count: int) -> list[Entry]:
    pairs = (pair(f"{ours}.layers.{i}", f"{theirs}.layers.{i}.") for i in range(count))
    return [entry for both in pairs for entry in both]


def _projector(names: DetectorNames, readout: QueryReadout, widths: Sequence[int]) -> list[Entry]:
    config = readout.projector
    assert isinstance(config, C2fProjectorConfig), "convolutions of all maps"
    entries: list[Entry] = []
    batch = config.norm == "batch"

    def convolution(ours: str, theirs: str) -> list[Entry]:
        return [
            Entry(f"{ours}.conv.weight", (f"{theirs}.conv.weight",)),
            *_norm(f"{ours}.norm", f"{theirs}.{names.conv_norm}.", batch=batch),
        ]

    for number, scale in enumerate(config.scales):
        ours, theirs = f"{DETECTOR}.projector.scales.{number}", names.scale.format(number)
        for tap, width in enumerate(widths):
            step, sampling = f"{ours}.rescale.{tap}.steps", f"{theirs}sampling_layers.{tap}.layers"
            wide = scale == 2 and width > 512
            if wide or scale == 0.5:
                entries += convolution(f"{step}.0", f"{sampling}.0")
            if scale == 2:
                entries += pair(f"{step}.{int(wide)}", f"{sampling}.{int(wide)}.")
        entries += convolution(f"{ours}.mix.split", f"{theirs}{names.split}")
        for block in range(config.blocks):
            for member in range(2):
                between = f"{theirs}{names.mix.format(block, member + 1)}"
                entries += convolution(f"{ours}.mix.blocks.{block}.{member}", between)
        entries += convolution(f"{ours}.mix.join", f"{theirs}{names.join}")
        entries += pair(f"{ours}.norm", f"{theirs}{names.scale_norm}.")
    return entries


def _norm(ours: str, theirs: str, *, batch: bool) -> list[Entry]:
    statistics = ("running_mean", "running_var", "num_batches_tracked") if batch else ()
    names = ("weight", "bias", *statistics)
    return [Entry(f"{ours}.{name}", (f"{theirs}{name}",)) for name in names]


def _layer(names: DetectorNames, layer: int, width: int) -> list[Entry]:
    ours, theirs = f"{DETECTOR}.decoder.layers.{layer}", f"{names.decoder}layers.{layer}."
    cross = {
        "offsets": "sampling_offsets",
        "shares": "attention_weights",
        "value": "value_proj",
        "proj": "output_proj",
    }
    attention = _packed_attention if names.packed else _attention
    entries = attention(f"{ours}.self_attn", f"{theirs}self_attn.", width)
    for own, name in cross.items():
        entries += pair(f"{ours}.cross_attn.{own}", f"{theirs}cross_attn.{name}.")
    for number, name in enumerate(names.norms, start=1):
        entries += pair(f"{ours}.norm{number}", f"{theirs}{name}.")
    for own, name in zip(("fc1", "fc2"), names.mlp, strict=True):
        entries += pair(f"{ours}.mlp.{own}", f"{theirs}{name}.")
    return entries


def _attention(ours: str, theirs: str, width: int) -> list[Entry]:
    del width
    parts = (pair(f"{ours}.{own}", f"{theirs}{own}_proj.") for own in ("q", "k", "v"))
    entries = [entry for both in parts for entry in both]
    return [*entries, *pair(f"{ours}.proj", f"{theirs}o_proj.")]


def _packed_attention(ours: str, theirs: str, width: int) -> list[Entry]:
    entries = [
        Entry(
            f"{ours}.{own}.{kind}",
            (f"{theirs}in_proj_{kind}",),
            Rows(number * width, width, 3 * width),
        )
        for kind in ("weight", "bias")  # what shares a tensor stands together
        for number, own in enumerate(("q", "k", "v"))
    ]
    return [*entries, *pair(f"{ours}.proj", f"{theirs}out_proj.")]
