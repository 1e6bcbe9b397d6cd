"""Import timm beside a CPU build of torch.

The torchvision wheel of the package index is built for CUDA; next to CPU torch its own operators do
not load, and the import fails because two of them are missing. Declaring them is enough.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from types import ModuleType

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    with suppress(RuntimeError):  # a torchvision that loads brings them itself
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def timm() -> ModuleType:
    """The library."""
    return importlib.import_module("timm")


def timm_data() -> ModuleType:
    """Its transforms."""
    return importlib.import_module("timm.data")
