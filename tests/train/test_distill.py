"""Learning from a teacher (DeiT, section 4)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pictures import in_memory
from tiny import tiny_config, tiny_model
from vitrail.config import build, override
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import ConfigError
from vitrail.model import Model, ModelConfig, create_model
from vitrail.tasks.classify import ClassifyConfig
from vitrail.tasks.transcribe import TranscribeConfig
from vitrail.train.distill import Distillation, Teacher, TwoHeads, load_teacher
from vitrail.train.loop import Trainer
from vitrail.train.recipe import DistillRecipe, Recipe
from vitrail.weights.modelfile import Provenance, save_model

CLASSES = ("blue", "green", "red")


def save_teacher(folder: Path, classes: tuple[str, ...] = CLASSES, **task: object) -> Path:
    model = tiny_model(classes, backbone=tiny_config(image_size=(8, 8)), seed=3, **task)
    return save_model(model, folder / "teacher.safetensors", Provenance())


def pixels(count: int = 4, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def make_trainer(run: Path, teacher: Path, *changes: str, token: bool = True) -> Trainer:
    table = override(
        {},
        [
            *("schedule.epochs=6", "data.batch_size=8", "optim.lr=3e-3"),
            *('data.workers={kind="serial"}', f"distill.teacher={teacher}", *changes),
        ],
    )
    torch.manual_seed(0)
    model = Model(
        ModelConfig(
            backbone=tiny_config(image_size=(8, 8), distillation_token=token),
            task=ClassifyConfig(classes=CLASSES),
            preprocess=Preprocess(resize=CenterCrop(size=(8, 8), crop_pct=1.0)),
        )
    )
    recipe = build(Recipe, table, source="test")
    return Trainer(model, in_memory(), in_memory(9, seed=1), recipe, run, lambda _: None)


def test_a_teacher_answers_in_the_order_of_the_students_classes(tmp_path: Path) -> None:
    path = save_teacher(tmp_path, ("red", "blue", "green"))
    teacher = load_teacher(str(path), CLASSES)
    with torch.no_grad():
        own = teacher.model(pixels())
    torch.testing.assert_close(teacher(pixels()), own[:, [1, 2, 0]])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_sees_images_at_its_own_size(tmp_path: Path) -> None:
    teacher = load_teacher(str(save_teacher(tmp_path)), CLASSES)
    large = pixels(side=16)
    small = F.interpolate(
        large.float(), (8, 8), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(teacher(large), teacher(small))
    assert teacher(large).shape == (4, 3)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("blue", "green"), "does not know 'red'"),
        (("blue", "green", "red", "teal"), "has 'teal' besides"),
        (("a", "b", "c"), "does not know 'blue', 'green', 'red'"),
    ],
)
def test_a_teacher_with_other_classes_is_refused(
    classes: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = save_teacher(tmp_path, classes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_teacher(str(path), CLASSES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_teacher_must_be_a_classifier_with_one_label(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one label"):
        load_teacher(str(save_teacher(tmp_path, multilabel=True)), CLASSES)
    config = create_model("vit_nano_conv2_8", classes=2).config
    reader = Model(config.model_copy(update={"task": TranscribeConfig(alphabet=("0", "1"))}))
    path = save_model(reader, tmp_path / "reader.safetensors", Provenance())
    with pytest.raises(ConfigError, match="one label"):
        load_teacher(str(path), CLASSES)
    with pytest.raises(ConfigError, match="no such"):
        load_teacher(str(tmp_path / "none.safetensors"), CLASSES)


class Fixed(Teacher):
    """Gives the same logits whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(tiny_model(CLASSES), range(3))
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_hard_distillation_is_equation_3() -> None:
    taught = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    truth, own = torch.tensor([0.3, 0.7]), torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 0.5]])
    recipe = DistillRecipe(teacher="t", method="hard", alpha=0.5)
    found = Distillation(recipe, Fixed(taught))(truth, own, pixels(2))
    decided = F.cross_entropy(own, torch.tensor([1, 0]), reduction="none")
    torch.testing.assert_close(found, 0.5 * truth + 0.5 * decided)


def test_soft_distillation_is_equation_2() -> None:
    taught = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    truth, own = torch.tensor([0.3, 0.7]), torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 0.5]])
    recipe = DistillRecipe(teacher="t", method="soft", alpha=0.1, temperature=3.0)
    found = Distillation(recipe, Fixed(taught))(truth, own, pixels(2))
    soft, mine = (taught / 3).softmax(1), (own / 3).softmax(1)
    divergence = (soft * (soft / mine).log()).sum(1)
    torch.testing.assert_close(found, 0.9 * truth + 0.1 * 9 * divergence)


def test_the_answer_is_the_mean_of_both_heads() -> None:
    model = tiny_model(CLASSES, backbone=tiny_config(distillation_token=True))
    assert model.task.head_dist is not None
    with torch.no_grad():
        own, distilled = TwoHeads(model, model.task)(pixels())
        assert not torch.allclose(own, distilled)
        torch.testing.assert_close(model(pixels()), (own + distilled) / 2)


def test_without_a_token_both_heads_are_one() -> None:
    model = tiny_model(CLASSES)
    own, distilled = TwoHeads(model, model.task)(pixels())
    assert own is distilled


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("token", [True, False])
def test_a_student_takes_after_its_teacher(kind: str, token: bool, tmp_path: Path) -> None:
    """Labels have no share in the loss: what agrees with the teacher was learned from it."""
    path = save_teacher(tmp_path)
    trainer = make_trainer(
        tmp_path / "run",
        path,
        f"distill.method={kind}",
        *("distill.alpha=1.0", "schedule.epochs=25"),
        token=token,
    )
    images = torch.stack([in_memory().read(i).image for i in range(24)])
    taught = load_teacher(str(path), CLASSES)(images).argmax(1)
    trainer.fit()
    trainer.model.eval()
    with torch.no_grad():
        _, distilled = TwoHeads(trainer.model, trainer.model.task)(images)
    assert (distilled.argmax(1) == taught).float().mean() > 0.9


def test_a_recipe_that_cannot_distill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such"):
        make_trainer(tmp_path, tmp_path / "none")
    with pytest.raises(ConfigError, match="alpha"):
        build(Recipe, {"distill": {"teacher": "t", "alpha": 2.0}}, source="test")


def test_a_distilled_run_resumes_with_its_teacher(tmp_path: Path) -> None:
    path = save_teacher(tmp_path)
    whole = make_trainer(tmp_path / "whole", path, "schedule.epochs=2")
    whole.fit()
    first = make_trainer(tmp_path / "cut", path, "schedule.epochs=2")

    class StopError(Exception): ...

    seen = [0]

    def stop(_: object) -> None:
        seen[0] += 1
        if seen[0] == 4:
            raise StopError

    first.recipe = first.recipe.model_copy(
        update={"run": first.recipe.run.model_copy(update={"checkpoint_steps": 1})}
    )
    first.listener = stop
    with pytest.raises(StopError):
        first.fit()
    again = make_trainer(tmp_path / "cut", path, "schedule.epochs=2")
    assert again.restore()
    again.fit()
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key
