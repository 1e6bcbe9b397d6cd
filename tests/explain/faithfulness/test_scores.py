from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vitrail.explain.baselines import CentreMap, RandomMap
from vitrail.explain.faithfulness.intervals import Value
from vitrail.explain.faithfulness.scores import MEASURES, Row, Scores, label
from vitrail.explain.method import Method
from vitrail.explain.relevance import Relevance
from vitrail.explain.rollout import Rollout
from vitrail.types import Skipped

DECIDING = [m.key for m in MEASURES if m.decides]


def near(value: float) -> Value:
    return Value(value, value - 0.05, value + 0.05, 100)


def gap(value: float) -> Value:
    """Of differences image by image: half as wide."""
    return Value(value, value - 0.025, value + 0.025, 100)


def row(method: Method, deletion: float, insertion: float) -> Row:
    values = {key: near(deletion if "deletion" in key else insertion) for key in DECIDING}
    values |= {"saco": near(0.3), "randomised": near(0.1)}
    gaps = {
        "random": {k: gap(v.value - (0.6 if "deletion" in k else 0.4)) for k, v in values.items()},
        "centre": {k: gap(v.value - 0.5) for k, v in values.items()},
    }
    return Row(method, values, gaps, {"head": near(0.6), "all": near(0.1)}, 0.0123)


def scores(*rows: Row, chance: float | None = None) -> Scores:
    return Scores(
        rows=(*rows, row(RandomMap(), 0.6, 0.4), row(CentreMap(), 0.5, 0.5)),
        refused={"Raw attention": "a ResNet has no attention"},
        asked=101,
        count=100,
        skipped=(Skipped("a.png", "truncated"),),
        chance=chance,
        explained="predicted",
        seed=0,
        steps=24,
    )


def test_better_than_both_in_every_curve() -> None:
    found = scores(row(Relevance(), 0.1, 0.9))
    assert found.beats(found.rows[0])
    assert found.verdict(found.rows[0]) == "better than Random and Centre in every curve"
    assert [b.label for b in found.baselines] == ["Random", "Centre"]
    assert found.verdict(found.baselines[0]) == ""


def test_intervals_that_overlap_may_be_resolved_image_by_image() -> None:
    found = scores(row(Relevance(), 0.45, 0.9))
    first = found.rows[0]
    assert first.against(found.baselines[1]) == {
        "deletion_blur": "ahead",
        "deletion_mean": "ahead",
        "insertion_blur": "better",
        "insertion_mean": "better",
    }
    assert not found.beats(first)
    assert found.verdict(first) == (
        "against Random: better in every curve; against Centre: better in insertion blur and "
        "insertion mean, ahead only image by image in deletion blur and deletion mean"
    )


def test_a_loser_is_called_one() -> None:
    found = scores(row(Rollout(), 0.9, 0.1))
    assert found.verdict(found.rows[0]) == (
        "against Random: worse in every curve; against Centre: worse in every curve"
    )
    found = scores(row(Rollout(), 0.56, 0.49))
    assert found.verdict(found.rows[0]) == (
        "against Random: ahead only image by image in every curve; against Centre: behind image "
        "by image in deletion blur and deletion mean, not resolved in insertion blur and "
        "insertion mean"
    )
    assert not found.beats(found.rows[0])


def test_less_is_better_for_deletion() -> None:
    worse = row(Relevance(), 0.9, 0.9)
    found = scores(worse)
    assert worse.against(found.baselines[0])["deletion_mean"] == "worse"
    assert worse.against(found.baselines[0])["insertion_mean"] == "better"


def test_settings_are_named_where_they_are_not_the_usual_ones() -> None:
    assert label(Rollout()) == "Attention rollout"
    assert label(Rollout(heads="max")) == "Attention rollout (heads max)"
    assert label(Rollout(discard=0.9, heads="min")) == "Attention rollout (heads min, discard 0.9)"
    assert label(RandomMap(seed=5)) == "Random"


def test_plain_data_for_json() -> None:
    found = json.loads(json.dumps(scores(row(Relevance(), 0.1, 0.9)).to_dict()))
    assert set(found) == {
        *("asked", "count", "skipped", "explained", "seed", "steps", "chance", "methods"),
        "refused",
    }
    assert found["skipped"] == [{"id": "a.png", "reason": "truncated"}]
    first, random, _ = found["methods"]
    assert first["key"] == "relevance"
    assert first["values"]["saco"] == {"value": 0.3, "low": 0.25, "high": 0.35, "count": 100}
    assert first["gaps"]["random"]["deletion_mean"]["value"] == pytest.approx(-0.5)
    assert first["verdict"]["beats_baselines"] is True
    assert first["verdict"]["against"]["centre"]["deletion_blur"] == "better"
    assert random["baseline"] is True
    assert random["verdict"] is None


def test_rows_for_a_terminal() -> None:
    header, rows = scores(row(Relevance(), 0.1, 0.9)).to_rows()
    assert header[:2] == ["method", "deletion, blur ↓"]
    assert "pointing ↑" not in header
    assert len(rows) == 3
    assert rows[0][:2] == [Relevance().name, "0.100 ± 0.050"]
    assert rows[0][-1] == "12.3"
    assert {len(line) for line in [header, *rows]} == {len(header)}


@pytest.mark.parametrize("chance", [None, 0.04])
def test_markdown_has_intervals_baselines_and_losers(chance: float | None) -> None:
    first = row(Rollout(), 0.9, 0.1)
    if chance:
        first = replace(first, values=first.values | {"pointing": near(0.8), "energy": near(0.2)})
    text = scores(first, chance=chance).to_markdown()
    lines = text.splitlines()
    assert lines[2].startswith("| Attention rollout | 0.900 (0.850 to 0.950) |")
    assert lines[4].startswith("| Centre |")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "- Attention rollout: against Random: worse in every curve" in text
    assert "- Raw attention: not measured; a ResNet has no attention." in text
    assert ("by chance" in text) == (chance is not None)
    if chance:
        assert "| 0.040 |" in text
        assert "| - |" in lines[3]  # no value of Random's here
