"""The device that a model runs on."""

from __future__ import annotations

import torch

from vitrail.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` takes CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device '{name}' is not usable here; `vitrail doctor` lists what is"
        ) from error
    return device
