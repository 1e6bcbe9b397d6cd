"""What weights are worth on some data, told in minutes: figures, baselines, verdict, cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mask_formats import write_indices
from pictures import write_folder, write_multilabel
from tiny import tiny_config, tiny_model
from vitrail.data.open import open_source
from vitrail.data.workers import Serial
from vitrail.errors import CheckpointError, DataError, ModelFileError
from vitrail.model import Model
from vitrail.probe import run as run_module
from vitrail.probe.classifiers import (
    NEIGHBOURS,
    PENALTIES,
    Scaled,
    gap_interval,
    logistic_probe,
    nearest_neighbours,
    scale,
    top1_interval,
)
from vitrail.probe.features import at_most
from vitrail.probe.run import Probe, probe
from vitrail.probe.verdict import judge
from vitrail.weights.modelfile import Provenance, save_model
from vitrail.weights.reader import Given

RNG = np.random.default_rng


def blobs(count: int, seed: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds in five dimensions, `distance` apart in the first."""
    rng = RNG(seed)
    labels = np.arange(count) % 2
    vectors = rng.normal(size=(count, 5))
    vectors[:, 0] += distance * labels
    return vectors, labels


def scaled(distance: float, train: int = 60) -> Scaled:
    return Scaled(*(blobs(n, i, distance) for i, n in enumerate((train, 40, 80))))


@pytest.mark.parametrize("classifier", [nearest_neighbours, logistic_probe])
def test_classifiers_know_what_can_be_known(classifier) -> None:
    far, near = classifier(scaled(9.0)), classifier(scaled(0.0))
    assert far.right.mean() > 0.9
    assert far.train_top1 > 0.9
    assert 0.3 < near.right.mean() < 0.7, "there is nothing to know"
    assert far.right.shape == (80,)


def test_the_choice_is_made_on_the_validation_part() -> None:
    data = scaled(1.5)
    assert nearest_neighbours(data).chosen in NEIGHBOURS
    assert logistic_probe(data).chosen in PENALTIES
    # Labels of the validation part that contradict those of train make another choice.
    turned = Scaled(data.train, (data.val[0], 1 - data.val[1]), data.test)
    assert logistic_probe(turned).right.mean() < logistic_probe(data).right.mean()


def test_fewer_images_than_neighbours() -> None:
    assert nearest_neighbours(scaled(5.0, train=3)).chosen in (1, 3)


def test_scaling_is_that_of_the_training_part() -> None:
    train = RNG(0).normal(5, 3, size=(50, 4)).astype(np.float32)
    train[:, 3] = 7.0
    first, second = scale(train, train[:10] + 1)
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(first[:, :3].std(axis=0), 1, atol=1e-6)
    assert not first[:, 3].any(), "a feature that never changes says nothing"
    assert (second[:, :3] > first[:10, :3]).all()


def test_intervals() -> None:
    right = np.arange(200) % 4 != 0
    low, high = top1_interval(right)
    assert 0.68 < low < 0.71
    assert 0.79 < high < 0.82
    assert top1_interval(np.ones(9, dtype=bool)) == (1.0, 1.0)
    assert gap_interval(right, right) == (0.0, 0.0), "paired: the same answers do not differ"
    low, high = gap_interval(right, ~right)
    assert low < 0.5 < high
    assert high - low < 0.3


@pytest.mark.parametrize(
    ("figures", "worth", "said"),
    [
        ((0.5, 0.7, 0.02, -0.05, 80), "no", "tell no more of your classes than fresh ones"),
        ((0.99, 1.0, 0.4, 0.3, 80), "no", "right on 99.0% already"),
        ((0.7, 0.8, 0.4, 0.3, 10), "yes", "frozen features do not separate your classes"),
        ((0.7, 0.99, 0.4, 0.3, 500), "yes", "500 training images a class, enough"),
        ((0.7, 0.99, 0.4, 0.3, 20), "maybe", "20 training images a class, too few"),
    ],
)
def test_the_verdict_follows_its_rule(figures: tuple[float, ...], worth: str, said: str) -> None:
    top1, train_top1, gap, gap_low, images = figures
    verdict = judge(
        top1=top1, train_top1=train_top1, gap=gap, gap_low=gap_low, images_a_class=float(images)
    )
    assert verdict.worth == worth
    assert said in verdict.sentence
    assert verdict.sentence.startswith(f"{worth}: ")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = tiny_model(backbone=tiny_config(image_size=(8, 8)))
    return save_model(model, tmp_path / "weights.safetensors", Provenance(licence="MIT"))


def quick(weights: Path | str, data: Path, tmp_path: Path, **options) -> Probe:
    return probe(str(weights), str(data), workers=Serial(), cache=tmp_path / "cache", **options)


