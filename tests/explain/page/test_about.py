"""Plain words for every method, and none for what is no method."""

from __future__ import annotations

from vitrail.explain.methods import METHODS
from vitrail.explain.page.about import ABOUT


def test_every_method_has_its_sentence() -> None:
    assert list(ABOUT) == [method.key for method in METHODS]
    assert all(words.endswith(".") for words in ABOUT.values())
    # Only what is about a class may claim to be.
    blind = {method.key for method in METHODS if not method.of_class}
    assert all("the class" in ABOUT[key] for key in ABOUT if key not in blind)
