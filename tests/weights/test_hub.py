"""Checkpoints by hub id, from a cache that is laid out as the hub's own; nothing is requested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vitrail.errors import CheckpointError
from vitrail.weights.hub import fetch, is_hub_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(cache: Path, repository: str, *files: str, ref: str = "main") -> Path:
    """A repository as the hub's cache keeps it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in files:
        (snapshot / name).write_bytes(b"{}")
    (folder / "refs").mkdir()
    (folder / "refs" / ref).write_text(COMMIT)
    return snapshot


def test_ids_are_told_from_paths() -> None:
    assert is_hub_id("hf-hub:timm/vit_tiny")
    assert not is_hub_id("timm/vit_tiny")


def test_a_cached_repository_needs_no_network(cache: Path) -> None:
    folder = cached(cache, "owner/name", "config.json", "model.safetensors")
    assert fetch("hf-hub:owner/name") == folder


def test_a_revision_is_honoured(cache: Path) -> None:
    folder = cached(cache, "owner/name", "config.json", "pytorch_model.bin", ref="v2")
    assert fetch("hf-hub:owner/name@v2") == folder
    with pytest.raises(CheckpointError, match="not in the cache"):
        fetch("hf-hub:owner/name@v3")


def test_what_is_not_cached_says_the_way_out(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hf-hub:owner/other: not in the cache.*local file"):
        fetch("hf-hub:owner/other")


def test_a_repository_without_weights_is_refused(cache: Path) -> None:
    cached(cache, "owner/name", "config.json")
    with pytest.raises(CheckpointError, match="no weights of a known kind"):
        fetch("hf-hub:owner/name")


@pytest.mark.parametrize("wrong", ["hf-hub:name", "hf-hub:a/b/c", "hf-hub:/name", "hf-hub:owner/"])
def test_malformed_ids_are_refused(wrong: str) -> None:
    with pytest.raises(CheckpointError, match="owner/name"):
        fetch(wrong)


def test_without_the_extra_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'vitrail\[hub\]'"):
        fetch("hf-hub:owner/name")
