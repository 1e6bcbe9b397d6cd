"""All methods, and which of them serves a model."""

from __future__ import annotations

from vitrail.config import nearest
from vitrail.errors import ExplainError
from vitrail.explain.baselines import CentreMap, RandomMap
from vitrail.explain.conservative import Conservative
from vitrail.explain.gradcam import GradCam
from vitrail.explain.gradient_rollout import GradientRollout
from vitrail.explain.layers import attention_layers
from vitrail.explain.method import Method
from vitrail.explain.occlusion import Occlusion
from vitrail.explain.raw import RawAttention
from vitrail.explain.relevance import Relevance
from vitrail.explain.rollout import Rollout
from vitrail.model import Model

METHODS: tuple[Method, ...] = (
    Conservative(),
    GradientRollout(),
    Relevance(),
    GradCam(),
    Rollout(),
    RawAttention(),
    Occlusion(),
    CentreMap(),
    RandomMap(),
)
"""Every method with its defaults: by worth, then the slow reference, then what all have to beat."""


def method_named(key: str) -> Method:
    """The method with this key, with its defaults.

    Raises:
        ExplainError: there is none; the message lists all and offers the nearest.
    """
    for method in METHODS:
        if method.key == key:
            return method
    keys = [method.key for method in METHODS]
    raise ExplainError(f"unknown method '{key}'{nearest(key, keys)}; there are {', '.join(keys)}")


def default_method(model: Model) -> Method:
    """Conservative propagation where there is attention, else Grad-CAM (`docs/explain-scores.md`).

    Raises:
        ExplainError: the model gives no class.
    """
    method = Conservative() if attention_layers(model.backbone) else GradCam()
    if refused := method.refuses(model):
        raise ExplainError(f"no class map: {refused}; where a text was read: explain.reading")
    return method
