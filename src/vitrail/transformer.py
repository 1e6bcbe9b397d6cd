"""The original Transformer, from one sequence of symbols to another (Vaswani et al. 2017)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.config import Config, Depth
from vitrail.errors import SequenceError
from vitrail.nn.decoder import Decoder, DecoderBlock, PostNormDecoderBlock, PreNormDecoderBlock
from vitrail.nn.decoding import CachedStep
from vitrail.nn.embedding import (
    RotaryPositions,
    SequencePositions,
    SinusoidalPositions,
    TokenEmbedding,
)
from vitrail.nn.encoder import (
    Encoder,
    EncoderBlock,
    PostNormEncoderBlock,
    PreNormEncoderBlock,
    SequenceActivation,
)


class TransformerConfig(Config):
    """An encoder-decoder; the defaults are the paper's base model (Table 3).

    Attributes:
        source_vocabulary: Symbols of the input.
        target_vocabulary: Symbols of the output, those that begin, end and pad included.
        dim: Width D.
        heads: Attention heads.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        ffn: Hidden width of the feed-forward parts.
        activation: Their nonlinearity.
        eps: LayerNorm epsilon.
        dropout: On branches and on embeddings with positions (section 5.4).
        norm: LayerNorm after (`post`, the paper) or before (`pre`) each part.
        final_norms: One more LayerNorm at the end of encoder and decoder; `pre` needs it, the paper
            has none.
        tied_embeddings: Embeddings that are one table: none, that of the target and the generator
            (`target`), or these and that of the source (`all`, the paper, section 3.4).
        positions: Added once (`sinusoidal`, the paper) or turned in by self-attention (`rotary`).
        padding_id: Source symbol that nothing attends to; None where sources are of one length.
    """

    source_vocabulary: PositiveInt
    target_vocabulary: PositiveInt
    dim: PositiveInt = 512
    heads: PositiveInt = 8
    encoder_layers: Depth = 6
    decoder_layers: Depth = 6
    ffn: PositiveInt = 2048
    activation: SequenceActivation = "relu"
    eps: float = Field(default=1e-6, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    norm: Literal["pre", "post"] = "post"
    final_norms: bool = False
    tied_embeddings: Literal["none", "target", "all"] = "none"
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    padding_id: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        head = self.dim // self.heads
        if self.positions == "rotary" and head % 2:
            raise ValueError(f"rotary positions need an even dim / heads, got {head}")
        if self.norm == "pre" and not self.final_norms:
            raise ValueError("norm = 'pre' needs final_norms = true")
        source, target = self.source_vocabulary, self.target_vocabulary
        if self.tied_embeddings == "all" and source != target:
            raise ValueError(
                f"tied_embeddings = 'all' needs equal vocabularies, got {source} and {target}"
            )
        if self.padding_id is not None and self.padding_id >= source:
            raise ValueError(f"padding_id {self.padding_id} is none of the {source} source symbols")
        return self


class Transformer(nn.Module):
    """generator(decoder(target, encoder(source))) (the paper's Fig. 1)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        shared = config.tied_embeddings == "all"
        self.source_embedding = (
            None if shared else TokenEmbedding(config.source_vocabulary, config.dim)
        )
        self.encoder = Encoder(
            [_encoder_block(config) for _ in range(config.encoder_layers)],
            _positions(config),
            norm=_final_norm(config),
            dropout=config.dropout,
        )
        self.decoder = Decoder(
            config.target_vocabulary,
            config.dim,
            [_decoder_block(config) for _ in range(config.decoder_layers)],
            _positions(config),
            norm=_final_norm(config),
            tied=config.tied_embeddings != "none",
            dropout=config.dropout,
        )

    def forward(
        self, source: Int[Tensor, "B N"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T C"]:
        """Logits of the symbol after each target symbol (teacher forcing).

        Args:
            source: The input, padded with `padding_id`.
            target: The output, the begin symbol first, padded on the right with anything.

        Raises:
            SequenceError: source or target have no symbols.
        """
        if target.shape[1] == 0:
            raise SequenceError("the target has no symbols: begin it with the begin symbol")
        return self.decoder(target, self.encode(source), self.source_mask(source))

    def encode(self, source: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """The memory that the decoder reads.

        Raises:
            SequenceError: there are no symbols.
        """
        if source.shape[1] == 0:
            raise SequenceError("the source has no symbols: give at least one, an end symbol say")
        embed = self.source_embedding or self.decoder.embedding
        return self.encoder(embed(source), self.source_mask(source))

    def source_mask(self, source: Int[Tensor, "B N"]) -> Bool[Tensor, "B N"] | None:
        """True at symbols, False at padding; None where the configuration knows no padding."""
        return None if self.config.padding_id is None else source != self.config.padding_id

    def step(self, source: Int[Tensor, "B N"], *, capacity: int) -> CachedStep:
        """The function that `greedy` and `beam_search` call; the model is in evaluation mode.

        Args:
            source: The input, padded with `padding_id`.
            capacity: Symbols to make room for: those of the prompt and all but the last to come.
        """
        memory, mask = self.encode(source), self.source_mask(source)
        return CachedStep(self.decoder, memory, mask, capacity=capacity)


def _positions(config: TransformerConfig) -> SequencePositions:
    match config.positions:
        case "sinusoidal":
            return SinusoidalPositions()
        case "rotary":
            return RotaryPositions(config.dim // config.heads)


def _encoder_block(config: TransformerConfig) -> EncoderBlock:
    kind = PreNormEncoderBlock if config.norm == "pre" else PostNormEncoderBlock
    return kind(
        config.dim,
        config.heads,
        config.ffn,
        activation=config.activation,
        eps=config.eps,
        dropout=config.dropout,
    )


def _decoder_block(config: TransformerConfig) -> DecoderBlock:
    kind = PreNormDecoderBlock if config.norm == "pre" else PostNormDecoderBlock
    return kind(
        config.dim,
        config.heads,
        config.ffn,
        activation=config.activation,
        eps=config.eps,
        dropout=config.dropout,
    )


def _final_norm(config: TransformerConfig) -> nn.LayerNorm | nn.Identity:
    return nn.LayerNorm(config.dim, eps=config.eps) if config.final_norms else nn.Identity()
