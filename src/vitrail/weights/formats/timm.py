"""timm's formats: who reads which, and the one that writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.t2t import T2TConfig
from vitrail.backbones.vit import ViTConfig
from vitrail.backbones.windowed_vit import WindowedViTConfig
from vitrail.weights.formats.timm_hybrid import TimmHybridReader, refuses_hybrid, write_hybrid
from vitrail.weights.formats.timm_resnet import TimmResNetReader, refuses_timm_resnet, write_resnet
from vitrail.weights.formats.timm_swin import TimmSwinReader, refuses_swin, write_swin
from vitrail.weights.formats.timm_vit import TimmViTReader
from vitrail.weights.formats.timm_vit_names import refuses_vit, write_vit
from vitrail.weights.reader import Described, Reader, Writer

TIMM_READERS: tuple[type[Reader], ...] = (
    TimmViTReader,
    TimmHybridReader,
    TimmSwinReader,
    TimmResNetReader,
)


class TimmWriter(Writer):
    """A folder with `model.safetensors` and `config.json`, as `local-dir:` and the hub have it."""

    name = "timm"

    @classmethod
    def refuses(cls, described: Described) -> str:
        """Why timm cannot be told this model, or an empty string."""
        match described.backbone:
            case ViTConfig():
                return refuses_vit(described)
            case HybridConfig():
                return refuses_hybrid(described)
            case SwinConfig() | SwinV2Config():
                return refuses_swin(described)
            case ResNetConfig():
                return refuses_timm_resnet(described)
            case T2TConfig() | WindowedViTConfig() | RecurrentConfig():
                return f"timm has no '{described.backbone.kind}' models"

    @classmethod
    def write(cls, described: Described, state: Mapping[str, Tensor], out: str) -> Iterable[str]:
        """The two files."""
        folder = Path(out)
        match described.backbone:
            case ViTConfig():
                return write_vit(described, state, folder)
            case HybridConfig():
                return write_hybrid(described, state, folder)
            case SwinConfig() | SwinV2Config():
                return write_swin(described, state, folder)
            case ResNetConfig():
                return write_resnet(described, state, folder)
            case T2TConfig() | WindowedViTConfig() | RecurrentConfig():
                raise AssertionError("refused")
