"""Classification: one label an image, or several (multi-label)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import Config, Width, nearest
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError
from vitrail.metrics.classification import ClassificationMetrics, classification_metrics
from vitrail.tasks.task import Task
from vitrail.types import (
    Boxes,
    Classification,
    Features,
    Grid,
    Prediction,
    Segments,
    Target,
)


class ClassifyConfig(Config):
    """A linear classifier.

    Attributes:
        classes: Class names; their order is the order of the outputs.
        hidden: Width of a tanh layer before the head (the "representation layer" of ViT's
            pre-training, section 3.1); None for none, as after fine-tuning.
        multilabel: An image may have any number of labels (sigmoid) instead of one (softmax).
        temperature: Logits are divided by it before they become probabilities; training fits it
            on the validation part (Guo et al. 2017), 1 leaves them as they are.
        threshold: Multi-label: a class is predicted from this probability on.
    """

    kind: Literal["classify"] = "classify"
    classes: tuple[str, ...] = Field(min_length=1)
    hidden: Width | None = None
    multilabel: bool = False
    temperature: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _distinct(self) -> ClassifyConfig:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"class names must differ; twice: {', '.join(twice)}")
        return self


class Classify(Task[Tensor, Tensor]):
    """Pooled features to one logit a class (ViT section 3.1, the fine-tuning head).

    A backbone with a distillation token has a second head on it; the answer is the mean of both
    (DeiT section 4, "joint classifiers").
    """

    def __init__(self, config: ClassifyConfig, width: int, *, distilled: bool = False) -> None:
        super().__init__()
        self.config = config
        self.pre_logits = _representation(width, config.hidden)
        self.head = _head(config.hidden or width, len(config.classes))
        self.head_dist = _head(width, len(config.classes)) if distilled else None

    def forward(self, features: Features) -> Float[Tensor, "B C"]:
        """Logits."""
        if self.head_dist is None:
            return self.head(self.represent(features))
        own, distilled = self.heads(features)
        return (own + distilled) / 2

    def represent(self, features: Features) -> Float[Tensor, "B D"]:
        """What the head of the class token reads."""
        if self.pre_logits is None:
            return features.pooled
        return self.pre_logits(features.pooled).tanh()

    def heads(self, features: Features) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
        """Logits of the class token and of the distillation token, which may be the same."""
        own = self.head(self.represent(features))
        if self.head_dist is None:
            return own, own
        assert features.distilled is not None
        return own, self.head_dist(features.distilled)

    def encode(
        self, targets: Sequence[Target], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "B C"]:
        """One row of zeros and ones an image."""
        rows = torch.zeros(len(targets), len(self.config.classes))
        for row, target in zip(rows, targets, strict=True):
            assert target is not None, "training needs a label for every sample"
            assert not isinstance(target, str | Boxes | Segments), "no class"
            row[[target] if isinstance(target, int) else list(target)] = 1.0
        return rows.to(device)

    def loss(
        self, output: Float[Tensor, "B C"], targets: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B"]:
        """Cross-entropy against a distribution; multi-label: mean binary cross-entropy."""
        if self.config.multilabel:
            losses = F.binary_cross_entropy_with_logits(output, targets, reduction="none")
            return losses.mean(dim=1)
        return -(targets * output.log_softmax(dim=1)).sum(dim=1)

    def probabilities(self, output: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Probabilities at the model's temperature, computed in float32."""
        scaled = output.float() / self.config.temperature
        return scaled.sigmoid() if self.config.multilabel else scaled.softmax(dim=1)

    def adapt(self, dataset: Dataset) -> list[Target]:
        """Targets in the order of the model's classes, which are matched by name.

        Raises:
            DataError: a class that the model does not know, several labels an image where the
                model gives one, or a sample without a label.
        """
        if dataset.text or dataset.boxes or dataset.segments:
            has = "texts" if dataset.text else "boxes" if dataset.boxes else "masks"
            raise DataError(f"the data has {has}, the model gives classes; train with them first")
        if dataset.multilabel and not self.config.multilabel:
            raise DataError(
                "the data has several labels an image, the model gives one; train again"
            )
        index = class_index(self.config.classes, dataset.classes)
        return [_translate(target, index) for target in dataset.targets]

    def measure(
        self, predictions: Sequence[Prediction], targets: Sequence[Target], *, intervals: bool
    ) -> ClassificationMetrics:
        """Accuracy, calibration and their kin."""
        found = cast("Sequence[Classification]", predictions)
        return classification_metrics(
            np.array([list(prediction.scores.values()) for prediction in found]),
            targets,
            self.config.classes,
            multilabel=self.config.multilabel,
            threshold=self.config.threshold,
            intervals=intervals,
        )

    def postprocess(
        self,
        output: Float[Tensor, "B C"],
        sizes: Sequence[Grid] = (),
        extents: Sequence[Grid] = (),
    ) -> list[Prediction]:
        """Label and scores by class name."""
        del sizes, extents
        classes = self.config.classes
        predictions: list[Prediction] = []
        rows = cast("list[list[float]]", self.probabilities(output).numpy(force=True).tolist())
        for row in rows:
            best = max(range(len(row)), key=row.__getitem__)
            chosen = [best]
            if self.config.multilabel:
                chosen = [i for i, score in enumerate(row) if score >= self.config.threshold]
            label = ";".join(classes[i] for i in chosen)
            scores = dict(zip(classes, row, strict=True))
            predictions.append(Classification(label, row[best], scores))
        return predictions


def class_index(known: Sequence[str], given: Sequence[str]) -> list[int]:
    """For each given class its place among those that a model knows.

    Raises:
        DataError: one of them is unknown; the nearest known names are offered.
    """
    for name in given:
        if name not in known:
            shown = ", ".join(known[:10]) + (" ..." if len(known) > 10 else "")
            raise DataError(
                f"the data has a class '{name}' that the model does not know"
                f"{nearest(name, known)}; the model's classes: {shown}"
            )
    return [list(known).index(name) for name in given]


def _translate(target: Target, index: list[int]) -> Target:
    if target is None:
        raise DataError("evaluation needs a label for every sample; to label new images: predict")
    assert not isinstance(target, str | Boxes | Segments), "no class"
    if isinstance(target, int):
        return index[target]
    return tuple(sorted(index[i] for i in target))


def _representation(width: int, hidden: int | None) -> nn.Linear | None:
    return None if hidden is None else _head(width, hidden)


def _head(width: int, classes: int) -> nn.Linear:
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
