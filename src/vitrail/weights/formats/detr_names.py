"""The tensors of a DETR behind its backbone, whose names two libraries spell differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitrail.tasks.detectors import EncoderConfig, QueryReadout
from vitrail.weights.mapping import Entry, pair

OURS = "task.detector."


@dataclass(frozen=True, slots=True)
class DetrNames:
    """What a library calls the parts; a stem ends with its dot.

    Attributes:
        encoder: Stem of the encoder's layers, before their number.
        decoder: Stem of the decoder's layers.
        norm: Stem of the norm behind the last of them.
        own: Stem of a layer's attention to its own tokens.
        cross: Stem of a decoder layer's attention to the map.
        norms: Stems of a decoder layer's norms; an encoder layer has the first and the last.
        encoder_end: Stem of an encoder layer's last norm.
        fc1: Stem of the first map of an MLP.
        fc2: Stem of the second.
        project: Stem of the 1x1 convolution before the encoder.
        queries: The table of the queries' positions.
        classify: Stem of the class head.
        locate: Stem of the box head's layers, before their number.
        attention: Our attention module and the stem of theirs to the entries of its four maps.
    """

    encoder: str
    decoder: str
    norm: str
    own: str
    cross: str
    norms: tuple[str, str, str]
    encoder_end: str
    fc1: str
    fc2: str
    project: str
    queries: str
    classify: str
    locate: str
    attention: Callable[[str, str], list[Entry]]

    def entries(self, readout: QueryReadout) -> list[Entry]:
        """Which tensor is which."""
        table = [
            *pair(f"{OURS}projector.project", self.project),
            Entry(f"{OURS}queries.places", (self.queries,)),
            *pair(f"{OURS}decoder.norm", self.norm),
            *pair(f"{OURS}classify", self.classify),
        ]
        for i in range(3):
            table += pair(f"{OURS}locate.layers.{i}", f"{self.locate}{i}.")
        encoder: EncoderConfig | None = readout.encoder
        for i in range(encoder.depth if encoder else 0):
            table += self._encoder_layer(f"{OURS}encoder.layers.{i}.", f"{self.encoder}{i}.")
        for i in range(readout.depth):
            table += self._decoder_layer(f"{OURS}decoder.layers.{i}.", f"{self.decoder}{i}.")
        return table

    def _encoder_layer(self, ours: str, theirs: str) -> list[Entry]:
        return [
            *self.attention(f"{ours}attn", f"{theirs}{self.own}"),
            *pair(f"{ours}norm1", f"{theirs}{self.norms[0]}"),
            *self._mlp(ours, theirs),
            *pair(f"{ours}norm2", f"{theirs}{self.encoder_end}"),
        ]

    def _decoder_layer(self, ours: str, theirs: str) -> list[Entry]:
        return [
            *self.attention(f"{ours}self_attn", f"{theirs}{self.own}"),
            *pair(f"{ours}norm1", f"{theirs}{self.norms[0]}"),
            *self.attention(f"{ours}cross_attn", f"{theirs}{self.cross}"),
            *pair(f"{ours}norm2", f"{theirs}{self.norms[1]}"),
            *self._mlp(ours, theirs),
            *pair(f"{ours}norm3", f"{theirs}{self.norms[2]}"),
        ]

    def _mlp(self, ours: str, theirs: str) -> list[Entry]:
        return [
            *pair(f"{ours}mlp.fc1", f"{theirs}{self.fc1}"),
            *pair(f"{ours}mlp.fc2", f"{theirs}{self.fc2}"),
        ]
