"""Checkpoints by their id on the Hugging Face hub, from the cache where there is no network."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.errors import CheckpointError

PREFIX = "hf-hub:"
CONFIGS = ("*.json", "README.md")
WEIGHTS = ("*.safetensors", "pytorch_model.bin", "*.pth", "*.npz")
"""Kinds of weight files in the order of preference; the first that a repository has is fetched."""


def is_hub_id(source: str) -> bool:
    """Whether a source names a repository: `hf-hub:owner/name` or `hf-hub:owner/name@revision`."""
    return source.startswith(PREFIX)


def fetch(source: str) -> Path:
    """The folder of a repository in the local cache, fetched if it is not there.

    `HF_HUB_OFFLINE=1` and `HF_HOME` are honoured: with them nothing is requested.

    Args:
        source: `hf-hub:owner/name`, with `@revision` if wanted.

    Raises:
        CheckpointError: no such repository, no network and nothing cached, or the extra is missing.
    """
    repository, _, revision = source.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise CheckpointError(f"{source}: write it as hf-hub:owner/name, e.g. hf-hub:timm/vit_x")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"{source}: the hub needs an extra; pip install 'vitrail[hub]'"
        ) from error
    try:
        for kind in WEIGHTS:
            folder = Path(
                snapshot_download(
                    repository, revision=revision or None, allow_patterns=[*CONFIGS, kind]
                )
            )
            if any(folder.glob(kind)):
                return folder
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{source}: not in the cache, and the hub cannot be reached; fetch it once with a "
            "network, or give a local file"
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{source}: the hub refuses it ({error})") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: cannot be fetched ({error})") from error
    raise CheckpointError(f"{source}: the repository holds no weights of a known kind")
