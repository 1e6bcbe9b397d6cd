"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from vitrail.device import pick_device
from vitrail.errors import ConfigError


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(ConfigError, match="vitrail doctor"):
        pick_device("cuda:99")
