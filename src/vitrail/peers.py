"""Other libraries that are installed here, as a reference for the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.backbones.swin import SwinConfig, SwinV2Config
from vitrail.backbones.vit import ViTConfig
from vitrail.errors import CheckpointError
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.segment import SegmentConfig
from vitrail.weights.convert import write_loaded
from vitrail.weights.load import Loaded

Peer = Literal["timm", "transformers"]


@torch.no_grad()
def peer_outputs(peer: Peer, loaded: Loaded, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
    """`logits` and `last_hidden_state` of the same weights in another library, and its attention.

    transformers gives attention maps, timm does not.

    A checkpoint that is not in the library's own format is written in it first.

    Raises:
        CheckpointError: the library is missing or broken, or cannot express the model.
    """
    match peer:
        case "timm":
            return _timm(loaded, images)
        case "transformers":
            return _transformers(loaded, images)


def _timm(loaded: Loaded, images: Tensor) -> dict[str, Tensor]:
    try:
        import timm  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except (ImportError, RuntimeError) as error:
        raise _absent("timm", error) from error
    library: Any = timm
    with _folder(loaded, "timm") as folder:
        name, own = f"local-dir:{folder}", loaded.described.backbone.image_size
        other = {} if tuple(images.shape[2:]) == own else {"dynamic_img_size": True}
        model: Any = library.create_model(name, pretrained=True, **other).eval()
    # Ours keep channels together; the same order of sums needs the same of theirs.
    images = images.contiguous(memory_format=torch.channels_last)
    return {"logits": model(images), "last_hidden_state": model.forward_features(images)}


def _transformers(loaded: Loaded, images: Tensor) -> dict[str, Tensor]:
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:
        raise _absent("transformers", error) from error
    library: Any = transformers
    if isinstance(loaded.described.task, DetectConfig):
        return _detector(library.AutoModelForObjectDetection, loaded, images)
    if isinstance(loaded.described.task, SegmentConfig):
        return _segmenter(library.AutoModelForUniversalSegmentation, loaded, images)
    # Auto does not know the class with two heads.
    kind = (
        library.DeiTForImageClassificationWithTeacher
        if _distilled(loaded)
        else library.AutoModelForImageClassification
    )
    with _folder(loaded, "hf") as folder:
        model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    other = {}
    if tuple(images.shape[2:]) != loaded.described.backbone.image_size:
        other = {"interpolate_pos_encoding": True} if _interpolates(loaded) else {}
    found = model(images, output_attentions=True, **other)
    tokens = model.base_model(images, **other).last_hidden_state
    maps = dict(zip(_layers(loaded), found.attentions, strict=False))
    return {"logits": found.logits, "last_hidden_state": tokens, **maps}


def _detector(kind: Any, loaded: Loaded, images: Tensor) -> dict[str, Tensor]:
    with _folder(loaded, "hf") as folder:
        found = kind.from_pretrained(folder, attn_implementation="eager").eval()(images)
    return {"logits": found.logits, "pred_boxes": found.pred_boxes}


def _segmenter(kind: Any, loaded: Loaded, images: Tensor) -> dict[str, Tensor]:
    with _folder(loaded, "hf") as folder:
        found = kind.from_pretrained(folder, attn_implementation="eager").eval()(images)
    return {
        "masks": found.masks_queries_logits,
        "logits_class": found.class_queries_logits,
        "last_hidden_state": found.last_hidden_state,
    }


def _layers(loaded: Loaded) -> list[str]:
    """Our names of the attention maps that they give: of Swin, the last of each stage."""
    backbone = loaded.described.backbone
    if isinstance(backbone, ViTConfig):
        return [f"attn_{i}" for i in range(backbone.depth)]
    assert isinstance(backbone, SwinConfig | SwinV2Config)
    return [f"attn_{stage}_{depth - 1}" for stage, depth in enumerate(backbone.depths)]


def _interpolates(loaded: Loaded) -> bool:
    """Whether another image size has to be asked for: in ViT and DeiT, not in DINOv2 and Swin."""
    backbone = loaded.described.backbone
    return isinstance(backbone, ViTConfig) and backbone.layer_scale is None


def _distilled(loaded: Loaded) -> bool:
    backbone = loaded.described.backbone
    return isinstance(backbone, ViTConfig) and backbone.distillation_token


def _absent(peer: Peer, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"--against {peer}: cannot be imported here ({error}); pip install {peer}"
    )


@contextmanager
def _folder(loaded: Loaded, format_: str) -> Generator[Path]:
    """The checkpoint's own folder, or one written in the peer's format."""
    own = Path(loaded.source)
    if loaded.format == format_ and own.is_dir():
        yield own
        return
    with tempfile.TemporaryDirectory(prefix="vitrail-") as scratch:
        folder = Path(scratch) / "model"
        write_loaded(loaded, format_, folder)
        yield folder
