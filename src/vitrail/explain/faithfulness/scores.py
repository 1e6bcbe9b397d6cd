"""What was measured of some methods on the same images, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal

from vitrail.explain.faithfulness.intervals import Value
from vitrail.explain.method import Method
from vitrail.types import Skipped

Outcome = Literal["better", "ahead", "open", "behind", "worse"]
"""Better or worse: the 95 % intervals are disjoint. Ahead or behind: they are not, but that of the
differences image by image leaves no doubt, since all methods saw the same images."""

Explained = Literal["predicted", "label"]
"""The class that maps explain: what the model says, or what the data say."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column.

    Attributes:
        key: Fixed name.
        title: For people, with an arrow where one direction is better.
        better: 1 where more is better, -1 where less is; 0 where it is no matter of degree.
        decides: Whether the verdict rests on it.
        localises: Whether it needs to know where the evidence is.
    """

    key: str
    title: str
    better: Literal[-1, 0, 1]
    decides: bool = False
    localises: bool = False


MEASURES = (
    Measure("deletion_blur", "deletion, blur ↓", -1, decides=True),
    Measure("deletion_mean", "deletion, mean ↓", -1, decides=True),
    Measure("insertion_blur", "insertion, blur ↑", 1, decides=True),
    Measure("insertion_mean", "insertion, mean ↑", 1, decides=True),
    Measure("saco", "SaCo ↑", 1),
    Measure("pointing", "pointing ↑", 1, localises=True),
    Measure("energy", "energy ↑", 1, localises=True),
    Measure("randomised", "fresh weights", 0),
)
"""All columns in their order. The last is the rank correlation of a map with that of the same model
with fresh weights: near 1, the map does not show the model."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method.

    Attributes:
        method: With its settings.
        values: By key of the measure; those that the data do not allow are missing.
        gaps: Mean difference to a baseline, image by image, by its key and that of the measure;
            the deciding measures only. A baseline has none.
        cascade: Rank correlation with the map of the trained model as weights are made fresh
            from the head down, by the last group that was.
        seconds: An image, for the map alone.
    """

    method: Method
    values: Mapping[str, Value]
    gaps: Mapping[str, Mapping[str, Value]]
    cascade: Mapping[str, Value]
    seconds: float

    @property
    def label(self) -> str:
        """Its name, with the settings that are not the usual ones."""
        return label(self.method)

    def against(self, baseline: Row) -> dict[str, Outcome]:
        """What each deciding measure says of this map beside one that knows nothing."""
        gap = self.gaps[baseline.method.key]
        return {
            m.key: _outcome(m, self.values[m.key], baseline.values[m.key], gap[m.key])
            for m in MEASURES
            if m.decides
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """All methods on the same images.

    Attributes:
        rows: One a method in the order that was asked for, then the baselines.
        refused: Why a method cannot explain this model, by label.
        asked: Images that were to be measured.
        count: Images that were.
        skipped: Those that could not be read.
        chance: What a map that knows nothing gets in `pointing` and `energy`: the evidence's share
            of the area; None where there is no evidence.
        explained: Which class the maps explain.
        seed: Of the choice of images, ties, fresh weights and resamples.
        steps: Steps of a curve.
    """

    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    asked: int
    count: int
    skipped: tuple[Skipped, ...]
    chance: float | None
    explained: Explained
    seed: int
    steps: int

    @property
    def baselines(self) -> tuple[Row, ...]:
        """The rows that know nothing of the model."""
        return tuple(row for row in self.rows if row.method.baseline)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The columns that have a value."""
        return tuple(m for m in MEASURES if any(m.key in row.values for row in self.rows))

    def beats(self, row: Row) -> bool:
        """Whether it is better than every baseline in all deciding measures."""
        found = [set(row.against(other).values()) for other in self.baselines]
        return all(outcomes == {"better"} for outcomes in found)

    def verdict(self, row: Row) -> str:
        """What the deciding measures say, in plain words; empty for a baseline."""
        if row.method.baseline:
            return ""
        names = [other.label for other in self.baselines]
        if self.beats(row):
            return f"better than {_listed(names)} in every curve"
        return "; ".join(
            f"against {name}: {_sentence(row.against(other))}"
            for name, other in zip(names, self.baselines, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data with fixed names, for JSON."""
        return {
            "asked": self.asked,
            "count": self.count,
            "skipped": [{"id": s.id, "reason": s.reason} for s in self.skipped],
            "explained": self.explained,
            "seed": self.seed,
            "steps": self.steps,
            "chance": self.chance,
            "methods": [self._row(row) for row in self.rows],
            "refused": dict(self.refused),
        }

    def to_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for a terminal: means, and the longer half of their intervals."""
        return self._table(_short)

    def to_markdown(self) -> str:
        """The table with its intervals, and a sentence on each method below it."""
        header, rows = self._table(_long)
        lines = [header, ["---"] * len(header), *rows]
        table = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
        said = [f"- {r.label}: {self.verdict(r)}." for r in self.rows if not r.method.baseline]
        said += [f"- {name}: not measured; {reason}." for name, reason in self.refused.items()]
        return "\n".join([*table, "", *said])

    def _table(self, cell: Callable[[Value | None], str]) -> tuple[list[str], list[list[str]]]:
        measures = self.measures
        header = ["method", *(m.title for m in measures), "ms an image"]
        rows = [
            [row.label, *(cell(row.values.get(m.key)) for m in measures), _ms(row.seconds)]
            for row in self.rows
        ]
        if self.chance is not None:
            known = [f"{self.chance:.3f}" if m.localises else "" for m in measures]
            rows.append(["by chance", *known, ""])
        return header, rows

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "key": row.method.key,
            "name": row.label,
            "paper": row.method.paper,
            "baseline": row.method.baseline,
            "seconds": row.seconds,
            "values": _plain(row.values),
            "gaps": {key: _plain(gap) for key, gap in row.gaps.items()},
            "cascade": _plain(row.cascade),
            "verdict": None if row.method.baseline else self._judged(row),
        }

    def _judged(self, row: Row) -> dict[str, Any]:
        return {
            "beats_baselines": self.beats(row),
            "text": self.verdict(row),
            "against": {b.method.key: row.against(b) for b in self.baselines},
        }


def label(method: Method) -> str:
    """A method's name, with the settings that are not the usual ones."""
    if method.baseline:
        return method.name
    assert is_dataclass(method), "a method is a frozen dataclass of its settings"
    settings = asdict(method)
    changed = [
        f"{f.name} {settings[f.name]}" for f in fields(method) if settings[f.name] != f.default
    ]
    return f"{method.name} ({', '.join(changed)})" if changed else method.name


def _outcome(measure: Measure, ours: Value, theirs: Value, gap: Value) -> Outcome:
    less, more = (ours, theirs) if measure.better < 0 else (theirs, ours)
    if less.below(more):
        return "better"
    if more.below(less):
        return "worse"
    if gap.low <= 0 <= gap.high:
        return "open"
    return "ahead" if (gap.value > 0) == (measure.better > 0) else "behind"


def _sentence(outcomes: Mapping[str, Outcome]) -> str:
    words: dict[Outcome, str] = {
        "better": "better in",
        "ahead": "ahead only image by image in",
        "worse": "worse in",
        "behind": "behind image by image in",
        "open": "not resolved in",
    }
    titles = {m.key: m.title.rstrip(" ↓↑").replace(",", "") for m in MEASURES}
    parts: list[str] = []
    for outcome, said in words.items():
        keys = [key for key, found in outcomes.items() if found == outcome]
        if len(keys) == len(outcomes):
            return f"{said} every curve"
        if keys:
            parts.append(f"{said} {_listed(titles[key] for key in keys)}")
    return ", ".join(parts)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _plain(values: Mapping[str, Value]) -> dict[str, dict[str, float]]:
    return {key: value.to_dict() for key, value in values.items()}


def _short(value: Value | None) -> str:
    if value is None:
        return "-"
    half = max(value.high - value.value, value.value - value.low)
    return f"{value.value:.3f} ± {half:.3f}"


def _long(value: Value | None) -> str:
    return "-" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"
