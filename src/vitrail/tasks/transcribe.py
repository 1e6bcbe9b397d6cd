"""Transcription: an image in, its text out, written symbol by symbol by a Transformer decoder.

The backbone's tokens are the memory that the decoder of Vaswani et al. 2017 attends to; symbols
are learned with the true text before them (teacher forcing) and written from the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import Config, Depth, Width, nearest
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError
from vitrail.metrics.transcription import TranscriptionMetrics, transcription_metrics
from vitrail.nn.decoder import Decoder, PreNormDecoderBlock
from vitrail.nn.decoding import CachedStep, Decoded, UncachedStep, beam_search, greedy
from vitrail.nn.embedding import RotaryPositions, SequencePositions, SinusoidalPositions
from vitrail.tasks.task import Task
from vitrail.types import Features, Grid, Prediction, Target, Transcription

IGNORED = -100
"""Stands after the end of a text that is shorter than others of its batch; costs nothing."""

MAX_LENGTH = 4096
"""Symbols for which the decoder keeps room; a header cannot ask for a terabyte."""


class TranscribeConfig(Config):
    """A decoder over an alphabet.

    Attributes:
        alphabet: The symbols, one character each.
        max_length: Longest text that is learned or written.
        width: Width of the decoder's tokens.
        depth: Decoder blocks.
        heads: Attention heads a block.
        mlp_ratio: Hidden width of the feed-forward part over `width`.
        positions: How a symbol's place is told: a sinusoid added at the input, or rotation of
            queries and keys in every layer.
        beams: Texts followed at once when writing; 1 takes the best next symbol (greedy).
    """

    kind: Literal["transcribe"] = "transcribe"
    alphabet: tuple[str, ...] = Field(min_length=1)
    max_length: int = Field(default=64, gt=0, le=MAX_LENGTH)
    width: Width = 96
    depth: Depth = 2
    heads: PositiveInt = 4
    mlp_ratio: float = Field(default=2.0, gt=0)
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    beams: PositiveInt = 1

    @model_validator(mode="after")
    def _consistent(self) -> TranscribeConfig:
        if len(set(self.alphabet)) != len(self.alphabet) or any(len(c) != 1 for c in self.alphabet):
            raise ValueError("alphabet: give each symbol once, one character each")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"rotary positions need width / heads even: {self.width}")
        return self


class Transcribe(Task[Tensor, Tensor]):
    """Tokens of an image to the symbols of its text.

    Symbol ids are places in the alphabet; behind it stands the mark that begins and ends a text.
    """

    def __init__(self, config: TranscribeConfig, token_width: int) -> None:
        super().__init__()
        self.config = config
        self.mark = len(config.alphabet)
        width = config.width
        self.project = nn.Linear(token_width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        blocks = [
            PreNormDecoderBlock(
                width, config.heads, round(width * config.mlp_ratio), activation="gelu"
            )
            for _ in range(config.depth)
        ]
        self.decoder = Decoder(
            len(config.alphabet) + 1,
            width,
            blocks,
            _positions(config),
            norm=nn.LayerNorm(width, eps=1e-6),
        )

    def forward(self, features: Features) -> Float[Tensor, "B N D"]:
        """What the decoder reads: every token of the image, in the decoder's width."""
        return self.norm(self.project(features.tokens))

    def encode(
        self, targets: Sequence[Target], device: torch.device | str = "cpu"
    ) -> Int[Tensor, "B T"]:
        """Symbol ids with the end mark, filled up with `IGNORED`."""
        rows = [self._ids(target) for target in targets]
        longest = max(map(len, rows))
        filled = [row + [IGNORED] * (longest - len(row)) for row in rows]
        return torch.tensor(filled, device=device)

    def loss(
        self,
        output: Float[Tensor, "B N D"],
        targets: Int[Tensor, "B T"],
        *,
        smoothing: float = 0.0,
    ) -> Float[Tensor, "B"]:
        """Mean cross-entropy of the symbols and the end mark of each text, in nats."""
        first = targets.new_full((len(targets), 1), self.mark)
        given = torch.cat([first, targets[:, :-1].clamp_min(0)], dim=1)
        logits = self.decoder(given, output).float().transpose(1, 2)
        losses = F.cross_entropy(
            logits,
            targets,
            ignore_index=IGNORED,
            label_smoothing=smoothing,
            reduction="none",
        )
        return losses.sum(dim=1) / (targets != IGNORED).sum(dim=1)

    def postprocess(
        self,
        output: Float[Tensor, "B N D"],
        sizes: Sequence[Grid] = (),
        extents: Sequence[Grid] = (),
    ) -> list[Prediction]:
        """Write the texts."""
        del sizes, extents
        return [*self.texts(self.write(output))]

    def texts(self, written: Decoded) -> list[Transcription]:
        """Symbol ids as texts, one an image."""
        alphabet, most = self.config.alphabet, self.config.max_length
        tokens = cast("list[list[int]]", written.tokens.numpy(force=True).tolist())
        lengths = cast("list[int]", written.lengths.numpy(force=True).tolist())
        scores = cast("list[float]", written.log_probs.float().exp().numpy(force=True).tolist())
        return [
            # The last place is for the mark; where it did not come the text is cut off.
            Transcription("".join(alphabet[i] for i in row[: min(length, most)]), score)
            for row, length, score in zip(tokens, lengths, scores, strict=True)
        ]

    def write(self, output: Float[Tensor, "B N D"], *, cached: bool = True) -> Decoded:
        """Symbol ids of the texts, greedily or with beams.

        Args:
            output: What `forward` gave.
            cached: Keep keys and values of the symbols written, which changes nothing but time.
        """
        most, beams = self.config.max_length + 1, self.config.beams
        prompt = torch.full((len(output), 1), self.mark, device=output.device)
        step = (
            CachedStep(self.decoder, output, capacity=most)
            if cached
            else UncachedStep(self.decoder, output)
        )
        if beams == 1:
            return greedy(step, prompt, end=self.mark, padding=self.mark, max_length=most)
        return beam_search(
            step, prompt, beams=beams, end=self.mark, padding=self.mark, max_length=most
        )

    def adapt(self, dataset: Dataset) -> list[Target]:
        """The texts, once every symbol and length is known to the model.

        Raises:
            DataError: labels are no texts, a symbol is not in the alphabet, or a text is longer
                than the model can write; the first such sample is named.
        """
        if not dataset.text:
            has = "boxes" if dataset.boxes else "classes"
            raise DataError(
                f"the data has {has}, the model writes texts; give a CSV 'path,text' of texts"
            )
        for name, target in zip(dataset.ids, dataset.targets, strict=True):
            self._insist(name, target)
        return list(dataset.targets)

    def measure(
        self, predictions: Sequence[Prediction], targets: Sequence[Target], *, intervals: bool
    ) -> TranscriptionMetrics:
        """Exact match and character error rate."""
        texts = [p.text for p in predictions if isinstance(p, Transcription)]
        return transcription_metrics(texts, targets, intervals=intervals)

    def _insist(self, name: str, target: Target) -> None:
        if not isinstance(target, str):
            raise DataError(f"{name}: has no text; to read new images: predict")
        strange = next((c for c in target if c not in self.config.alphabet), None)
        if strange is not None:
            raise DataError(
                f"{name}: the text '{target}' has the symbol '{strange}', which is not in the "
                f"model's alphabet ('{''.join(self.config.alphabet)}')"
                f"{nearest(strange, self.config.alphabet)}; train with it, or take the sample out"
            )
        most = self.config.max_length
        if len(target) > most:
            raise DataError(
                f"{name}: a text of {len(target)} symbols is longer than the {most} that the model "
                "can write; train with a larger transcribe.max_length"
            )

    def _ids(self, target: Target) -> list[int]:
        assert isinstance(target, str), "training needs a text for every sample"
        return [*(self.config.alphabet.index(symbol) for symbol in target), self.mark]


def _positions(config: TranscribeConfig) -> SequencePositions:
    match config.positions:
        case "sinusoidal":
            return SinusoidalPositions()
        case "rotary":
            return RotaryPositions(config.width // config.heads)
