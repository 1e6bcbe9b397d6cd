"""Outputs of the original implementations, stored beside random weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of cases; a test that wants it is skipped where it is absent."""
    given = os.environ.get("VITRAIL_GOLDEN")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "golden"
    if not (folder / "timm_vit").is_dir():
        pytest.skip("golden files not found: set VITRAIL_GOLDEN or put them in ../shared/golden")
    return folder
