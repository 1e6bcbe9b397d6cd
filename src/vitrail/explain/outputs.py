"""All that can be compared of a forward pass: head, tokens and the attention of every layer.

The names are those that golden cases use: `logits`, `pre_logits` (what the head reads),
`last_hidden_state` (all tokens), `attn_<layer>`, `attn_<stage>_<block>` for windows (one map a
window, windows of an image side by side), `attn_pool`, `attn_t2t_<n>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.t2t import T2T
from vitrail.nn.attention import Attention
from vitrail.nn.pooling import AttentionPool
from vitrail.nn.sequence_attention import SequenceAttention
from vitrail.nn.soft_split import SoftmaxTokenAttention
from vitrail.nn.windows import WindowAttention
from vitrail.tasks.classify import Classify
from vitrail.transformer import Transformer

PROBED = (Attention, WindowAttention, SoftmaxTokenAttention, AttentionPool, SequenceAttention)
"""Every kind of attention with a probe."""

NAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"blocks\.(\d+)\.attn", lambda found: f"attn_{found[1]}"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.attn", lambda found: f"attn_{found[1]}_{found[2]}"),
    (r"patch_embed\.blocks\.(\d+)\.attn", lambda found: f"attn_t2t_{int(found[1]) + 1}"),
    (r"pool", lambda _: "attn_pool"),
    (r"(encoder|decoder)\.blocks\.(\d+)\.attn", lambda f: f"attn_{f[1]}_{f[2]}_self"),
    (r"decoder\.blocks\.(\d+)\.cross", lambda found: f"attn_decoder_{found[1]}_cross"),
)


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
def attention_of(model: nn.Module) -> Generator[Mapping[str, Tensor]]:
    """softmax(q kᵀ · scale + bias) of every layer that runs inside, by name; the first pass counts.

    Yields:
        A table that fills up as the model is called.
    """
    seen: dict[str, Tensor] = {}
    named = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    probed = [(name, module) for name, module in named if isinstance(module, PROBED)]
    for name, module in probed:
        module.probe = _probe(_output_name(name), seen)
    try:
        yield seen
    finally:
        for _, module in probed:
            module.probe = None


def _probe(name: str, seen: dict[str, Tensor]) -> Callable[..., None]:
    def probe(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, out: Tensor
    ) -> None:
        del v, out
        scores = (q.float() @ k.float().transpose(-2, -1)) * scale
        weights = (scores if bias is None else scores + bias.float()).softmax(dim=-1)
        seen.setdefault(name, weights)

    return probe


def _output_name(module: str) -> str:
    for pattern, name in NAMES:
        if found := re.fullmatch(pattern, module):
            return name(found)
    return f"attn_{module}"
