from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.baselines import CentreMap, RandomMap
from vitrail.explain.faithfulness.randomisation import cascade, correlation
from vitrail.explain.relevance import Relevance
from vitrail.explain.rollout import Rollout
from vitrail.model import Model


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed_names(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_ends_in_fresh_weights(name: str) -> None:
    model = preset_model(PRESETS[name])
    before = state_of(model)
    *_, (stage, last) = cascade(model, seed=3)
    assert stage == "all"
    assert changed_names(before, model) == set()
    torch.manual_seed(3)
    fresh = Model(model.config)
    assert changed_names(state_of(fresh), last) == set()


def test_from_the_head_down() -> None:
    model = tiny_model(backbone=tiny_config(depth=3))
    before = state_of(model)
    stages = {"head": 0.0, "one": 0.25, "half": 0.5, "all": 1.0}
    found = {stage: changed_names(before, m) for stage, m in cascade(model, stages=stages)}
    assert list(found) == list(stages)
    assert found["head"] >= {"task.head.weight", "backbone.norm.weight"}
    assert not any("blocks" in name or "embed" in name for name in found["head"])
    blocks = [{name.split(".")[2] for name in found[s] if "blocks" in name} for s in stages]
    assert blocks == [set(), {"2"}, {"1", "2"}, {"0", "1", "2"}]
    assert not any("patch_embed" in name for name in found["half"])
    assert any("patch_embed" in name for name in found["all"])


def test_the_generator_of_the_process_is_left_alone() -> None:
    model = tiny_model()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = [state_of(m) for _, m in cascade(model, seed=1)]
    assert torch.equal(torch.rand(3), expected)
    again = [state_of(m) for _, m in cascade(model, seed=1)]
    other = [state_of(m) for _, m in cascade(model, seed=2)]
    assert torch.equal(first[-1]["task.head.weight"], again[-1]["task.head.weight"])
    assert not torch.equal(first[-1]["task.head.weight"], other[-1]["task.head.weight"])


def test_correlation_is_spearmans() -> None:
    one = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    torch.testing.assert_close(correlation(one, one**3), torch.ones(1))
    torch.testing.assert_close(correlation(one, -one), -torch.ones(1))
    other = torch.tensor([[[2.0, 1.0], [4.0, 3.0]]])  # 1 - 6 * 4 / (4 * 15)
    torch.testing.assert_close(correlation(one, other), torch.tensor([0.6]))


def test_maps_without_ranks() -> None:
    flat, ramp = torch.zeros(1, 2, 2), torch.arange(4.0).view(1, 2, 2)
    assert correlation(flat, flat).tolist() == [1]
    assert correlation(flat, ramp).tolist() == correlation(ramp, flat).tolist() == [0]


def test_a_map_of_no_model_stays_and_one_of_the_model_goes() -> None:
    model = tiny_model(backbone=tiny_config(image_size=(40, 40)))
    images = torch.stack([photo(seed, 40, 40) for seed in range(20)])
    classes = [0] * 20
    *_, (_, fresh) = cascade(model)

    def change(method: Relevance | Rollout | CentreMap | RandomMap) -> float:
        again = replace(method, seed=1) if isinstance(method, RandomMap) else method
        before = method.explain(model, images, classes)
        return float(correlation(before, again.explain(fresh, images, classes)).mean())

    assert change(CentreMap()) == 1
    assert abs(change(RandomMap())) < 0.1
    assert abs(change(Relevance())) < 0.5
    assert abs(change(Rollout())) < 0.5
