"""Recurrent networks over the patches: what the Transformer replaced, as baselines."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.backbones.vit import PatchStemConfig, StemConfig, build_stem
from vitrail.config import Depth, Width
from vitrail.types import Features

_CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentConfig(BackboneBase):
    """A recurrent network that reads an image patch by patch, row by row.

    Attributes:
        stem: From pixels to patch vectors, as in a ViT.
        cell: Plain tanh (Elman 1990), GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber
            1997), as torch builds them.
        width: Width of the patch vectors and of the state of one direction.
        layers: Recurrent layers, one on top of the other.
        bidirectional: Also read from the last patch to the first (Schuster and Paliwal 1997).
        dropout: Share of the outputs between two layers that is dropped while training.
        pool: The state after the last patch (of each direction), or the mean of all outputs.
    """

    kind: Literal["recurrent"] = "recurrent"
    stem: StemConfig = PatchStemConfig()
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    width: Width = 256
    layers: Depth = 2
    bidirectional: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: Literal["last", "mean"] = "last"

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.stem.stride

    @property
    def directions(self) -> int:
        """1, or 2 where the patches are read from both ends."""
        return 1 + self.bidirectional

    @model_validator(mode="after")
    def _dropout_has_a_place(self) -> RecurrentConfig:
        if self.dropout and self.layers == 1:
            raise ValueError("dropout stands between layers: it needs layers of at least 2")
        return self


class Recurrent(Backbone):
    """Patches in raster order, torch's own recurrent layers, the last state or the mean.

    The tokens are the outputs of the last layer. Every step waits for the one before it, so the
    longest chain of dependent operations grows with the number of patches.

    Building one sets `torch._dynamo.config.allow_rnn`, without which `torch.compile` breaks its
    graph at recurrent layers and refuses `fullgraph=True`.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        width = config.width * config.directions
        self.config = config
        self.channels, self.strides, self.pooled_width = (width,), (config.stride,), width
        self.patch_embed = build_stem(config.stem, config.width)
        self.rnn = _CELLS[config.cell](
            config.width,
            config.width,
            num_layers=config.layers,
            batch_first=True,
            dropout=config.dropout,
            bidirectional=config.bidirectional,
        )
        _start(self.rnn)
        _allow_compilation()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        patches = self.patch_embed(images)
        grid = (patches.shape[2], patches.shape[3])
        tokens, _ = self.rnn(patches.flatten(2).transpose(1, 2))
        patch_map = tokens.transpose(1, 2).unflatten(2, grid)
        return Features(maps=(patch_map,), tokens=tokens, pooled=self._pool(tokens))

    def layers(self) -> list[list[nn.Module]]:
        """The stem, then all recurrent layers, which torch holds in one module."""
        return [[self.patch_embed], [self.rnn]]

    def _pool(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The backward direction has read everything when it stands at the first patch."""
        if self.config.pool == "mean":
            return tokens.mean(dim=1)
        width = self.config.width
        return torch.cat([tokens[:, -1, :width], tokens[:, 0, width:]], dim=1)


def _allow_compilation() -> None:
    import torch._dynamo.config as compiler  # here: a second that only recurrent models pay

    compiler.allow_rnn = True


def _start(rnn: nn.RNNBase) -> None:
    """Orthogonal recurrent maps keep the gradient's length over many steps (Saxe et al. 2014).

    An LSTM's forget gates start open, with bias 1 (Gers et al. 2000; Jozefowicz et al. 2015).
    Gates are stacked in each weight: update and reset in a GRU, input, forget, cell and output in
    an LSTM.
    """
    H = rnn.hidden_size
    for name, parameter in rnn.named_parameters():
        for gate in parameter.data.chunk(parameter.shape[0] // H):
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(gate)
        if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
            nn.init.ones_(parameter.data[H : 2 * H])
