"""Attention of the original implementations, layer by layer, is ours within 1e-5."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.cases import ABSENT, FOLDER, NAMES, every_case, opened
from vitrail.golden import read_case
from vitrail.verify import verify

LIMIT = 1e-5
"""Tighter than what the cases suggest, which allow for large models."""


@every_case
def test_attention_is_that_of_the_original(name: str, tmp_path: Path) -> None:
    carried = {key for key in read_case(FOLDER / name).expected if key.startswith("attn")}
    if not carried:
        pytest.skip(f"{name}: the case has no attention")
    _, path = opened(name, tmp_path)
    rows = [row for row in verify(path, golden=FOLDER / name).comparisons if row.output in carried]
    assert {row.output for row in rows} == carried
    for row in rows:
        assert row.max_abs <= LIMIT, row.output


@pytest.mark.skipif(not NAMES, reason=ABSENT)
def test_every_family_has_a_case_with_attention() -> None:
    """Else the test above could pass by skipping."""
    cases = [read_case(FOLDER / name) for name in NAMES]
    found = {c.table["family"] for c in cases if any(key.startswith("attn") for key in c.expected)}
    assert found >= {"vit", "deit", "dinov2", "t2t-vit", "vit-hybrid", "swin", "swinv2"}
    assert found >= {"detr", "yolos"}
    assert "transformer" in found
