"""A hand-made classifier that sees bright patches only: what explains it is known."""

from __future__ import annotations

import torch

from tiny import tiny_config, tiny_model
from vitrail.backbones.vit import ViT
from vitrail.model import Model

STRIDE = 4
SIZE = (16, 24)


def spot_model(pool: str) -> Model:
    """The logit of the first class grows with the brightness of patches, and with nothing else.

    The last block hands every token the mean of all tokens, so that a class token knows of them;
    all other parts of the blocks are off.

    Args:
        pool: `class` or `mean`.
    """
    config = tiny_config(image_size=SIZE, pool=pool, heads=1, class_token=pool == "class")
    model = tiny_model(backbone=config)
    assert isinstance(model.backbone, ViT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        filters = model.backbone.patch_embed.proj
        filters.weight[0] = 10 / filters.weight[0].numel()
        filters.bias[1] = 1
        for name, parameter in model.named_parameters():
            if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
                parameter.fill_(1)
        last, width = model.backbone.blocks[-1].attn, config.width
        last.qkv.weight[2 * width :] = torch.eye(width)
        last.proj.weight.copy_(torch.eye(width))
        model.task.head.weight[0, 0] = 1
        model.task.head.weight[1, 0] = -1
    return model


def spot_image(row: int, column: int) -> torch.Tensor:
    """Grey, but for one bright patch."""
    image = torch.full((3, *SIZE), 110, dtype=torch.uint8)
    image[:, row * STRIDE : (row + 1) * STRIDE, column * STRIDE : (column + 1) * STRIDE] = 250
    return image
