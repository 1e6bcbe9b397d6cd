"""Loading a ViT-L against timm's loading of the same file: memory and time.

    python benchmarks/loading.py --peer PYTHON [--folder FOLDER] [--rounds 5]

`PYTHON` is an interpreter that has timm. It writes a `vit_large_patch16_224` with random weights
(304 million parameters, 1.2 GB) once as .pth and once as .safetensors into the folder; both files
are read once so that they lie in the page cache. Then each library makes a model from each file,
turn by turn and each time in a process of its own: vitrail by `load_checkpoint(FILE).model()`, timm
by `create_model(name, checkpoint_path=FILE)`. Imports are done before anything is measured.

Memory is the peak of the resident set above what it was before loading. Exit code 1 if vitrail
takes more than 1.2 times the file, or is less than 2 times faster in median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAME = "vit_large_patch16_224"
MEMORY = 1.2
SPEED = 2.0


def write(folder: Path) -> None:
    """Both files, by timm."""
    import torch
    from safetensors.torch import save_file

    import timm_shim

    timm = timm_shim.timm()
    torch.manual_seed(0)
    state = timm.create_model(NAME).state_dict()
    torch.save(state, folder / f"{NAME}.pth")
    save_file(state, folder / f"{NAME}.safetensors")


def vitrail() -> Callable[[Path], object]:
    """Loading as a user of vitrail does it."""
    from vitrail.weights.load import load_checkpoint

    return lambda path: load_checkpoint(path).model()


def peer() -> Callable[[Path], object]:
    """Loading as a user of timm does it."""
    import timm_shim

    timm = timm_shim.timm()
    return lambda path: timm.create_model(NAME, checkpoint_path=str(path)).eval()


def measure(load: Callable[[Path], object], path: Path) -> dict[str, float]:
    """Seconds of the wall and of the processor, and bytes, for one loading."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = memory("VmRSS")
    wall, processor = time.perf_counter(), time.process_time()
    model = load(path)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = memory("VmHWM") - before
    del model
    return {"wall": wall, "processor": processor, "peak": peak}


def memory(key: str) -> int:
    """Bytes, from the kernel."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{key}:")[1].split()[0]) << 10


def rounds(python: str, folder: Path, count: int) -> bool:
    """Measure and print a table; whether the bars are reached."""
    reached = True
    print("| file | library | wall, s | processor, s | peak over file |")
    print("|---|---|---|---|---|")
    for suffix in (".safetensors", ".pth"):
        path = folder / f"{NAME}{suffix}"
        path.read_bytes()
        found: dict[str, list[dict[str, float]]] = {"vitrail": [], "timm": []}
        for _ in range(count):
            found["vitrail"].append(child(sys.executable, "vitrail", path))
            found["timm"].append(child(python, "timm", path))
        size = path.stat().st_size
        peaks = {who: max(one["peak"] for one in runs) / size for who, runs in found.items()}
        for who, runs in found.items():
            wall, processor = (statistics.median(one[k] for one in runs) for k in TIMES)
            print(f"| {suffix} | {who} | {wall:.2f} | {processor:.2f} | {peaks[who]:.3f} |")
        ratios = {
            k: statistics.median(one[k] for one in found["timm"])
            / statistics.median(one[k] for one in found["vitrail"])
            for k in TIMES
        }
        print(
            f"| {suffix} | timm over vitrail | {ratios['wall']:.1f} | {ratios['processor']:.1f} | |"
        )
        reached &= peaks["vitrail"] < MEMORY and ratios["wall"] >= SPEED
    return reached


TIMES = ("wall", "processor")


def child(python: str, who: str, path: Path) -> dict[str, float]:
    """One loading in a fresh process."""
    done = subprocess.run(
        [python, __file__, "--one", who, str(path)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Write the files if they are not there, measure, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", help="interpreter that has timm")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("LIBRARY", "FILE"))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.write:
        write(args.write)
    elif args.one:
        who, path = args.one
        print(json.dumps(measure(vitrail() if who == "vitrail" else peer(), Path(path))))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder: Path = args.folder or Path(scratch)
            if not (folder / f"{NAME}.safetensors").exists():
                folder.mkdir(parents=True, exist_ok=True)
                subprocess.run([args.peer, __file__, "--write", str(folder)], check=True)
            sys.exit(0 if rounds(args.peer, folder, args.rounds) else 1)


if __name__ == "__main__":
    main()
