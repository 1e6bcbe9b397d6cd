"""All that can be compared of a forward pass: head, tokens and the attention of every layer.

The names are those that golden cases use: `logits`, `pre_logits` (what the head reads),
`last_hidden_state` (all tokens), `attn_<layer>`, `attn_<stage>_<block>` for windows (one map a
window, windows of an image side by side), `attn_pool`, `attn_t2t_<n>`. A detector has `logits` and
`pred_boxes` of its queries, `encoder_last_hidden_state` and `decoder_last_hidden_state`,
`attn_encoder_<n>`, `attn_decoder_<n>` and `attn_cross_<n>`, and `enc_outputs_*` where it chooses
its queries from the tokens. A segmenter has `encoder_features`, and `masks`: of every pixel and
class, or, with `logits_class`, of every query.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.t2t import T2T
from vitrail.explain.layers import AttentionLayer, Explainable, attention_layers, watching
from vitrail.model import Model
from vitrail.nn.probe import AttentionWeights, SoftmaxWeights
from vitrail.tasks.classify import Classify
from vitrail.tasks.detect import Detect
from vitrail.tasks.detectors import QueryDetector
from vitrail.tasks.joint_segmenters import EncoderOnlyMaskTransformer, MaskTransformer
from vitrail.tasks.segment import Segment
from vitrail.transformer import Transformer
from vitrail.types import Features, MaskQueries, PixelLogits


@torch.no_grad()
def outputs_of(
    model: Model | Backbone,
    images: Float[Tensor, "B 3 H W"],
    pixel_mask: Bool[Tensor, "B H W"] | None = None,
) -> dict[str, Tensor]:
    """Outputs of a classifier, of a detector, or of a backbone alone, for normalised images.

    Args:
        model: In evaluation mode.
        images: Normalised; what was filled up is taken as it is.
        pixel_mask: True where a pixel shows the image; None where all do.
    """
    backbone = model.backbone if isinstance(model, Model) else model
    with attention_of(model) as attention:
        features = replace(backbone(images), pixel_mask=pixel_mask, images=images)
        found = {
            "last_hidden_state": features.tokens,
            "pooled": features.pooled,
            "head_input": features.pooled,
            "pre_logits": features.pooled,
        }
        if isinstance(backbone, T2T):
            found["tokens"] = backbone.patch_embed(images).flatten(2).transpose(1, 2)
        if features.distilled is not None:
            found |= {"features_cls": features.pooled, "features_dist": features.distilled}
        match model:
            case Model(task=Classify() as task):
                found |= _of_classifier(task, features)
            case Model(task=Detect() as task):
                found |= _of_detector(task, features)
            case Model(task=Segment() as task):
                found |= _of_segmenter(task, features)
            case _:
                pass
    found |= _both_names(attention)
    if isinstance(model, Model) and isinstance(model.task, Segment):
        found |= _as_segmenter(model.task, attention)
    return _queries_last(backbone, found)


def _of_classifier(task: Classify, features: Features) -> dict[str, Tensor]:
    own, distilled = task.heads(features)
    return {
        "pre_logits": task.represent(features),
        "logits": task(features),
        "logits_cls": own,
        "logits_dist": distilled,
    }


def _of_detector(task: Detect, features: Features) -> dict[str, Tensor]:
    logits, boxes, *_ = task(features)
    found = {"logits": logits, "pred_boxes": boxes}
    detector = task.detector
    if not isinstance(detector, QueryDetector):
        return found
    memory = detector.read(features)
    start = detector.queries(memory)
    hidden, _ = detector.decoder(start, memory, detector.boxes_of, 1)[-1]
    found |= {"last_hidden_state": hidden, "decoder_last_hidden_state": hidden}
    found["encoder_last_hidden_state"] = memory.tokens
    if start.proposals is not None:
        found["enc_outputs_class"] = start.proposals.logits
        found["enc_outputs_coord_logits"] = start.proposals.boxes
    return found


def _of_segmenter(task: Segment, features: Features) -> dict[str, Tensor]:
    found = {"encoder_features": features.tokens}
    if isinstance(task.segmenter, EncoderOnlyMaskTransformer):
        found["last_hidden_state"], _ = task.segmenter.run(features)
    match task(features):
        case PixelLogits(logits=logits):
            assert features.images is not None
            rows, columns = features.images.shape[2:]
            # The map covers what patches pad; of that, the image is shown.
            stride = task.segmenter.stride
            masks = F.interpolate(logits, scale_factor=stride, mode="bilinear")
            return {**found, "masks": masks[:, :, :rows, :columns]}
        case MaskQueries(logits=logits, masks=masks):
            return {**found, "logits_class": logits, "masks": masks}
        case _:
            raise AssertionError("a model in training gives no answers")


def _as_segmenter(task: Segment, attention: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers of the backbone are those of an encoder; class queries of a decoder stand last."""
    if task.segmenter.matched:
        return {}
    count, found = len(task.config.classes), dict[str, Tensor]()
    for key, weights in attention.items():
        if not key.startswith("attn_decoder_"):
            found[key.replace("attn_", "attn_encoder_")] = weights
        elif isinstance(task.segmenter, MaskTransformer):
            found[key] = weights.roll((-count, -count), dims=(-2, -1))
    return found


def _both_names(attention: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attention of encoders and decoders goes by two names."""
    found = dict(attention)
    for key, weights in attention.items():
        part, _, which = key.removeprefix("attn_").rpartition("_")
        if which == "self":
            found[f"attn_{part}"] = weights
        elif which == "cross":
            found[f"attn_cross_{part.removeprefix('decoder_')}"] = weights
    return found


def _queries_last(backbone: Backbone, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tokens that find objects stand behind the patches in YOLOS, and before them here."""
    if not backbone.queries:
        return found
    start, end = backbone.prefix - backbone.queries, backbone.prefix

    def turned(tensor: Tensor, axis: int) -> Tensor:
        queries = tensor.narrow(axis, start, end - start)
        rest = tensor.narrow(axis, end, tensor.shape[axis] - end)
        return torch.cat([tensor.narrow(axis, 0, start), rest, queries], dim=axis)

    count = found["last_hidden_state"].shape[1]
    square = {
        name: turned(turned(weights, -1), -2)
        for name, weights in found.items()
        if name.startswith("attn_") and weights.shape[-2:] == (count, count)
    }
    return {**found, **square, "last_hidden_state": turned(found["last_hidden_state"], 1)}


@torch.no_grad()
def sequence_outputs_of(
    model: Transformer, source: Int[Tensor, "B N"], target: Int[Tensor, "B M"]
) -> dict[str, Tensor]:
    """Outputs of the encoder-decoder for two sequences of symbols."""
    with attention_of(model) as attention:
        logits = model(source, target)
    memory = model.encode(source)
    hidden = model.decoder.hidden(target, memory)
    return {"logits": logits, "memory": memory, "decoder_hidden": hidden, **attention}


@contextmanager
def attention_of(model: Explainable) -> Generator[Mapping[str, Tensor]]:
    """softmax(q kᵀ · scale + bias) of every layer that runs inside, by name; the first pass counts.

    Only what softmax made is compared: Performer's features have no matrix in the original.

    Yields:
        A table that fills up as the model is called.
    """
    seen: dict[str, Tensor] = {}

    def watch(layer: AttentionLayer, weights: AttentionWeights, v: Tensor, out: Tensor) -> None:
        del v, out
        if isinstance(weights, SoftmaxWeights) and layer.key not in seen:
            seen[layer.key] = weights.rows().flatten(0, -4)

    with watching(attention_layers(model), watch):
        yield seen
