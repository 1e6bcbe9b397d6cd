"""Draw what spoke for a model's answer on one image, with the proof that the attention is true.

python examples/look_inside.py MODEL IMAGE OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from vitrail import capture, load_model, open_images
from vitrail.explain.methods import default_method


def main(model_file: str, photo: str, out: str) -> None:
    """Capture attention beside the fast path, then draw the class map over the image."""
    model, _ = load_model(Path(model_file))
    image = model.config.preprocess.prepare(open_images([photo]).read(0).image)
    batch = image[None]
    with torch.inference_mode(), capture(model) as record:
        logits = model(batch)
    answer = model.task.postprocess(logits)[0]
    print(f"{answer.label} with probability {answer.score:.3f}")
    for layer in record.layers:
        _, heads, queries, keys = layer.weights.shape
        print(f"{layer.layer.name}: {heads} heads of {queries} x {keys}, off by {layer.error:.1e}")
    method = default_method(model)
    heat = method.explain(model, batch, [int(logits.argmax())])[0]
    shade = Image.fromarray((heat / heat.max() * 255).byte().numpy())
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    mask = shade.resize(picture.size, Image.Resampling.BICUBIC)
    Image.composite(picture, picture.point(lambda value: value // 4), mask).save(out)
    print(f"bright is what spoke for it, by {method.name.lower()}: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
