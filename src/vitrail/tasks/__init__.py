"""Tasks: one a file. To add one: a file here and a line in each place below."""

from __future__ import annotations

from vitrail.tasks.classify import Classify, ClassifyConfig
from vitrail.tasks.task import Task

TaskConfig = ClassifyConfig
"""The union of all tasks; tests iterate over it."""


def build_task(config: TaskConfig, width: int) -> Task:
    """The head that a configuration describes, with fresh weights.

    Args:
        config: The task.
        width: Width of the backbone's pooled features.
    """
    match config:
        case ClassifyConfig():
            return Classify(config, width)
