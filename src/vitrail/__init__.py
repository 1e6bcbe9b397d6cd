"""vitrail: Vision Transformers from a folder of images to a model that can be trusted.

The public names are imported when they are first used, so that `import vitrail` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vitrail.data.images import open_images
    from vitrail.data.open import open_source
    from vitrail.data.preprocess import Preprocess
    from vitrail.errors import UserError
    from vitrail.evaluate import Evaluation, evaluate
    from vitrail.explain.capture import capture
    from vitrail.explain.faithfulness.score import score
    from vitrail.explain.rollout import rollout
    from vitrail.explain.trace.run import trace
    from vitrail.metrics.classification import classification_metrics
    from vitrail.model import Model, ModelConfig, create_model, model_names
    from vitrail.predict import predict
    from vitrail.prediction_files import write_predictions
    from vitrail.probe.run import probe
    from vitrail.report import write_report
    from vitrail.studies.run import study
    from vitrail.train.choose import choose_recipe
    from vitrail.train.recipe import Recipe, load_recipe
    from vitrail.train.run import train
    from vitrail.verify import verify
    from vitrail.weights.convert import convert
    from vitrail.weights.load import load_checkpoint
    from vitrail.weights.modelfile import load_model, save_model

_HOME = {
    "Evaluation": "vitrail.evaluate",
    "Model": "vitrail.model",
    "ModelConfig": "vitrail.model",
    "Preprocess": "vitrail.data.preprocess",
    "Recipe": "vitrail.train.recipe",
    "UserError": "vitrail.errors",
    "capture": "vitrail.explain.capture",
    "choose_recipe": "vitrail.train.choose",
    "classification_metrics": "vitrail.metrics.classification",
    "convert": "vitrail.weights.convert",
    "create_model": "vitrail.model",
    "evaluate": "vitrail.evaluate",
    "load_checkpoint": "vitrail.weights.load",
    "load_model": "vitrail.weights.modelfile",
    "load_recipe": "vitrail.train.recipe",
    "model_names": "vitrail.model",
    "open_images": "vitrail.data.images",
    "open_source": "vitrail.data.open",
    "predict": "vitrail.predict",
    "probe": "vitrail.probe.run",
    "rollout": "vitrail.explain.rollout",
    "save_model": "vitrail.weights.modelfile",
    "score": "vitrail.explain.faithfulness.score",
    "study": "vitrail.studies.run",
    "trace": "vitrail.explain.trace.run",
    "train": "vitrail.train.run",
    "verify": "vitrail.verify",
    "write_predictions": "vitrail.prediction_files",
    "write_report": "vitrail.report",
}

__all__ = [
    "Evaluation",
    "Model",
    "ModelConfig",
    "Preprocess",
    "Recipe",
    "UserError",
    "__version__",
    "capture",
    "choose_recipe",
    "classification_metrics",
    "convert",
    "create_model",
    "evaluate",
    "load_checkpoint",
    "load_model",
    "load_recipe",
    "model_names",
    "open_images",
    "open_source",
    "predict",
    "probe",
    "rollout",
    "save_model",
    "score",
    "study",
    "trace",
    "train",
    "verify",
    "write_predictions",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `vitrail.predict` the function: importing the module `predict` would bind that here."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
