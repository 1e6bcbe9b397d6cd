"""The seam of explanations: from a class or a region to a map of what speaks for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.explain.target import Target
from vitrail.model import Model


class Method(ABC):
    """A way to make a map of an image; a subclass is a frozen dataclass of its settings.

    Attributes:
        key: Short name for files, options and tables.
        name: What people call it.
        paper: Where it comes from, with its equation.
        of_class: Whether the map depends on the class or region that is asked about.
        baseline: Whether it knows nothing of the model: what every other method has to beat.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    paper: ClassVar[str]
    of_class: ClassVar[bool] = True
    baseline: ClassVar[bool] = False

    def refuses(self, model: Model) -> str:
        """Why it cannot explain this model, with what can; empty where it can."""
        del model
        return ""

    @abstractmethod
    def explain(
        self, model: Model, images: UInt8[Tensor, "B 3 H W"], targets: Sequence[Target]
    ) -> Float[Tensor, "B _h _w"]:
        """One map an image, greater where more speaks for the target.

        The grid is the method's own: it covers the image evenly, cells of the last row and column
        may be cut off. No map is negative.

        Args:
            model: In evaluation mode.
            images: Prepared.
            targets: What is asked about, one an image: a class of a classifier, a region of a
                segmenter.
        """
