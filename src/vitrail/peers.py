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

from vitrail.backbones.vit import ViTConfig
from vitrail.errors import CheckpointError
from vitrail.weights.convert import write_loaded
from vitrail.weights.load import Loaded

Peer = Literal["timm", "transformers"]


@torch.no_grad()
def peer_outputs(peer: Peer, loaded: Loaded, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
    """`logits` and `last_hidden_state` of the same weights in another library.

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
        model: Any = library.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return {"logits": model(images), "last_hidden_state": model.forward_features(images)}


def _transformers(loaded: Loaded, images: Tensor) -> dict[str, Tensor]:
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:
        raise _absent("transformers", error) from error
    library: Any = transformers
    # Auto does not know the class with two heads.
    kind = (
        library.DeiTForImageClassificationWithTeacher
        if _distilled(loaded)
        else library.AutoModelForImageClassification
    )
    with _folder(loaded, "hf") as folder:
        model = kind.from_pretrained(folder).eval()
    tokens = model.base_model(images).last_hidden_state
    return {"logits": model(images).logits, "last_hidden_state": tokens}


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
