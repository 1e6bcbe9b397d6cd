"""All that can be compared of a forward pass: head, tokens and the attention of every layer.

The names are those that golden cases use: `logits`, `pre_logits` (what the head reads),
`last_hidden_state` (all tokens), `attn_<layer>`, `attn_<stage>_<block>` for windows (one map a
window, windows of an image side by side), `attn_pool`, `attn_t2t_<n>`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.t2t import T2T
from vitrail.explain.layers import AttentionLayer, attention_layers, watching
from vitrail.nn.probe import AttentionWeights, SoftmaxWeights
from vitrail.tasks.classify import Classify
from vitrail.transformer import Transformer


@torch.no_grad()
def outputs_of(
    backbone: Backbone, task: Classify | None, images: Float[Tensor, "B 3 H W"]
) -> dict[str, Tensor]:
    """Outputs of a classifier, or of a backbone alone, for normalised images."""
    with attention_of(backbone) as attention:
        features = backbone(images)
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
    if task is not None:
        own, distilled = task.heads(features)
        found |= {"pre_logits": task.represent(features), "logits": task(features)}
        found |= {"logits_cls": own, "logits_dist": distilled}
    return {**found, **attention}


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
def attention_of(model: Backbone | Transformer) -> Generator[Mapping[str, Tensor]]:
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
