"""What all readers of timm's files do last: head, preprocessing, notes."""

from __future__ import annotations

from vitrail.backbones import BackboneConfig
from vitrail.config import build
from vitrail.tasks.classify import ClassifyConfig
from vitrail.weights.formats.timm_config import TimmConfig
from vitrail.weights.reader import Described, Given, Reader

Settled = tuple[BackboneConfig, str, tuple[str, ...]]
"""A backbone, the published variant with its sizes, and notes."""


class TimmReader(Reader):
    """A state dict of timm, bare or beside its `config.json`."""

    name = "timm"
    publisher_licence = "Apache-2.0"

    def finish(self, config: TimmConfig, settled: Settled, given: Given, *heads: str) -> Described:
        """The whole description.

        Args:
            config: `config.json`, or what stands for it.
            settled: The backbone.
            given: What the user says.
            heads: Beginnings of the names of classifiers; the first one tells the outputs.
        """
        backbone, variant, notes = settled
        found = self.shape(f"{heads[0]}bias", 1)[0] if self.any(*heads) else None
        outputs, task = config.outputs(found), None
        if outputs:
            names = self.class_names(outputs, given, config.label_names())
            task = build(ClassifyConfig, {"classes": names}, source=str(config.path))
        preprocess, assumed = config.called(variant).preprocess(backbone.image_size)
        return Described(
            backbone=backbone,
            task=task,
            preprocess=preprocess,
            variant=variant,
            notes=(*notes, *assumed),
        )
