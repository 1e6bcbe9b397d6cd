"""Tasks: one a file. To add one: a file here and a line in each place below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from vitrail.tasks.classify import Classify, ClassifyConfig
from vitrail.tasks.detect import Detect, DetectConfig
from vitrail.tasks.segment import Segment, SegmentConfig
from vitrail.tasks.task import Task
from vitrail.tasks.transcribe import Transcribe, TranscribeConfig

TaskConfig = Annotated[
    ClassifyConfig | TranscribeConfig | DetectConfig | SegmentConfig, Field(discriminator="kind")
]
"""The union of all tasks; tests iterate over it."""


def build_task(
    config: TaskConfig,
    *,
    pooled_width: int,
    channels: Sequence[int],
    strides: Sequence[int],
    distilled: bool,
) -> Task[Any, Any]:
    """The head that a configuration describes, with fresh weights.

    Args:
        config: The task.
        pooled_width: Width of the backbone's pooled features.
        channels: Width of its maps, fine to coarse; tokens are as wide as the last.
        strides: Their strides.
        distilled: Whether it gives a distillation token, which needs a head of its own.
    """
    match config:
        case ClassifyConfig():
            return Classify(config, pooled_width, distilled=distilled)
        case TranscribeConfig():
            return Transcribe(config, channels[-1])
        case DetectConfig():
            return Detect(config, channels)
        case SegmentConfig():
            return Segment(config, channels, strides)
