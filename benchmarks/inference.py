"""Inference of vitrail's models against timm's, side by side in one process, eager, float32.

    python benchmarks/inference.py [--models NAME ...] [--batches 1 8] [--threads 1 2] [--rounds 15]

Both sides have the same random weights, so that their logits can be compared, and take turns on the
same normalised images under `torch.inference_mode`. One thread is measured in CPU time, which other
work on the machine disturbs least, several in wall time. timm is no dependency of vitrail.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from timm_shim import timm
from vitrail import create_model

RENAMED = {
    "layers.": "stages.",
    "patch_embed.norm.": "patch_norm.",
    "relative_position_bias_table": "positions.table",
    "cpb_mlp": "positions.mlp",
    "cls_token": "prefix_token",
}
"""Names of timm, and ours where they differ."""


class Backbone(nn.Module):
    """vitrail's backbone and head without the normalisation, as timm's models have none."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = create_model(name)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.model.task(self.model.backbone(images))


def our_name(name: str) -> str:
    """A parameter of timm's in our model."""
    if name.startswith("head."):
        return "task.head." + name.rsplit(".", 1)[1]
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return "backbone." + ("pos_embed.weight" if name == "pos_embed" else name)


def sides(name: str) -> tuple[nn.Module, nn.Module, int]:
    """The model of timm, ours with the same weights, and the image side."""
    torch.manual_seed(0)
    peer, ours = timm().create_model(name).eval(), Backbone(name).eval()
    with torch.no_grad():
        for parameter in peer.parameters():  # zeros and ones would hide a difference
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    state = {our_name(key): value for key, value in peer.state_dict().items()}
    for key, value in ours.model.state_dict().items():
        state[key] = state[key].reshape(value.shape)
    ours.model.load_state_dict(state)
    return peer, ours, ours.model.config.backbone.image_size[0]


def compare(
    models: tuple[nn.Module, nn.Module], images: Tensor, rounds: int, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Seconds of each round for both, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-2, rounds):
        for key in (0, 1) if turn % 2 else (1, 0):
            start = clock()
            models[key](images)
            if turn >= 0:
                times[key].append(clock() - start)
    return times


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["swin_tiny_patch4_window7_224", "vit_base_patch16_224"]
    parser.add_argument("--models", nargs="+", default=names)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print("| model | batch | measure | timm, ms | vitrail, ms | ratio | logits differ by |")
    print("|---|---|---|---|---|---|---|")
    for name in args.models:
        peer, ours, side = sides(name)
        for threads in args.threads:
            torch.set_num_threads(threads)
            clock = time.process_time if threads == 1 else time.perf_counter
            what = "CPU time, 1 thread" if threads == 1 else f"wall, {threads} threads"
            for batch in args.batches:
                images = torch.randn(batch, 3, side, side)
                with torch.inference_mode():
                    gap = float((peer(images) - ours(images)).abs().max())
                    rounds = compare((peer, ours), images, args.rounds, clock)
                first, second = (statistics.median(column) * 1e3 for column in rounds)
                print(
                    f"| {name} | {batch} | {what} | {first:.0f} | {second:.0f} "
                    f"| {first / second:.3f} | {gap:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
