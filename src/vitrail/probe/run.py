"""A whole probe: weights and data in; accuracies with intervals, baselines and a verdict out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from vitrail.backbones import VARIANTS, build_backbone
from vitrail.backbones.backbone import Backbone
from vitrail.data.dataset import Source
from vitrail.data.loader import Workers
from vitrail.data.open import open_source
from vitrail.data.workers import Auto
from vitrail.device import pick_device
from vitrail.errors import DataError
from vitrail.model import Model, ModelConfig, create_model
from vitrail.probe.classifiers import (
    Answer,
    Scaled,
    Vectors,
    gap_interval,
    logistic_probe,
    nearest_neighbours,
    scale,
    top1_interval,
)
from vitrail.probe.features import (
    PARTS,
    Extraction,
    FeatureSet,
    Part,
    Progress,
    at_most,
    cache_file,
    digest_of,
    features_of,
)
from vitrail.probe.verdict import Verdict, judge
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.modelfile import versions
from vitrail.weights.origin import Origin, insist_nothing_given, open_origin
from vitrail.weights.reader import Given

LIMIT = 10_000
"""Images of a part that are looked at; more make a probe slow and hardly sharper."""

SEEN = ". These weights were trained on this very data, which flatters them on its training part"
"""What is said where a model is probed on the data that it comes from."""


@dataclass(frozen=True, slots=True)
class Score:
    """How often a classifier is right on the test images.

    Attributes:
        top1: Share, 0 to 1.
        interval: Bootstrap 95 % interval.
        chosen: Neighbours, or scikit-learn's C, as chosen on the validation part; None where
            there is nothing to choose.
        train_top1: Share of its own training images; None for the majority.
    """

    top1: float
    interval: tuple[float, float]
    chosen: float | None = None
    train_top1: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What frozen weights are worth on labelled images.

    Attributes:
        weights: As they were given.
        model: Name of the model, or its family.
        data: As it was given.
        images: Images that were used, by part.
        classes: Number of classes.
        width: Number of features.
        logistic: Regularised logistic regression on standardised features.
        neighbours: Nearest neighbours by cosine of the same features.
        random: `logistic` on the same architecture with fresh weights.
        majority: The most frequent class of the training part for every image.
        gap: Lead of `logistic` over `random`.
        gap_interval: Its paired bootstrap 95 % interval.
        worth: Whether full fine-tuning is worth the time: `yes`, `maybe` or `no`.
        verdict: The same as a sentence, with what it rests on.
        quarantined: Images that could not be read.
        cached: Whether the features were there already.
        seconds: Time of the whole.
    """

    weights: str
    model: str
    data: str
    images: dict[str, int]
    classes: int
    width: int
    logistic: Score
    neighbours: Score
    random: Score
    majority: Score
    gap: float
    gap_interval: tuple[float, float]
    worth: str
    verdict: str
    quarantined: int
    cached: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def probe(  # noqa: PLR0913 one argument an option of the command line
    weights: str,
    data: str,
    *,
    given: Given | None = None,
    seed: int | None = None,
    limit: int = LIMIT,
    batch_size: int = 32,
    workers: Workers | None = None,
    device: str = "auto",
    cache: Path | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Probe:
    """Measure what weights are worth on some data, without training them.

    Args:
        weights: A model file, a run folder, a checkpoint of another library, a hub id, or the
            name of a variant, which is probed with fresh weights.
        data: Labelled data, one label an image.
        given: What the user says of a foreign checkpoint beside the file.
        seed: Of the cuts of the data; that of the run for a model of ours, else 0.
        limit: Most images of a part.
        batch_size: Images a forward pass.
        workers: How images are decoded; measured by default.
        device: As in a recipe.
        cache: Folder for features, so that a second call computes none; the user's cache by
            default. Nothing is ever removed there; where it cannot be written, nothing is kept.
        progress: Told the images done, of how many.

    Raises:
        UserError: weights or data that cannot be used; one line with the way out.
    """
    began = time.perf_counter()
    origin = _origin(weights, given)
    seed = origin.seed if seed is None else seed
    source = open_source(data, seed=seed)
    _insist_single_label(source)
    model, random = _models(origin, source, device)
    parts = at_most(source, limit, seed)
    preprocess = origin.preprocess.model_dump_json()
    key = cache_file(
        cache or _user_cache(),
        *(origin.sha256, origin.backbone.model_dump_json(), preprocess),
        *(digest_of(parts), versions()),
    )
    extraction = Extraction(model, random, batch_size, workers or Auto(), progress)
    features = features_of(parts, extraction, key)
    if len(np.unique(features.parts["train"].labels)) < 2:
        raise DataError(
            f"{data}: of the training images that were looked at, all that can be read are of one "
            "class; give more images or a larger limit"
        )
    return _measure(origin, source, features, began)


def _measure(origin: Origin, source: Source, features: FeatureSet, began: float) -> Probe:
    parts = features.parts
    own = _scaled(parts, [parts[name].own for name in PARTS])
    fresh = _scaled(parts, [parts[name].random for name in PARTS])
    logistic, random = logistic_probe(own), logistic_probe(fresh)
    truth = parts["test"].labels
    majority = truth == np.bincount(parts["train"].labels).argmax()
    gap = float(logistic.right.mean() - random.right.mean())
    low, high = gap_interval(logistic.right, random.right)
    classes = len(source.splits["train"].classes)
    verdict: Verdict = judge(
        top1=float(logistic.right.mean()),
        train_top1=logistic.train_top1,
        gap=gap,
        gap_low=low,
        images_a_class=len(parts["train"].labels) / classes,
    )
    return Probe(
        weights=origin.source,
        model=origin.name,
        data=source.name,
        images={name: len(part.labels) for name, part in parts.items()},
        classes=classes,
        width=parts["train"].own.shape[1],
        logistic=_score(logistic),
        neighbours=_score(nearest_neighbours(own)),
        random=_score(random),
        majority=_share(majority),
        gap=gap,
        gap_interval=(low, high),
        worth=verdict.worth,
        verdict=verdict.sentence + (SEEN if origin.fingerprint == source.fingerprint else ""),
        quarantined=len(features.quarantined),
        cached=features.cached,
        seconds=round(time.perf_counter() - began, 2),
    )


def _scaled(parts: dict[str, Part], vectors: list[Vectors]) -> Scaled:
    pairs = zip(scale(*vectors), PARTS, strict=True)
    train, val, test = ((values, parts[name].labels) for values, name in pairs)
    return Scaled(train, val, test)


def _score(answer: Answer) -> Score:
    right = answer.right
    return Score(float(right.mean()), top1_interval(right), answer.chosen, answer.train_top1)


def _share(right: Bool[np.ndarray, "N"]) -> Score:
    return Score(float(right.mean()), top1_interval(right))


def _origin(weights: str, given: Given | None) -> Origin:
    """The weights; those of a variant's name are fresh."""
    if weights not in VARIANTS or Path(weights).exists():
        return open_origin(weights, given)
    insist_nothing_given(weights, given or Given())
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
    model = create_model(weights)
    return Origin(
        source=weights,
        name=f"{weights} with fresh weights",
        backbone=model.config.backbone,
        task=None,
        preprocess=model.config.preprocess,
        state=dict(model.state_dict()),
        licence="none: fresh weights",
        sha256="fresh",
    )


def _models(origin: Origin, source: Source, device: str) -> tuple[Model, Backbone]:
    """What is probed, and the same architecture with fresh weights."""
    task = ClassifyConfig(classes=source.splits["train"].classes)
    config = ModelConfig(backbone=origin.backbone, task=task, preprocess=origin.preprocess)
    model, start = Model(config), "backbone."
    state = {k.removeprefix(start): t for k, t in origin.state.items() if k.startswith(start)}
    model.backbone.load_state_dict(state)
    torch.manual_seed(1)  # pyright: ignore[reportUnknownMemberType]
    random = build_backbone(origin.backbone)
    where = pick_device(device)
    return model.eval().to(where), random.eval().to(where)


def _insist_single_label(source: Source) -> None:
    train = source.splits["train"]
    if train.text:
        raise DataError(f"{source.name}: the labels are texts; a probe needs one class an image")
    if train.boxes or train.segments:
        kind = "boxes" if train.boxes else "masks"
        raise DataError(f"{source.name}: the labels are {kind}; a probe needs one class an image")
    if train.multilabel:
        raise DataError(
            f"{source.name}: images with several labels; a probe needs one class an image. Train "
            "the head instead: vitrail train DATA --weights FILE --method head"
        )


def _user_cache() -> Path:
    import pooch  # pyright: ignore[reportMissingTypeStubs]

    return Path(pooch.os_cache("vitrail")) / "features"
