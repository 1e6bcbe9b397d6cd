"""Which maps are true to a model: every method beside Random and Centre, as a section of a page.

    python benchmarks/faithfulness.py MODEL DATA [--samples 200] [--split test] [--methods KEY ...]
        [--out docs/explain-scores.md]

A section is named after the model and the data; one of that name is written anew, others stay.
Losers are shown as well.
"""

from __future__ import annotations

import argparse
import platform
import re
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from vitrail.data.open import open_labelled
from vitrail.explain.faithfulness.score import score
from vitrail.explain.faithfulness.scores import Scores
from vitrail.explain.methods import METHODS, method_named
from vitrail.explain.open import Opened, open_model
from vitrail.machine import read_text, usable_cores

INTRODUCTION = """# Which maps are true

An explanation is a picture of a model. Whether it is true can be measured: change what the map
points at, and see whether the model minds. Every table has the rows *Random* and *Centre*, maps
that know nothing of the model; a method that does not beat them explains nothing, however
convincing it looks. Losers stay in the tables.

- **deletion**: area below the probability of the class while the most salient pixels are erased.
  Less is better. **insertion**: the same while they come back first. More is better (RISE,
  Petsiuk et al. 2018). What takes the place of erased pixels changes the figures, so both are
  there: a *blurred* copy (standard deviation a tenth of the side) and the image's *mean* colour.
- **SaCo**: pixels in ten groups by salience, each erased alone; 1 where what a map calls more
  salient always costs more, -1 where it always costs less (Wu et al. 2024).
- **pointing**: how often the centre of the greatest cell lies on the evidence (Zhang et al. 2016,
  without their margin); **energy**: share of the map on the evidence (Wang et al. 2020). Only
  where the data know the evidence. *By chance* both are its share of the area.
- **fresh weights**: rank correlation of the map with that of the same model with fresh weights
  (Adebayo et al. 2018). Near 1, the map does not show what was learned. Random is thrown twice.

Maps explain the predicted class and are stretched to pixels; ties are broken by chance, the same
for all methods. All methods see the same images. In brackets: bootstrap 95 % interval over
images. A method is *better* than a baseline where both intervals are disjoint, and *ahead image by
image* where they overlap, but the interval of the differences on the same images leaves no doubt.
"""


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--split", default="test", choices=["all", "train", "val", "test"])
    parser.add_argument("--methods", nargs="+", metavar="KEY", help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/explain-scores.md"))
    args = parser.parse_args()
    opened = open_model(args.model)
    dataset = open_labelled(args.data, split=args.split, seed=opened.provenance.seed)
    methods = [method_named(key) for key in args.methods] if args.methods else METHODS
    start = time.process_time()
    found = score(
        *(opened.model, dataset, methods),
        samples=args.samples,
        seed=args.seed,
        progress=lambda done: print(f"{done} images", end="\r", flush=True),
    )
    text = section(opened, args.data, found, time.process_time() - start)
    before = args.out.read_text(encoding="utf-8") if args.out.exists() else INTRODUCTION
    args.out.write_text(replaced(before, text), encoding="utf-8")
    print(text)


def section(opened: Opened, data: str, found: Scores, seconds: float) -> str:
    """Heading, how it was measured, the table, and what it says."""
    known = opened.provenance.metrics
    right = f", test top-1 {100 * known['top1']:.1f} %" if "top1" in known else ""
    bad = f"; {len(found.skipped)} could not be read" if found.skipped else ""
    stages = [
        f"{row.label} {', '.join(f'{v.value:.2f} ({name})' for name, v in row.cascade.items())}"
        for row in found.rows
        if not row.method.baseline
    ]
    return "\n".join(
        [
            f"## {opened.name} on {Path(data).name}",
            "",
            f"- Command: `{command()}`",
            f"- Date: {datetime.now(UTC):%Y-%m-%d}. Machine: {machine()}. "
            f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); "
            f"{seconds / 60:.0f} CPU minutes.",
            f"- {found.count} images{bad}{right}.",
            "",
            found.to_markdown(),
            "",
            f"Rank correlation as weights are made fresh from the head down: {'; '.join(stages)}.",
            "",
        ]
    )


def command() -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/faithfulness.py", *words])


def machine() -> str:
    """Processor and usable cores."""
    lines = read_text(Path("/proc/cpuinfo")).splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {usable_cores():g} usable cores"


def replaced(page: str, text: str) -> str:
    """The page with a section in the place of the one of its name, or at the end."""
    heading = text.split("\n", 1)[0]
    parts = re.split(r"(?m)^(?=## )", page.rstrip("\n") + "\n\n")
    names = [part.split("\n", 1)[0] for part in parts]
    text = text.rstrip("\n") + "\n\n"
    if heading in names:
        parts[names.index(heading)] = text
    else:
        parts.append(text)
    return "".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main()
