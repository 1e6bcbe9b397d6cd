"""What dividing by the wrong axis does to attention rollout.

    python benchmarks/rollout_axis.py MODEL IMAGES [--most 100]

Rollout multiplies one matrix a layer: fused heads plus the identity, each row divided by its sum,
so that a row says what one token is made of. A much-copied program divides entry (i, j) by the sum
of row j instead. Where heads are fused by their mean and nothing is discarded all rows sum to 1 and
it does not matter; for the settings that people use it does. Everything is computed in float64 from
weights that `capture` took, beside `vitrail.rollout`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch
from scipy.stats import spearmanr
from torch import Tensor

from vitrail import capture, open_images, rollout
from vitrail.errors import BadSampleError
from vitrail.explain.layout import Whole
from vitrail.explain.open import open_model


def product(layers: list[Tensor], heads: str, discard: float, *, right: bool) -> Tensor:
    """All layers multiplied, in float64."""
    flow = torch.eye(layers[0].shape[-1], dtype=torch.float64)
    for weights in layers:
        fused = {"mean": weights.mean(0), "max": weights.amax(0), "min": weights.amin(0)}[heads]
        flat = fused.flatten().clone()
        flat[flat.topk(int(discard * len(flat)), largest=False).indices] = 0
        fused = flat.view_as(fused)
        if right:
            total = fused.sum(dim=1, keepdim=True)
            eye = torch.eye(len(fused), dtype=torch.float64)
            fused = torch.where(total > 0, fused / total.where(total > 0, 1), eye)
            mixed = (fused + eye) / 2
        else:
            mixed = (fused + torch.eye(len(fused), dtype=torch.float64)) / 2
            mixed = mixed / mixed.sum(dim=1)
        flow = mixed @ flow
    return flow


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--most", type=int, default=100)
    args = parser.parse_args()
    model = open_model(args.model).model
    data = open_images(args.images)
    print(
        "| heads | discard | ours against float64 | wrong: sums of rows | wrong: largest change "
        "of a patch | rank correlation | other best patch |"
    )
    print("|---|---|---|---|---|---|---|")
    for heads, discard in itertools.product(("mean", "max", "min"), (0.0, 0.5, 0.9)):
        gaps, sums, changes, ranks, moved = [], [], [], [], []
        for index in range(min(args.most, len(data))):
            try:
                image = model.config.preprocess.prepare(data.read(index).image)[None]
            except BadSampleError:
                continue
            with torch.no_grad(), capture(model) as record:
                model(image)
            places = [layer for layer in record.layers if isinstance(layer.layout, Whole)]
            layers = [layer.weights[0].double() for layer in places]
            prefix = len(places[0].layout.prefix)
            right, wrong = (product(layers, heads, discard, right=side) for side in (True, False))
            sums += [float(wrong.sum(dim=1).min()), float(wrong.sum(dim=1).max())]
            first, second = (
                (flow[:prefix].mean(0) if prefix else flow.mean(0))[prefix:]
                for flow in (right, wrong)
            )
            first, second = first / first.sum(), second / second.sum()
            ours = rollout(model, image, heads=heads, discard=discard)[0].flatten().double()
            gaps.append(float((ours - first).abs().max() / first.max()))
            changes.append(float(((second - first) / first.clamp_min(1e-12)).abs().max()))
            ranks.append(float(spearmanr(first, second).statistic))
            moved.append(bool(first.argmax() != second.argmax()))
        print(
            f"| {heads} | {discard:g} | {max(gaps):.1e} | {min(sums):.3f} to {max(sums):.3f} "
            f"| {100 * statistics.median(changes):.0f} % | {statistics.mean(ranks):.3f} "
            f"| {100 * statistics.mean(moved):.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
