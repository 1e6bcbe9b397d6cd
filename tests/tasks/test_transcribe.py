"""Image to text: encoding, loss, writing, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from tiny import ListDataset, photo, randomise, tiny_config
from vitrail.data.preprocess import Line, Preprocess
from vitrail.errors import DataError
from vitrail.evaluate import evaluate
from vitrail.model import Model, ModelConfig
from vitrail.predict import predict
from vitrail.prediction_files import write_predictions
from vitrail.tasks.transcribe import IGNORED, Transcribe, TranscribeConfig
from vitrail.types import Transcription
from vitrail.weights.modelfile import Provenance, load_model, save_model


def reader(seed: int = 0, std: float = 0.3, **task: Any) -> Model:
    table: dict[str, Any] = {"alphabet": ("a", "b", "c"), "max_length": 6, "width": 16}
    model = Model(
        ModelConfig(
            backbone=tiny_config(),
            task=TranscribeConfig(**(table | {"heads": 2} | task)),
            preprocess=Preprocess(resize=Line(size=(8, 12))),
        )
    )
    return randomise(model, seed, std).eval()


def task_of(model: Model) -> Transcribe:
    assert isinstance(model.task, Transcribe)
    return model.task


def images(count: int = 4) -> torch.Tensor:
    return torch.stack([photo(i) for i in range(count)])


def texts(names: tuple[str, ...] = ("ab", "c"), count: int | None = None) -> ListDataset:
    data = ListDataset([photo(i) for i in range(len(names))], list(names), ("a", "b", "c"))
    data.text = True
    return data


def test_texts_become_symbols_with_an_end() -> None:
    encoded = task_of(reader()).encode(["ab", "c", "bca"])
    assert encoded.tolist() == [
        [0, 1, 3, IGNORED],
        [2, 3, IGNORED, IGNORED],
        [1, 2, 0, 3],
    ]


def test_loss_is_the_mean_cross_entropy_of_the_true_symbols() -> None:
    model = reader()
    task = task_of(model)
    memory = model(images(2))
    losses = task.loss(memory, task.encode(["ab", "c"]))
    for row, text in enumerate(("ab", "c")):
        symbols = [*("abc".index(c) for c in text), task.mark]
        given = torch.tensor([[task.mark, *symbols[:-1]]])
        logits = task.decoder(given, memory[row : row + 1])[0]
        torch.testing.assert_close(losses[row], F.cross_entropy(logits, torch.tensor(symbols)))


def test_padding_of_the_batch_changes_no_loss() -> None:
    model = reader()
    task, memory = task_of(model), model(images(2))
    together = task.loss(memory, task.encode(["a", "abcabc"]))
    alone = task.loss(memory[:1], task.encode(["a"]))
    torch.testing.assert_close(together[:1], alone)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("beams", [1, 3])
def test_cached_and_uncached_writing_are_identical(positions: str, beams: int) -> None:
    for seed in range(6):
        model = reader(seed, positions=positions, beams=beams, max_length=10)
        with torch.no_grad():
            memory = model(images(8))
        cached = task_of(model).write(memory)
        plain = task_of(model).write(memory, cached=False)
        assert torch.equal(cached.tokens, plain.tokens)
        assert torch.equal(cached.lengths, plain.lengths)
        torch.testing.assert_close(cached.log_probs, plain.log_probs, rtol=1e-4, atol=1e-4)


def test_the_score_is_the_probability_of_the_text() -> None:
    model = reader(3, std=0.2)
    task = task_of(model)
    with torch.no_grad():
        memory = model(images(6))
    for row, found in enumerate(task.postprocess(memory)):
        assert isinstance(found, Transcription)
        assert len(found.text) <= task.config.max_length
        if len(found.text) == task.config.max_length:
            continue
        encoded = task.encode([found.text])
        nats = task.loss(memory[row : row + 1], encoded) * encoded.shape[1]
        assert found.score == pytest.approx(float((-nats).exp()), rel=1e-3)


def test_it_learns_to_read(tmp_path: Path) -> None:
    """Four pictures, four texts; then the model file, `predict` and `evaluate` agree."""
    names = ("ab", "c", "bca", "aaaa")
    data = texts(names)
    torch.manual_seed(0)
    model = Model(reader().config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    task = task_of(model)
    for _ in range(120):
        loss = task.loss(model(images(4)), task.encode(names)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loaded, _ = load_model(save_model(model, tmp_path / "m.safetensors", Provenance()))
    result = evaluate(loaded, data)
    assert result.metrics == {"exact_match": 1.0, "cer": 0.0}
    rows = list(predict(loaded, data))
    assert [row.to_dict()["text"] for row in rows] == list(names)
    assert all(0.5 < row.to_dict()["score"] <= 1 for row in rows)
    assert rows[0].answer.startswith("ab  0.")
    for suffix in ("jsonl", "csv"):
        out = tmp_path / f"p.{suffix}"
        assert write_predictions(rows, out) == (4, 0)
        assert "bca" in out.read_text()
    assert (tmp_path / "p.csv").read_text().startswith("path,text,score,error")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ab", "xa"), r"1\.png: the text 'xa' has the symbol 'x', .* alphabet \('abc'\)"),
        (
            ("ab", "aaaaaaa"),
            r"1\.png: a text of 7 symbols is longer than the 6 that .*can write; .*max_length",
        ),
    ],
)
def test_texts_that_it_cannot_write_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate(reader(), texts(names))
    assert "\n" not in str(caught.value)


def test_classes_are_no_texts() -> None:
    data = ListDataset([photo(0)], [0], ("a", "b"))
    with pytest.raises(DataError, match="has classes, the model writes texts"):
        evaluate(reader(), data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alphabet": ("a", "a")}, "each symbol once"),
        ({"alphabet": ("ab",)}, "one character"),
        ({"alphabet": ()}, "at least 1"),
        ({"heads": 3}, "not a multiple"),
        ({"positions": "rotary", "width": 6, "heads": 2}, "even"),
        ({"max_length": 0}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TranscribeConfig(**({"alphabet": ("a", "b"), "width": 16, "heads": 2} | wrong))


COMPILE = """
import torch
from vitrail.model import Model, model_config
from vitrail.tasks.transcribe import TranscribeConfig
model = Model(model_config('vit_nano_conv8_32x256', TranscribeConfig(alphabet=('0', '1'))))
images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
fast = torch.compile(model, fullgraph=True, backend='aot_eager')
targets = model.task.encode(['01', '110'])
torch.testing.assert_close(fast.eval()(images), model.eval()(images))
model.train()
model.task.loss(fast(images), targets).mean().backward()
"""


def test_compiles_without_a_graph_break() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
