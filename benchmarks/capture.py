"""What it costs to look inside: a forward pass under `capture` beside a plain one, turn by turn.

    python benchmarks/capture.py [--model NAME] [--batches 1 8] [--threads 1 2] [--rounds 15]

Three sides take turns in one process on the same images: the model as it is; the model whose
attention has no probe at all, which tells what being able to look costs while nobody does; and the
model under `capture`, all layers, heads and rows. One thread is measured in CPU time, which other
work on the machine disturbs least, several in wall time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail import capture, create_model
from vitrail.nn.attention import Attention
from vitrail.types import Grid


class Blind(Attention):
    """Attention that could not be watched."""

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """As in its base class, without the question whether somebody watches."""
        B, N, D = tokens.shape
        qkv = self.qkv(tokens).reshape(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k, bias = self.positions(self.q_norm(q), self.k_norm(k), grid)
        joined = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.proj(joined.transpose(1, 2).reshape(B, N, D))


def blinded(model: nn.Module) -> nn.Module:
    """A copy whose attention has no probe."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, Attention):
            part.__class__ = Blind
    return model


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = create_model(args.model).eval()
    blind = blinded(model)
    height, width = model.config.backbone.image_size

    def watched(images: Tensor) -> Tensor:
        with capture(model) as record:
            logits = model(images)
        assert record.max_error < 1e-5
        return logits

    sides: tuple[Callable[[Tensor], Tensor], ...] = (blind, model, watched)
    print(
        "| batch | measure | no probe, ms | plain, ms | captured, ms | captured / plain "
        "| plain / no probe | logits equal |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for threads in args.threads:
        torch.set_num_threads(threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        what = "CPU time, 1 thread" if threads == 1 else f"wall, {threads} threads"
        for batch in args.batches:
            images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
            times: tuple[list[float], ...] = ([], [], [])
            with torch.inference_mode():
                first = [side(images) for side in sides]
                equal = all(torch.equal(first[0], other) for other in first)
                for turn in range(args.rounds):
                    for key in ((0, 1, 2), (2, 1, 0), (1, 2, 0))[turn % 3]:
                        start = clock()
                        sides[key](images)
                        times[key].append(clock() - start)
            none, plain, seen = (statistics.median(column) * 1e3 for column in times)
            print(
                f"| {batch} | {what} | {none:.0f} | {plain:.0f} | {seen:.0f} "
                f"| {seen / plain:.3f} | {plain / none:.3f} | {'yes' if equal else 'NO'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
