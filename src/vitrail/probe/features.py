"""Pooled features of a labelled data set, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from vitrail.backbones.backbone import Backbone
from vitrail.data.dataset import Dataset, Source, Subset
from vitrail.data.loader import Loader, on_image
from vitrail.data.order import Sequential
from vitrail.data.workers import Workers, workers_for
from vitrail.errors import BadSampleError, DataError, ModelFileError
from vitrail.model import Model
from vitrail.types import Skipped
from vitrail.weights.modelfile import write_atomically

PARTS = ("train", "val", "test")
Progress = Callable[[int, int], None]
"""Told the images done, of how many."""


@dataclass(frozen=True, slots=True)
class Part:
    """Features of one part of the data.

    Attributes:
        own: Of the weights that are probed.
        random: Of the same architecture with fresh weights.
        labels: Class of each image.
    """

    own: Float[np.ndarray, "N D"]
    random: Float[np.ndarray, "N D"]
    labels: Int[np.ndarray, "N"]


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of all parts.

    Attributes:
        parts: `train`, `val` and `test`.
        quarantined: Images that could not be read.
        cached: Whether they were read from a file of an earlier call.
    """

    parts: dict[str, Part]
    quarantined: tuple[Skipped, ...]
    cached: bool


@dataclass(frozen=True, slots=True)
class Extraction:
    """How features are computed.

    Attributes:
        model: What is probed, on its device; its preprocessing serves both.
        random: The same architecture with fresh weights.
        batch_size: Images a forward pass.
        workers: How images are decoded.
        progress: Told how far it is.
    """

    model: Model
    random: Backbone
    batch_size: int
    workers: Workers
    progress: Progress


def at_most(source: Source, limit: int, seed: int) -> dict[str, Dataset]:
    """The parts of the data, each cut to `limit` images that the seed draws."""
    parts: dict[str, Dataset] = {}
    for name in PARTS:
        whole = source.splits[name]
        drawn = np.random.default_rng(seed).permutation(len(whole))[:limit]
        kept = [int(i) for i in np.sort(drawn)]
        parts[name] = whole if len(whole) <= limit else Subset(whole, kept)
    return parts


def digest_of(parts: dict[str, Dataset]) -> str:
    """SHA-256 of all that is looked at: ids, labels and stored bytes.

    The fingerprint of the data is not enough: an image may change and keep its size.
    """
    digest = hashlib.sha256()
    for name, part in parts.items():
        digest.update(json.dumps([name, part.classes]).encode())
        for index, (sample, target) in enumerate(zip(part.ids, part.targets, strict=True)):
            digest.update(json.dumps([sample, target]).encode())
            try:
                digest.update(hashlib.sha256(part.read_bytes(index)).digest())
            except (BadSampleError, OSError) as error:  # it will be quarantined
                digest.update(str(error).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def cache_file(folder: Path, *key: object) -> Path:
    """The file whose name says what all features in it depend on."""
    text = json.dumps([str(part) for part in key])
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def features_of(parts: dict[str, Dataset], extraction: Extraction, cache: Path) -> FeatureSet:
    """Features from the cache, or computed and put there.

    Memory is bounded: the features of the parts, and one batch of images.

    Raises:
        DataError: no image of a part can be read.
    """
    kept = _read(cache)
    if kept is not None:
        return kept
    total = sum(map(len, parts.values()))
    found: dict[str, Part] = {}
    bad: list[Skipped] = []
    for name, dataset in parts.items():
        done = sum(len(parts[earlier]) for earlier in found)
        found[name], skipped = _extract(dataset, extraction, done, total)
        bad += skipped
        if not len(found[name].labels):
            raise DataError(f"no image of the {name} part can be read; `vitrail check` lists why")
    fresh = FeatureSet(found, tuple(bad), cached=False)
    with suppress(ModelFileError):  # what was computed is worth more than a place to keep it
        _write(cache, fresh)
    return fresh


def _extract(
    dataset: Dataset, extraction: Extraction, done: int, total: int
) -> tuple[Part, list[Skipped]]:
    model, preprocess = extraction.model.eval(), extraction.model.config.preprocess
    device = next(model.parameters()).device

    def prepare(image: Tensor, rng: np.random.Generator) -> Tensor:
        del rng
        return preprocess.prepare(image)

    loader = Loader(
        dataset,
        on_image(prepare),
        batch_size=extraction.batch_size,
        order=Sequential(),
        seed=0,
        workers=workers_for(extraction.workers, device),
        drop_last=False,
        strict=False,
    )
    own: list[Tensor] = []
    random: list[Tensor] = []
    labels: list[int] = []
    bad: list[Skipped] = []
    with torch.inference_mode():
        for batch in loader.epoch(0):
            bad += batch.skipped
            if batch.ids:
                images = model.normalise(batch.images.to(device))
                own.append(model.backbone(images).pooled.float().cpu())
                random.append(extraction.random(images).pooled.float().cpu())
                labels += _classes(batch.targets)
            done += len(batch.ids) + len(batch.skipped)
            extraction.progress(done, total)
    return Part(_stack(own), _stack(random), np.array(labels, dtype=np.int64)), bad


def _classes(targets: Sequence[object]) -> list[int]:
    assert all(isinstance(target, int) for target in targets), "one label an image"
    return cast("list[int]", list(targets))


def _stack(batches: list[Tensor]) -> Float[np.ndarray, "N D"]:
    return torch.cat(batches).numpy() if batches else np.empty((0, 0), dtype=np.float32)


def _write(path: Path, features: FeatureSet) -> None:
    tensors = {
        f"{name}/{kind}": np.ascontiguousarray(values)
        for name, part in features.parts.items()
        for kind, values in (("own", part.own), ("random", part.random), ("labels", part.labels))
    }
    bad = json.dumps([[skipped.id, skipped.reason] for skipped in features.quarantined])
    write_atomically(path, save(tensors, {"quarantined": bad}))


def _read(path: Path) -> FeatureSet | None:
    """What an earlier call wrote; None where there is nothing, or where it is damaged."""
    try:
        with cast("Any", safetensors.safe_open(path, framework="np")) as file:
            bad: list[list[str]] = json.loads(file.metadata()["quarantined"])
            parts = {
                name: Part(*(file.get_tensor(f"{name}/{kind}") for kind in Part.__slots__))
                for name in PARTS
            }
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    quarantined = tuple(Skipped(name, reason) for name, reason in bad)
    return FeatureSet(parts, quarantined, cached=True)
