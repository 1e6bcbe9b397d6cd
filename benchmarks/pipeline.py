"""Image pipeline against timm's, side by side in one run: CPU time of one thread, and pixels.

    python benchmarks/pipeline.py FOLDER [--size 224] [--rounds 9] [--images 64]

Needs timm and torchvision in the environment; neither is a dependency of vitrail. From a folder of
photos to a normalised float batch: (a) random resized crop and flip, (b) resize, random crop and
flip, (c) evaluation. Both sides
take turns on the same photos, in an order that changes from round to round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

torch.set_num_threads(1)
from timm_shim import timm_data  # noqa: E402
from vitrail.data.augment import Augment, AugmentConfig, RandomCrop, RandomResizedCrop  # noqa: E402
from vitrail.data.dataset import Subset  # noqa: E402
from vitrail.data.decode import decode  # noqa: E402
from vitrail.data.loader import Loader, on_image  # noqa: E402
from vitrail.data.open import open_source  # noqa: E402
from vitrail.data.order import Sequential, Shuffled  # noqa: E402
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preprocess  # noqa: E402
from vitrail.data.workers import Serial  # noqa: E402

Side = Callable[[Subset], Tensor]


def ours(transform: Callable[[Tensor, np.random.Generator], Tensor]) -> Side:
    """Decode, transform and stack uint8 in the loader; normalise the batch as the model does."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    scale, shift = 1 / (255 * std), -mean / std

    def side(photos: Subset) -> Tensor:
        loader = Loader(
            photos,
            on_image(transform),
            batch_size=len(photos),
            order=Sequential(),
            seed=0,
            workers=Serial(),
            drop_last=False,
            strict=True,
        )
        (batch,) = loader.epoch(0)
        return batch.images.to(torch.float32, copy=True).mul_(scale).add_(shift)

    return side


def theirs(root: Path, transform: Callable[[object], Tensor]) -> Side:
    """Open, convert and transform each photo as timm's data set does, then stack."""
    from PIL import Image

    def side(photos: Subset) -> Tensor:
        paths = [root / name for name in photos.ids]
        return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])

    return side


def compare(name: str, a: Side, b: Side, chunks: list[Subset]) -> tuple[float, float, float]:
    """Medians of CPU milliseconds an image (timm, vitrail) and of the ratio of the rounds."""
    for side in (a, b):
        side(chunks[0])
    times: list[tuple[float, float]] = []
    for place, chunk in enumerate(chunks):
        cost = {}
        for key, side in [(0, a), (1, b)][:: 1 if place % 2 else -1]:
            start = time.process_time()
            side(chunk)
            cost[key] = (time.process_time() - start) / len(chunk) * 1e3
        times.append((cost[0], cost[1]))
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(x / y for x, y in times)
    print(f"| {name} | {first:.2f} | {second:.2f} | {ratio:.2f} |", flush=True)
    return first, second, ratio


def cropped(size: int) -> Callable[[object], Tensor]:
    """Resize, random crop and flip in the order and with the parts of timm's transforms."""
    from torchvision import transforms as T

    return T.Compose(
        [
            T.Resize(int(size / 0.875), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomCrop(size),
            T.RandomHorizontalFlip(0.5),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def differences(
    transform: Callable[[object], Tensor], preprocess: Preprocess, paths: list[Path]
) -> tuple[int, float]:
    """Largest and mean absolute difference of the evaluation pixels."""
    from PIL import Image

    largest, total = 0, 0.0
    for path in paths:
        a = transform(Image.open(path).convert("RGB")).int()
        b = preprocess.prepare(decode(path.read_bytes())).int()
        gap = (a - b).abs()
        largest, total = max(largest, int(gap.max())), total + float(gap.float().mean())
    return largest, total / len(paths)


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=64)
    args = parser.parse_args()
    photos = open_source(args.folder).splits["train"]
    picks = Shuffled().indices(len(photos), 0, 0)
    chunks = [
        Subset(
            photos,
            np.take(picks, range(r * args.images, (r + 1) * args.images), mode="wrap").tolist(),
        )
        for r in range(args.rounds)
    ]
    size = (args.size, args.size)
    preprocess = Preprocess(resize=CenterCrop(size=size, crop_pct=0.9))
    augment = Augment(AugmentConfig(geometry=RandomResizedCrop(), hflip=0.5), preprocess)
    data = timm_data()
    common = {"input_size": (3, *size), "interpolation": "bicubic"}
    train = data.create_transform(**common, is_training=True, color_jitter=None, hflip=0.5)
    evaluate = data.create_transform(**common, crop_pct=0.9)
    raw = data.create_transform(**common, crop_pct=0.9, normalize=False)
    print(f"{len(photos)} photos, {args.rounds} rounds of {args.images}, {size}, one thread\n")
    print("| path | timm, CPU ms an image | vitrail, CPU ms an image | ratio |\n|---|---|---|---|")
    compare("train: random resized crop, flip", theirs(args.folder, train), ours(augment), chunks)
    cut = Augment(AugmentConfig(geometry=RandomCrop(), hflip=0.5), preprocess)
    compare(
        "train: resize, random crop, flip",
        theirs(args.folder, cropped(args.size)),
        ours(cut),
        chunks,
    )
    prepare = ours(lambda image, _: preprocess.prepare(image))
    compare("evaluate: resize, centre crop", theirs(args.folder, evaluate), prepare, chunks)
    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"})
    largest, mean = differences(raw, preprocess, paths)
    print(
        f"\nEvaluation pixels, all {len(paths)} photos: largest difference {largest} of 255, ",
        end="",
    )
    print(f"mean {mean:.4f}")


if __name__ == "__main__":
    main()