def test_a_whole_probe(weights: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", bad=("red/bad.png",))
    seen: list[tuple[int, int]] = []
    result = quick(weights, data, tmp_path, progress=lambda *done: seen.append(done))
    counts = {name: len(part) for name, part in open_source(str(data)).splits.items()}
    assert sum(result.images.values()) == 36
    assert result.quarantined == 1
    assert seen[-1] == (37, 37)
    assert seen == sorted(seen)
    assert all(result.images[name] in (count, count - 1) for name, count in counts.items())
    assert (result.classes, result.width) == (3, 16)
    assert result.logistic.top1 > 0.8, "three colours"
    for score in (result.logistic, result.neighbours, result.random, result.majority):
        assert score.interval[0] <= score.top1 <= score.interval[1]
    assert result.gap == pytest.approx(result.logistic.top1 - result.random.top1)
    assert result.majority.top1 == pytest.approx(1 / 3, abs=0.15)
    assert json.loads(json.dumps(result.to_dict()))["worth"] == result.worth


def test_features_are_computed_once(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folder(tmp_path / "data", bad=("red/bad.png",))
    first = quick(weights, data, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "normalise", None)  # nothing may run the model
        again = quick(weights, data, tmp_path)
    assert (first.cached, again.cached) == (False, True)
    same = {"cached": True, "seconds": 0.0}
    assert first.to_dict() | same == again.to_dict() | same
    # Each of these is another question.
    assert not quick(weights, data, tmp_path, seed=1).cached
    assert not quick(weights, data, tmp_path, limit=5).cached
    (data / "red" / "00.png").unlink()
    assert not quick(weights, data, tmp_path).cached
    model = tiny_model(backbone=tiny_config(image_size=(8, 8)), seed=1)
    save_model(model, weights, Provenance())
    assert not quick(weights, data, tmp_path).cached
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert not quick(weights, data, tmp_path).cached, "a damaged file is made anew"


def test_the_model_is_asked_with_its_own_preprocessing_and_weights(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folder(tmp_path / "data")
    found: list[run_module.FeatureSet] = []
    real = run_module.features_of

    def spy(*args):
        found.append(real(*args))
        return found[-1]

    monkeypatch.setattr(run_module, "features_of", spy)
    quick(weights, data, tmp_path)
    test = open_source(str(data)).splits["test"]
    model = tiny_model(backbone=tiny_config(image_size=(8, 8)))
    images = torch.stack([test.read(i).image for i in range(len(test))])
    with torch.no_grad():
        wanted = model.backbone(model.normalise(images)).pooled
    part = found[0].parts["test"]
    np.testing.assert_allclose(part.own, wanted.numpy(), atol=1e-5)
    assert part.labels.tolist() == list(test.targets)
    assert not np.allclose(part.random, part.own)


def test_large_parts_are_cut_by_the_seed(tmp_path: Path) -> None:
    source = open_source(str(write_folder(tmp_path / "data")))
    cut = at_most(source, 5, 0)
    assert [len(part) for part in cut.values()] == [5, 3, 5]
    assert cut["val"] is source.splits["val"]
    assert set(cut["train"].ids) < set(source.splits["train"].ids)
    assert list(at_most(source, 5, 0)["train"].ids) == list(cut["train"].ids)
    assert list(at_most(source, 5, 1)["train"].ids) != list(cut["train"].ids)


def test_the_split_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_folder(tmp_path / "data")
    source = open_source(str(data), seed=3)
    model = tiny_model(backbone=tiny_config(image_size=(8, 8)))
    path = save_model(
        model, tmp_path / "x.safetensors", Provenance(seed=3, fingerprint=source.fingerprint)
    )
    seeds: list[int] = []
    real = run_module.open_source

    def spy(name: str, *, seed: int):
        seeds.append(seed)
        return real(name, seed=seed)

    monkeypatch.setattr(run_module, "open_source", spy)
    assert "trained on this very data" in quick(path, data, tmp_path).verdict
    assert seeds == [3], "else its test part holds images that it learned from"


def test_a_variant_is_probed_with_fresh_weights(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    result = quick("vit_nano_conv2_8", data, tmp_path)
    assert result.model == "vit_nano_conv2_8 with fresh weights"


def test_what_cannot_be_probed(weights: Path, tmp_path: Path) -> None:
    several = write_multilabel(tmp_path / "several")
    with pytest.raises(DataError, match="images with several labels; a probe needs one"):
        quick(weights, several, tmp_path)
    with pytest.raises(DataError, match="the labels are texts"):
        quick(weights, Path("strips"), tmp_path)
    write_indices(tmp_path / "masked")
    with pytest.raises(DataError, match="the labels are masks; a probe needs one class an image"):
        quick(weights, tmp_path / "masked", tmp_path)
    data = write_folder(tmp_path / "data")
    with pytest.raises((ModelFileError, CheckpointError), match="nowhere"):
        quick(tmp_path / "nowhere.safetensors", data, tmp_path)
    with pytest.raises(DataError, match="all that can be read are of one class"):
        quick(weights, data, tmp_path, limit=1)
    for name in ("blue", "green", "red"):
        for file in (data / name).iterdir():
            file.write_bytes(f"no image {file}".encode())
    with pytest.raises(DataError, match="no image of the train part can be read"):
        quick(weights, data, tmp_path)


def test_photos(shared_data: Path, tmp_path: Path) -> None:
    """Fresh weights are worth nothing, and that is the verdict; every figure has an interval."""
    result = quick("vit_nano_conv4_28", shared_data / "flowers", tmp_path, limit=60)
    assert result.images == {"train": 60, "val": 60, "test": 60}
    assert result.worth == "no"
    assert result.majority.top1 < 0.5


def test_an_image_that_changes_and_keeps_its_size_is_looked_at_again(
    weights: Path, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data")
    quick(weights, data, tmp_path)
    assert quick(weights, data, tmp_path).cached
    file = data / "red" / "00.png"
    file.write_bytes(bytes(len(file.read_bytes())))
    again = quick(weights, data, tmp_path)
    assert (again.cached, again.quarantined) == (False, 1)


def test_a_cache_that_cannot_be_written_costs_no_result(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    assert not quick(weights, write_folder(tmp_path / "data"), tmp_path).cached


def test_what_is_said_of_known_weights_is_not_passed_over(weights: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    for source in (weights, "vit_nano_conv2_8"):
        with pytest.raises(CheckpointError, match="its backbone"):
            quick(source, data, tmp_path, given=Given(backbone={"heads": 4}))
