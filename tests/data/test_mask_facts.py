"""What a check keeps of one mask."""

from __future__ import annotations

import numpy as np
import torch

from vitrail.data.mask_facts import mask_facts
from vitrail.types import VOID, Segments


def drawn(*layers: np.ndarray, labels: tuple[int, ...], crowds: tuple[bool, ...] = ()) -> Segments:
    return Segments(torch.from_numpy(np.stack(layers).astype(np.int16)), labels, crowds)


def blank() -> np.ndarray:
    return np.zeros((20, 30), dtype=np.int16)


def test_pixels_objects_and_void_are_counted() -> None:
    ids = blank()
    ids[:10, :10], ids[10:, :10], ids[:, 20:] = 1, 2, 3
    facts = mask_facts(drawn(ids, labels=(0, 0, VOID)), (True,))
    assert facts.pixels == {0: 200}
    assert facts.objects == {0: 2}
    assert facts.judged == 400
    assert not facts.plain
    assert not any((facts.tiny, facts.broken, facts.specks, facts.repeated, facts.covered))


def test_crowds_are_no_objects() -> None:
    ids = blank()
    ids[:10, :10] = 1
    facts = mask_facts(drawn(ids, labels=(0,), crowds=(True,)), (True,))
    assert facts.pixels == {0: 100}
    assert not facts.objects


def test_small_patches_are_specks_of_classes_and_tiny_objects() -> None:
    ids = blank()
    ids[0, 0:4] = 1
    ids[5:15, 5:15] = 1
    assert mask_facts(drawn(ids, labels=(0,)), (False,)).specks == ((0, 4),)
    assert not mask_facts(drawn(ids, labels=(0,)), (True,)).tiny
    ids[5:15, 5:15] = 0
    assert mask_facts(drawn(ids, labels=(0,)), (True,)).tiny == ((0, 4),)


def test_objects_in_many_parts() -> None:
    ids = blank()
    ids[::2, 0] = 1
    assert mask_facts(drawn(ids, labels=(0,)), (True,)).broken == ((0, 10),)
    ids[:, 0] = 1
    assert not mask_facts(drawn(ids, labels=(0,)), (True,)).broken


def test_objects_drawn_twice_and_objects_in_front() -> None:
    one, same, inside = blank(), blank(), blank()
    one[2:12, 2:12], same[2:12, 2:12], inside[4:8, 4:8] = 1, 2, 2
    assert mask_facts(drawn(one, same, labels=(0, 1)), (True, True)).repeated == ((0, 1),)
    facts = mask_facts(drawn(one, inside, labels=(0, 1)), (True, True))
    assert not facts.repeated
    assert facts.covered == 1
    apart = np.roll(inside, 15, axis=1)
    assert not mask_facts(drawn(one, apart, labels=(0, 1)), (True, True)).covered


def test_a_mask_of_one_value_is_plain_and_equal_masks_have_one_digest() -> None:
    assert mask_facts(drawn(blank(), labels=()), (True,)).plain
    ids = blank()
    ids[3:9, 3:9] = 1
    first, again = (mask_facts(drawn(ids, labels=(0,)), (True, True)) for _ in range(2))
    other = mask_facts(drawn(ids, labels=(1,)), (True, True))
    assert first.digest == again.digest != other.digest
