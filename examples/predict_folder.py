"""Label a folder of images with a model file, and list the answers to look at first.

python examples/predict_folder.py MODEL PHOTOS OUT.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

from vitrail import load_model, open_images, predict, write_predictions


def main(model_file: str, photos: str, out: str) -> None:
    """Predict, write every row, print the least certain and the unreadable."""
    model, _ = load_model(Path(model_file))
    rows = list(predict(model, open_images([photos])))
    count, errors = write_predictions(rows, Path(out))
    print(f"{count} images, {errors} of them not readable: {out}")
    for row in rows:
        if row.error:
            print(f"  {row.path}: {row.error}")
    answers = [(row.prediction, row.path) for row in rows if row.prediction]
    print("least certain:")
    for answer, path in sorted(answers, key=lambda pair: pair[0].score)[:5]:
        print(f"  {answer.score:.3f} {answer.label}  {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
