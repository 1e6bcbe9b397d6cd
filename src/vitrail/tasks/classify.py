"""Classification: one label an image, or several (multi-label)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import Config
from vitrail.tasks.task import Task
from vitrail.types import Classification, Features, Prediction, Target


class ClassifyConfig(Config):
    """A linear classifier.

    Attributes:
        classes: Class names; their order is the order of the outputs.
        multilabel: An image may have any number of labels (sigmoid) instead of one (softmax).
        temperature: Logits are divided by it before they become probabilities; training fits it
            on the validation part (Guo et al. 2017), 1 leaves them as they are.
        threshold: Multi-label: a class is predicted from this probability on.
    """

    kind: Literal["classify"] = "classify"
    classes: tuple[str, ...] = Field(min_length=1)
    multilabel: bool = False
    temperature: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _distinct(self) -> ClassifyConfig:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"class names must differ; twice: {', '.join(twice)}")
        return self


class Classify(Task):
    """Pooled features to one logit a class (ViT section 3.1, the fine-tuning head)."""

    def __init__(self, config: ClassifyConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(width, len(config.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Features) -> Float[Tensor, "B C"]:
        """Logits."""
        return self.head(features.pooled)

    def encode(
        self, targets: Sequence[Target], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "B C"]:
        """One row of zeros and ones an image."""
        rows = torch.zeros(len(targets), len(self.config.classes))
        for row, target in zip(rows, targets, strict=True):
            assert target is not None, "training needs a label for every sample"
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

    def postprocess(self, output: Float[Tensor, "B C"]) -> list[Prediction]:
        """Label and scores by class name."""
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
