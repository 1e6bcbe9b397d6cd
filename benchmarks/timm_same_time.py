"""What a user of timm gets on a data set in a given CPU time, from scratch.

    python benchmarks/timm_same_time.py DATA --seconds 900 [--threads 1] [--seed 0]

The recipe is a light one that people use for small data: `vit_tiny_patch16_224` with a patch that
fits the image (four of its twelve blocks for small images, where twelve would see too few epochs),
timm's own training transform (random resized crop and flip for photos, shift for
small images), AdamW, warm-up and cosine over the given CPU time, label smoothing 0.1, weight decay
0.05, gradient clipping 1. Splits are vitrail's, so that both learn from the same images and are
tested on the same ones; the epoch with the best validation accuracy is tested once.
"""

from __future__ import annotations

import argparse
import copy
import math
import time

import torch
from torch.nn import functional as F

import timm_shim
from vitrail.data.dataset import Dataset
from vitrail.data.open import open_source

timm = timm_shim.timm()


def main() -> None:
    """Train for the given time, test once, print one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    source = open_source(args.data, seed=args.seed)
    splits = {name: pixels(part) for name, part in source.splits.items()}
    side = splits["train"][0][0].height
    patch = 2 if side <= 16 else 4 if side <= 64 else 16
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=side,
        patch_size=patch,
        num_classes=len(source.splits["train"].classes),
        depth=4 if side <= 64 else 12,
        drop_path_rate=0.1,
    )
    best, epochs = fit(model, splits, side, args)
    model.load_state_dict(best)
    print(
        f"timm vit_tiny_patch{patch}_{side}: test top1 {accuracy(model, splits['test'], side):.4f} "
        f"after {epochs} epochs in {args.seconds:.0f} CPU s on {args.threads} thread(s)"
    )


def pixels(dataset: Dataset) -> tuple[list, torch.Tensor]:
    """Decoded Pillow images, so that decoding is free for timm, and labels."""
    from PIL import Image

    images = [
        Image.fromarray(dataset.read(i).image.permute(1, 2, 0).numpy()) for i in range(len(dataset))
    ]
    return images, torch.tensor(list(dataset.targets))


def transforms(side: int) -> tuple:
    """Training and evaluation transforms as timm's users write them."""
    from timm.data import create_transform
    from torchvision import transforms as T

    normal = [T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)]
    if side <= 64:
        shift = T.RandomCrop(side, padding=max(1, side // 14))
        return T.Compose([shift, *normal]), T.Compose(normal)
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    train = create_transform(side, is_training=True, scale=(0.35, 1.0), color_jitter=0.3, **half)
    return train, create_transform(side, crop_pct=1.0, **half)


def fit(model, splits, side: int, args) -> tuple[dict, int]:
    """Weights of the best epoch on the validation part, and the number of epochs."""
    augment, _ = transforms(side)
    images, labels = splits["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05, fused=True)
    start, epochs, best, kept = time.process_time(), 0, -1.0, {}
    while (progress := (time.process_time() - start) / args.seconds) < 1:
        model.train()
        order = torch.randperm(len(images))
        for batch in order.split(args.batch_size):
            progress = min((time.process_time() - start) / args.seconds, 1)
            warm = min(progress / 0.05, 1)
            for group in optimizer.param_groups:
                group["lr"] = args.lr * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * progress)))
            inputs = torch.stack([augment(images[i]) for i in batch])
            loss = F.cross_entropy(model(inputs), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if progress >= 1:
                break
        epochs += 1
        value = accuracy(model, splits["val"], side)
        print(f"epoch {epochs} val {value:.4f} progress {progress:.2f}", flush=True)
        if value >= best:
            best, kept = value, copy.deepcopy(model.state_dict())
    return kept, epochs


@torch.inference_mode()
def accuracy(model, split, side: int) -> float:
    """Top-1 on a split."""
    model.eval()
    _, prepare = transforms(side)
    images, labels = split
    right = 0
    for at in range(0, len(images), 256):
        inputs = torch.stack([prepare(image) for image in images[at : at + 256]])
        right += int((model(inputs).argmax(1) == labels[at : at + 256]).sum())
    return right / len(images)


if __name__ == "__main__":
    main()
