"""What the validation part tells of a trained model."""

from __future__ import annotations

import pytest

from segmenter import tiny_segmenter
from tiny import ListDataset
from vitrail.data.dataset import Dataset
from vitrail.evaluate import Evaluation
from vitrail.metrics.segmentation import SegmentationMetrics
from vitrail.model import Model
from vitrail.tasks.segment import SegmentConfig
from vitrail.train import calibrate as module
from vitrail.train.calibrate import EDGES, calibrate


@pytest.mark.parametrize("start", [0.5, 0.3])
def test_each_edge_is_judged_at_its_own_threshold(
    monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    """Scores fall with the edge: at the threshold of another edge the best one finds nothing."""
    asked: list[float] = []

    def fake(model: Model, val: Dataset, *, intervals: bool) -> Evaluation:
        del val
        assert not intervals
        task = model.config.task
        assert isinstance(task, SegmentConfig)
        asked.append(task.mask_threshold)
        own = task.mask_threshold + 0.1
        right = abs(task.threshold - own) < 1e-6
        dice = 1 - abs(task.mask_threshold - 0.4) if right else 0.0
        result = SegmentationMetrics(
            count=1,
            metrics={"dice": dice},
            intervals={},
            answer="instance",
            per_class=(),
            confusion=(),
            images=(),
            curve=None,
            threshold=own,
        )
        return Evaluation(1, result, (), ())

    monkeypatch.setattr(module, "evaluate", fake)
    model = tiny_segmenter("matched queries", answer="instance", mask_threshold=start)
    found, quarantined = calibrate(model, ListDataset([]), lambda _: None)
    task = found.config.task
    assert isinstance(task, SegmentConfig)
    assert (task.mask_threshold, task.threshold) == (0.4, 0.5)
    assert quarantined == ()
    assert set(asked) == {start, *EDGES}
