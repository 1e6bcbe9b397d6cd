"""Learning from a teacher beside the labels (DeiT, Touvron et al. 2021, section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError, ModelFileError
from vitrail.model import Model
from vitrail.tasks.classify import Classify
from vitrail.train.recipe import DistillRecipe
from vitrail.weights.modelfile import load_model, resolve_model


class Teacher(nn.Module):
    """A trained model, of whatever family, that gives logits in the student's order of classes.

    It sees the student's images, mixed as they are, at the size that it was made for.
    """

    def __init__(self, model: Model, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.order = list(order)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Float[Tensor, "B C"]:
        """Logits at the teacher's own temperature."""
        size = self.model.config.preprocess.output_size(images.shape[2], images.shape[3])
        if size != tuple(images.shape[2:]):
            images = F.interpolate(
                images.float(), size, mode="bilinear", align_corners=False, antialias=True
            )
        logits = self.model(images)[:, self.order].float()
        assert isinstance(self.model.task, Classify)
        return logits / self.model.task.config.temperature


def load_teacher(path: str, classes: Sequence[str]) -> Teacher:
    """Read a teacher and check that it knows the same classes.

    Raises:
        ConfigError: it cannot be read, is no classifier, or its classes are others; the first that
            differ are named.
    """
    model = _read(path)
    if not isinstance(model.task, Classify) or model.task.config.multilabel:
        raise ConfigError(f"distill.teacher = '{path}': must be a classifier with one label")
    known = model.task.config.classes
    unknown = [name for name in classes if name not in known]
    spare = [name for name in known if name not in classes]
    if unknown or spare:
        what = f"does not know {_some(unknown)}" if unknown else f"has {_some(spare)} besides"
        raise ConfigError(
            f"distill.teacher = '{path}': knows other classes than the data: it {what}; "
            "train a teacher on the same classes"
        )
    return Teacher(model, [known.index(name) for name in classes])


def seal_of_teacher(path: str) -> str:
    """SHA-256 of the teacher's file: a run goes on with the teacher that it began with."""
    return hashlib.sha256(resolve_model(path).read_bytes()).hexdigest()


class TwoHeads(nn.Module):
    """A model that answers with both of its heads; the same one twice if it has no second."""

    def __init__(self, model: Model, task: Classify) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
        """Logits for the labels, and for the teacher."""
        return self.task.heads(self.model.backbone(self.model.normalise(images)))


class Distillation:
    """(1 - alpha) of the loss on the labels and alpha of that on the teacher."""

    def __init__(self, recipe: DistillRecipe, teacher: Teacher) -> None:
        self.recipe, self.teacher = recipe, teacher

    def __call__(
        self, truth: Float[Tensor, "B"], logits: Float[Tensor, "B C"], images: Tensor
    ) -> Float[Tensor, "B"]:
        """One loss a sample.

        Args:
            truth: Loss of the class head on the labels.
            logits: What the distillation head says.
            images: What the student saw.
        """
        taught = self.teacher(images)
        alpha, tau = self.recipe.alpha, self.recipe.temperature
        if self.recipe.method == "hard":
            learned = F.cross_entropy(logits, taught.argmax(dim=1), reduction="none")
        else:
            own, soft = (x.div(tau).log_softmax(dim=1) for x in (logits, taught))
            divergence = F.kl_div(own, soft, log_target=True, reduction="none")
            learned = divergence.sum(dim=1) * tau**2
        return (1 - alpha) * truth + alpha * learned


def _read(path: str) -> Model:
    try:
        return load_model(resolve_model(path))[0]
    except ModelFileError as error:
        raise ConfigError(f"distill.teacher: {error}; give a trained model or a run") from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
