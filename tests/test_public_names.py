from __future__ import annotations

import subprocess
import sys

import pytest

import vitrail

NAMES = [
    "Evaluation",
    "Model",
    "ModelConfig",
    "Preprocess",
    "Recipe",
    "UserError",
    "__version__",
    "capture",
    "choose_recipe",
    "classification_metrics",
    "convert",
    "create_model",
    "evaluate",
    "load_checkpoint",
    "load_model",
    "load_recipe",
    "model_names",
    "open_images",
    "open_source",
    "predict",
    "probe",
    "rollout",
    "save_model",
    "score",
    "study",
    "trace",
    "train",
    "verify",
    "write_predictions",
    "write_report",
]


def test_the_public_names_are_these() -> None:
    assert sorted(vitrail.__all__) == sorted(NAMES)
    assert dir(vitrail) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    """Each name resolves in a fresh process, where no submodule shadows it."""
    value = getattr(vitrail, name)
    assert value is not None
    if name != "__version__":
        assert not isinstance(value, type(sys)), f"{name} is a module"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = vitrail.trian


FRESH = """
import sys
import vitrail
assert vitrail.__version__
heavy = {'torch', 'numpy', 'PIL', 'pydantic', 'sklearn', 'matplotlib'} & set(sys.modules)
assert not heavy, heavy
from vitrail import load_model, model_names
import vitrail.model, vitrail.evaluate, vitrail.predict, vitrail.train.loop
late = {'sklearn', 'scipy', 'matplotlib', 'pyarrow', 'torchmetrics'} & set(sys.modules)
assert not late, late
for name in vitrail.__all__:
    value = getattr(vitrail, name)
    assert not isinstance(value, type(sys)), name
"""


def test_import_is_cheap_and_names_are_no_modules() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
