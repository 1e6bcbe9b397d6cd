"""What timm's names of Vision Transformers say: `vit_base_patch16_reg4_gap_256`.

A `config.json` holds only the arguments that depart from its architecture's own; the rest is in
the name.
"""

from __future__ import annotations

from typing import Any

Shape = tuple[int, int, int]

SHAPES: dict[str, Shape] = {
    "tiny": (192, 12, 3),
    "wee": (256, 14, 4),
    "little": (320, 14, 5),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "mediumd": (512, 20, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "so150m": (896, 18, 14),
    "so150m2": (832, 21, 13),
    "large": (1024, 24, 16),
    "so400m": (1152, 27, 16),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16),
    "giantopt": (1536, 40, 16),
    "gigantic": (1664, 48, 16),
}
"""Width, depth and heads."""

DINO_GIANT: Shape = (1536, 40, 24)
"""DINOv2's giant is another one."""

DINO: dict[tuple[int, int], int] = {
    (width, depth): heads
    for width, depth, heads in (SHAPES["small"], SHAPES["base"], SHAPES["large"], DINO_GIANT)
}
"""Heads of a DINOv2 by width and depth."""

REFUSED = {
    "rpn": "its norms follow the branches",
    "clip": "it has a norm before the first block",
    "radio": "it has no last norm",
    "xp": "its branches run side by side",
    "dwee": "its attention is a difference",
    "pwee": "its branches run side by side",
    "dpwee": "its branches run side by side",
    "dlittle": "its attention is a difference",
    "18x2": "its branches run side by side",
    "intern300m": "it has no last norm",
}
"""Words of a name that stand for other arithmetic under the same names of tensors."""


def named_arguments(architecture: str) -> dict[str, Any]:
    """What a name says, as arguments of timm's `VisionTransformer`; empty for names not known."""
    family, *words = architecture.split("_")
    if family not in ("vit", "deit", "deit3", "flexivit", "eva") or not words:
        return {}
    if words[0] not in SHAPES:
        return {}
    width, depth, heads = _shape(words)
    pooled_by_mean = "gap" in words or family == "eva"
    pooled_by_attention = not pooled_by_mean and ("siglip" in words or "map" in words)
    pool = "avg" if pooled_by_mean else "map" if pooled_by_attention else "token"
    return {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "patch_size": next((int(w[5:]) for w in words if _counts(w, "patch")), 16),
        "class_token": pool == "token" or family == "eva",
        "reg_tokens": next((int(w[3:]) for w in words if _counts(w, "reg")), 0),
        "distilled": "distilled" in words,
        "global_pool": pool,
        "act_layer": "gelu_tanh" if _is_tanh(words) else "gelu",
    }


def refused_name(architecture: str) -> str:
    """Why models of this name are not ours, or an empty string."""
    words = architecture.split("_")
    return next((why for word, why in REFUSED.items() if word in words), "")


def _shape(words: list[str]) -> Shape:
    width, depth, heads = SHAPES[words[0]]
    if words[0] == "giant" and ("dinov2" in words or "tipsv2" in words):
        return DINO_GIANT
    if "plus" in words:
        return 896, depth, 14
    if "36x1" in words:
        return width, 36, heads
    if words[0] == "base" and "gap" in words and "siglip" not in words:
        # The first of them (I-JEPA's) has 16 heads, those with registers 12.
        return width, depth, 12 if any(_counts(w, "reg") for w in words) else 16
    return width, depth, heads


def _is_tanh(words: list[str]) -> bool:
    """SigLIP 2: weights of the first SigLIP are evaluated with the exact GELU."""
    if "siglip" not in words:
        return False
    second = {("base", "patch32"), ("so400m", "patch16")}
    return (
        words[0] == "giantopt"
        or (words[0], words[1]) in second
        or (words[0] == "large" and words[-1] == "512")
    )


def _counts(word: str, start: str) -> bool:
    """Whether a word is `start` and a number."""
    digits = word.removeprefix(start)
    return word.startswith(start) and digits.isdecimal() and len(digits) < 6
