"""What a study is: arms that differ in one thing, runs of each with several seeds, and claims.

An arm is a recipe with a few keys changed, so that any run of it can be repeated by itself with
`vitrail train`. All arms of a study share data, budget, seeds and everything that is not named in
the arm; nothing is tuned for one of them.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitrail.studies.claims import Claim
from vitrail.studies.data import Data, described
from vitrail.weights.modelfile import versions

Scale = Literal["smoke", "small", "full"]
"""`smoke` only tries whether everything runs; `small` takes minutes on two cores; `full` needs
large data, named by the user, and the hardware for it."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the things that are compared.

    Attributes:
        name: Unique in its study; also a file name.
        overrides: Dotted recipe keys, laid over those that all arms share. `{seed}` and `{runs}`
            stand for the seed and the folder of all runs.
        panel: Heading of the table and plot that it belongs to.
        series: The line of a plot that it is a point of, where `x` is given.
        x: Where on that line.
        data: What its runs see, if not what the others do.
        needs: An arm whose run with the same seed comes first (a teacher).
    """

    name: str
    overrides: tuple[str, ...] = ()
    panel: str = ""
    series: str = ""
    x: int | None = None
    data: Data | None = None
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that runs give.

    Attributes:
        name: Key in the result.
        title: For people.
        percent: Whether it is a fraction, to be shown in percent.
        plotted: Whether it gets a plot.
        log: Whether its axis is logarithmic.
    """

    name: str
    title: str
    percent: bool = True
    plotted: bool = True
    log: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A study at one scale.

    Attributes:
        arms: What is compared.
        claims: What was published about them, as inequalities between their figures.
        data: What the runs see.
        budget: What a run costs, in words.
        recipe: The recipe of all arms.
        shared: Overrides that all arms share.
        seeds: Runs of each arm: the smaller the published differences, the more.
    """

    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    data: Data
    budget: str
    recipe: str = "small-images"
    shared: tuple[str, ...] = ()
    seeds: int = 3

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True, slots=True)
class Job:
    """One run: an arm with a seed.

    Attributes:
        study: Name of the study.
        scale: Which of its plans.
        arm: Name of the arm.
        seed: Of the split, the weights, the order and the augmentation.
        data: Path or built-in name.
        folder: The study's folder.
    """

    study: str
    scale: Scale
    arm: str
    seed: int
    data: str
    folder: Path

    @property
    def run(self) -> Path:
        """Where training leaves its checkpoints and logs."""
        return self.folder / "runs" / f"{self.arm}-{self.seed}"

    @property
    def result(self) -> Path:
        """The figures of the run; the file is there once it is done."""
        return self.folder / "runs" / f"{self.arm}-{self.seed}.json"

    @property
    def log(self) -> Path:
        """What the run's process said."""
        return self.folder / "runs" / f"{self.arm}-{self.seed}.log"

    def overrides(self, plan: Plan) -> list[str]:
        """All dotted overrides of the run."""
        places = {"{seed}": str(self.seed), "{runs}": str(self.folder / "runs")}
        found = [*plan.shared, *plan.arm(self.arm).overrides, f"seed={self.seed}"]
        for place, value in places.items():
            found = [override.replace(place, value) for override in found]
        return found

    def command(self, plan: Plan) -> str:
        """The command line that repeats the run by itself."""
        words = ["vitrail", "train", self.data, "--recipe", plan.recipe]
        words += [word for override in self.overrides(plan) for word in ("--set", override)]
        return shlex.join(words)

    def key(self, plan: Plan) -> str:
        """Hash of all that the run depends on: a result with another key is out of date.

        Folders do not count, so that a study may be moved.
        """
        data = described(Path(self.data)) or self.data
        own = [*plan.shared, *plan.arm(self.arm).overrides]
        parts = [self.study, plan.recipe, own, self.seed, data, versions()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Study:
    """A controlled comparison.

    Attributes:
        name: As in `vitrail study NAME`.
        title: Heading of its page.
        question: What it asks and how, in a few sentences.
        published: Figures that were published, as Markdown, with their source.
        measures: Figures that runs give, the most important first.
        plans: The study at each scale.
        run: Makes one run and measures it.
        appendix: What else belongs on the page, as Markdown, after all runs; pictures are written
            beside it.
    """

    name: str
    title: str
    question: str
    published: str
    measures: tuple[Measure, ...]
    plans: Mapping[Scale, Plan]
    run: Callable[[Job, Plan], dict[str, float]]
    appendix: Callable[[Sequence[Job], Plan], str] | None = None
