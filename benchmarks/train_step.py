"""Training step of a Vision Transformer against timm's, side by side in one run.

    python benchmarks/train_step.py [--model vit_tiny_patch16_224] [--batches 8 32] [--rounds 7]

Forward, cross-entropy, backward and AdamW, float32, on the same random images. Both sides start
from the same weights, take turns, and their logits are compared first. CPU time of one thread,
then wall time of two. timm is no dependency of vitrail.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_shim import timm
from vitrail import create_model

Clock = Callable[[], float]


class Side:
    """A model with its optimiser."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def step(self, images: Tensor, targets: Tensor) -> float:
        """One training step; the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(images), targets)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Normalised(nn.Module):
    """timm's model behind the normalisation that vitrail's model holds inside."""

    def __init__(self, model: nn.Module, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise

    def forward(self, images: Tensor) -> Tensor:
        """Logits for uint8 images."""
        return self.model(self.normalise(images))


def copy_weights(source: nn.Module, target: nn.Module) -> bool:
    """Copy the parameters, those of one shape in their order; False if shapes do not match."""
    given, wanted = list(source.parameters()), list(target.parameters())
    pools: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in given:
        pools.setdefault(tuple(parameter.squeeze().shape), []).append(parameter)
    if len(given) != len(wanted):
        return False
    with torch.no_grad():
        for parameter in wanted:
            pool = pools.get(tuple(parameter.squeeze().shape), [])
            if not pool:
                return False
            parameter.copy_(pool.pop(0).reshape(parameter.shape))
    return True


def compare(sides: tuple[Side, Side], batch: int, rounds: int, clock: Clock) -> list[list[float]]:
    """Seconds of each round for both sides, in turns."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 1000, (batch,), generator=generator)
    for side in sides:
        side.step(images, targets)
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        for key in (0, 1) if turn % 2 else (1, 0):
            start = clock()
            sides[key].step(images, targets)
            times[key].append(clock() - start)
    return times


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    ours, peer = create_model(args.model), timm().create_model(args.model)
    copied = copy_weights(peer, ours)
    sides = (Side(Normalised(peer, ours.normalise)), Side(ours))
    counts = [sum(p.numel() for p in side.model.parameters()) for side in sides]
    print(f"{args.model}: {counts[0]:,} parameters in timm, {counts[1]:,} in vitrail", end="")
    images = torch.zeros((2, 3, 224, 224), dtype=torch.uint8)
    images[:, :, ::3] = 200
    with torch.no_grad():
        gap = (sides[0].model(images) - sides[1].model(images)).abs().max()
    print(f"; weights copied: {copied}, largest difference of logits {float(gap):.1e}\n")
    print("| batch | measure | timm, ms | vitrail, ms | ratio |\n|---|---|---|---|---|")
    clocks = (
        ("CPU time, 1 thread", 1, time.process_time),
        ("wall, 2 threads", 2, time.perf_counter),
    )
    for name, threads, clock in clocks:
        torch.set_num_threads(threads)
        for batch in args.batches:
            a, b = compare(sides, batch, args.rounds, clock)
            ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
            first, second = (statistics.median(column) * 1e3 for column in (a, b))
            print(f"| {batch} | {name} | {first:.0f} | {second:.0f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
