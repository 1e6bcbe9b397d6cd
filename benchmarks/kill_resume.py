"""`kill -9` at random moments of a small run, then `--resume`: are the weights the same bits?

    python benchmarks/kill_resume.py [--kills 20] [--seed 0] [--workers 0 2] [--out TABLE.md]

For each number of worker processes one run is left alone. Then as many runs as asked are killed,
each at a moment of its own: most at a random time between the first batch and the end, some just
as a checkpoint is being written, some twice. Each is resumed to its end, and the SHA-256 over the
weights in its model file, and its epochs in `metrics.jsonl`, must be those of the run that was
never interrupted. Exit code 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

RECIPE = (
    *("schedule.epochs=6", "data.batch_size=8", "model.image_size=[8, 8]", "ema=0.9"),
    *("optim.accumulate=2", "mix.mixup=0.8", "mix.cutmix=1.0", "model.drop_path=0.2"),
    *("augment.erasing=0.3", "run.checkpoint_steps=2", "run.log_steps=1"),
)
"""All that draws random numbers is on, and checkpoints are frequent."""


LATE = "(had ended)"
"""Said of a second kill that found the run at its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run that was killed and resumed."""

    workers: int
    moments: tuple[str, ...]
    same: bool
    detail: str


def write_data(root: Path) -> Path:
    """Three classes of noisy coloured images, 8 x 8."""
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (60, 60, 200)), ("green", (60, 200, 60)), ("red", (200, 60, 60))):
        (root / name).mkdir(parents=True)
        for index in range(40):
            pixels = rng.normal(colour, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root


def start(run: Path, data: Path | None, workers: int) -> subprocess.Popen[str]:
    """Begin a run, or go on with it where no data are given."""
    command = [sys.executable, "-m", "vitrail.cli", "train", "--out", str(run), "--json"]
    if data is None:
        command += ["--resume"]
    else:
        kind = f'{{kind="processes", count={workers}}}' if workers else '{kind="serial"}'
        settings = (*RECIPE, f"data.workers={kind}")
        command += [str(data), *(word for key in settings for word in ("--set", key))]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end; an error is one."""
    output, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))}\nexit {process.returncode}\n{output}")


def sha256_of_weights(run: Path) -> str:
    """Over names, types, shapes and values of all tensors in the model file."""
    digest = hashlib.sha256()
    with safe_open(run / "model.safetensors", framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


def epochs_of(run: Path) -> list[dict[str, object]]:
    """Rows of the epochs, but for times."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows if r["kind"] == "epoch"]


def wait_for(process: subprocess.Popen[str], run: Path, pattern: str) -> float:
    """Seconds until something of that name lies among the checkpoints, or the run has ended."""
    began = time.monotonic()
    while process.poll() is None and not any((run / "checkpoints").glob(pattern)):
        time.sleep(0.0005)
    return time.monotonic() - began


def kill(process: subprocess.Popen[str], run: Path, rng: random.Random, span: float) -> str:
    """Kill a run at a moment of the generator's choice; says which."""
    if rng.random() < 0.3:
        wait_for(process, run, "step-*")
        time.sleep(rng.uniform(0, 0.5 * span))
        wait_for(process, run, ".step-*")
        moment = "in a save"
    else:
        wait_for(process, run, "step-*")
        pause = rng.uniform(0, span)
        time.sleep(pause)
        moment = f"{pause:.2f} s after the first save"
    done = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return f"{moment} {LATE}" if done else moment


def campaign(kills: int, seed: int, workers: int, folder: Path, data: Path) -> list[Outcome]:
    """Leave one run alone, then kill and resume the others."""
    whole = folder / f"whole-{workers}"
    process = start(whole, data, workers)
    wait_for(process, whole, "step-*")
    began = time.monotonic()
    finish(process)
    span = time.monotonic() - began
    wanted = sha256_of_weights(whole), epochs_of(whole)
    rng = random.Random(f"{seed}-{workers}")
    outcomes: list[Outcome] = []
    for number in range(kills):
        run = folder / f"killed-{workers}-{number}"
        while LATE in (moment := kill(start(run, data, workers), run, rng, span)):
            shutil.rmtree(run)  # a kill that came too late proves nothing: draw another moment
        moments = [moment]
        if rng.random() < 0.2:
            moments.append(kill(start(run, None, workers), run, rng, span))
        finish(start(run, None, workers))
        found = sha256_of_weights(run), epochs_of(run)
        detail = "same" if found == wanted else f"{found[0][:12]} is not {wanted[0][:12]}"
        outcomes.append(Outcome(workers, tuple(moments), found == wanted, detail))
        print(
            f"{workers} workers, {number + 1}/{kills}: {', '.join(moments)}: {detail}", flush=True
        )
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """One row a number of workers, then one a kill, in Markdown."""
    lines = ["| workers | kills | runs with the same bits |", "|---|---|---|"]
    for workers in dict.fromkeys(outcome.workers for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.workers == workers]
        lines.append(f"| {workers} | {len(own)} | {sum(o.same for o in own)} of {len(own)} |")
    lines += ["", "| workers | killed | weights and epochs |", "|---|---|---|"]
    lines += [f"| {o.workers} | {', then '.join(o.moments)} | {o.detail} |" for o in outcomes]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the campaign; 1 if any run differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--out", type=Path, help="also write the table there")
    given = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = write_data(folder / "data")
        for workers in given.workers:
            outcomes += campaign(given.kills, given.seed, workers, folder, data)
    print("\n" + table(outcomes))
    if given.out is not None:
        given.out.write_text(table(outcomes), encoding="utf-8")
    return 0 if all(outcome.same for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
