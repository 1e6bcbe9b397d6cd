"""big_vision's npz files; those of the golden cases are compared in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreign import (
    Weights,
    held,
    insist_every_fault_is_named,
    model_of,
    read,
    refusal,
    same,
)
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, SineCosine2dConfig, ViTConfig
from vitrail.types import Features
from vitrail.weights.formats.bigvision import BigVision
from vitrail.weights.formats.google import Google

PLACES = Learned1dConfig(prefix=False, resampling="bilinear_aligned")
BLOCK = "Transformer/encoderblock"


def vit(pool: str, **changes: Any) -> ViTConfig:
    table: dict[str, Any] = {
        "image_size": (24, 24),
        "stem": PatchStemConfig(patch_size=8),
        "positions": PLACES,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "mlp_ratio": 1.5,
        "activation": "gelu_tanh",
        "class_token": pool == "class",
        "pool": pool,
    }
    return ViTConfig(**(table | changes))


def attention(theirs: str, qkv: tuple[torch.Tensor, torch.Tensor], heads: int) -> Weights:
    """Query, key and value, by hand."""
    weight, bias = qkv
    return {
        f"{theirs}/{name}/{part}": tensor
        for name, w, b in zip(
            ("query", "key", "value"), weight.chunk(3), bias.chunk(3), strict=True
        )
        for part, tensor in (
            ("kernel", w.T.reshape(w.shape[1], heads, -1)),
            ("bias", b.reshape(heads, -1)),
        )
    }


def dense(theirs: str, ours: str, state: Weights) -> Weights:
    return {f"{theirs}/kernel": state[f"{ours}.weight"].T, f"{theirs}/bias": state[f"{ours}.bias"]}


def norm(theirs: str, ours: str, state: Weights) -> Weights:
    return {f"{theirs}/scale": state[f"{ours}.weight"], f"{theirs}/bias": state[f"{ours}.bias"]}


def bottom(theirs: str, ours: str, state: Weights, heads: int) -> Weights:
    """What joins the heads, and the MLP."""
    out = state[f"{ours}.proj.weight"].T
    return {
        f"{theirs}/out/kernel": out.reshape(heads, -1, out.shape[1]),
        f"{theirs}/out/bias": state[f"{ours}.proj.bias"],
    }


def flat(config: ViTConfig, state: Weights) -> Weights:
    """Names of big_vision from ours, without any code of the package."""
    heads = config.heads
    theirs = {
        "embedding/kernel": state["backbone.patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["backbone.patch_embed.proj.bias"],
        **norm("Transformer/encoder_norm", "backbone.norm", state),
        **dense("head", "task.head", state),
    }
    if "task.pre_logits.weight" in state:
        theirs |= dense("pre_logits", "task.pre_logits", state)
    if "backbone.pos_embed.weight" in state:
        theirs["pos_embedding"] = state["backbone.pos_embed.weight"]
    if config.class_token:
        theirs["cls"] = state["backbone.prefix_token"]
    for i in range(config.depth):
        ours, block = f"backbone.blocks.{i}", f"{BLOCK}_{i}"
        qkv = (state[f"{ours}.attn.qkv.weight"], state[f"{ours}.attn.qkv.bias"])
        mha = f"{block}/MultiHeadDotProductAttention_0"
        theirs |= attention(mha, qkv, heads) | bottom(mha, f"{ours}.attn", state, heads)
        for j in (0, 1):
            theirs |= norm(f"{block}/LayerNorm_{j}", f"{ours}.norm{j + 1}", state)
            theirs |= dense(f"{block}/MlpBlock_0/Dense_{j}", f"{ours}.mlp.fc{j + 1}", state)
    if config.pool == "attention":
        theirs |= map_head(heads, state)
    return theirs


def map_head(heads: int, state: Weights) -> Weights:
    pool, mha = "backbone.pool", "MAPHead_0/MultiHeadDotProductAttention_0"
    qkv = tuple(
        torch.cat([state[f"{pool}.q.{part}"], state[f"{pool}.kv.{part}"]])
        for part in ("weight", "bias")
    )
    theirs = {"MAPHead_0/probe": state[f"{pool}.latent"]}
    theirs |= attention(mha, (qkv[0], qkv[1]), heads) | bottom(mha, pool, state, heads)
    theirs |= norm("MAPHead_0/LayerNorm_0", f"{pool}.norm", state)
    for j in (0, 1):
        theirs |= dense(f"MAPHead_0/MlpBlock_0/Dense_{j}", f"{pool}.mlp.fc{j + 1}", state)
    return theirs


def stacked(theirs: Weights, depth: int) -> Weights:
    """All layers in one tensor a part, as scan=True has it."""
    rest = {name: t for name, t in theirs.items() if not name.startswith(BLOCK)}
    parts = [n.removeprefix(f"{BLOCK}_0/") for n in theirs if n.startswith(f"{BLOCK}_0/")]
    layers = {
        f"{BLOCK}/{part}": torch.stack([theirs[f"{BLOCK}_{i}/{part}"] for i in range(depth)])
        for part in parts
    }
    return rest | layers


def under(prefix: str, theirs: Weights) -> Weights:
    return {prefix + name: tensor.contiguous() for name, tensor in theirs.items()}


CONFIGS = {
    "gap": vit("mean"),
    "tok": vit("class"),
    "map": vit("attention"),
    "sines": vit("mean", positions=SineCosine2dConfig()),
    "sines_tok": vit("class", positions=SineCosine2dConfig()),
}


def given_of(config: ViTConfig) -> dict[str, Any]:
    computed = isinstance(config.positions, SineCosine2dConfig)
    return {"image_size": config.image_size} if computed else {}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("prefix", ["params/", "params/img/"])
@pytest.mark.parametrize("hidden", [None, 24])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_layout(name: str, hidden: int | None, prefix: str, scan: bool) -> None:
    config = CONFIGS[name]
    _, state = model_of(config, hidden=hidden)
    theirs = flat(config, state)
    checkpoint = held(under(prefix, stacked(theirs, 2) if scan else theirs), "npz")
    assert not Google.recognises(checkpoint)
    described, found = read(BigVision, checkpoint, **given_of(config))
    assert described.backbone == config
    assert same(found, state)


@pytest.mark.parametrize("name", ["gap", "tok", "map"])
def test_names_without_a_prefix(name: str) -> None:
    _, state = model_of(CONFIGS[name])
    checkpoint = held(flat(CONFIGS[name], state), "npz")
    assert not Google.recognises(checkpoint)
    assert same(read(BigVision, checkpoint)[1], state)


@pytest.mark.parametrize("place", ["Transformer/pos_embedding", "pos_embedding"])
def test_an_old_table_is_folded_into_the_class_token(place: str) -> None:
    """Where both readers apply they agree: cls + its entry, in one place or in the other."""
    config = vit("class")
    _, state = model_of(config)
    theirs = flat(config, state)
    entry = torch.randn(1, 1, 24)
    table = torch.cat([entry, theirs.pop("pos_embedding")], dim=1)
    described, found = read(BigVision, held(under("params/", theirs | {place: table}), "npz"))
    assert described.backbone == config
    wanted = state | {"backbone.prefix_token": state["backbone.prefix_token"] + entry}
    assert same(found, wanted)
    google = under("params/", theirs | {"Transformer/posembed_input/pos_embedding": table})
    assert Google.recognises(held(google, "npz"))
    other, weights = read(Google, held(google, "npz"))
    images = torch.randn(2, 3, 24, 24)
    assert torch.equal(tokens(described, found, images), tokens(other, weights, images))


def tokens(described: Any, state: Weights, images: torch.Tensor) -> torch.Tensor:
    from vitrail.backbones import build_backbone

    backbone = build_backbone(described.backbone).eval()
    start = "backbone."
    own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    backbone.load_state_dict(own)
    with torch.no_grad():
        features = backbone(images)
    assert isinstance(features, Features)
    return features.tokens


def test_the_other_tower_is_not_read() -> None:
    config = vit("attention")
    _, state = model_of(config)
    text = {"params/txt/Encoder_0/x": torch.zeros(2), "params/t": torch.zeros(1)}
    checkpoint = held(under("params/img/", flat(config, state)) | text, "npz")
    assert same(read(BigVision, checkpoint)[1], state)


@pytest.mark.parametrize(
    ("name", "scan"), [("gap", False), ("tok", True), ("map", True), ("sines_tok", True)]
)
def test_every_fault_is_named(name: str, scan: bool) -> None:
    config = CONFIGS[name]
    theirs = flat(config, model_of(config, hidden=7 if name == "tok" else None)[1])
    theirs = under("params/", stacked(theirs, 2) if scan else theirs)
    # Without its class token such a file is one whose pool is the mean.
    silent = ("params/cls",) if config.class_token else ()
    insist_every_fault_is_named(BigVision, held(theirs, "npz"), silent, **given_of(config))


def test_computed_positions_need_the_image_size() -> None:
    config = CONFIGS["sines"]
    checkpoint = held(under("params/", flat(config, model_of(config)[1])), "npz")
    text = refusal(BigVision, checkpoint)
    assert "image_size" in text
    assert "params/pos_embedding" in text
    assert "image_size" in refusal(BigVision, checkpoint, image_size="large")


@pytest.mark.parametrize("name", ["tok", "sines_tok"])
def test_a_class_token_that_was_told_of_is_missed(name: str) -> None:
    theirs = under("params/", flat(CONFIGS[name], model_of(CONFIGS[name])[1]))
    del theirs["params/cls"]
    given = given_of(CONFIGS[name]) | {"class_token": True}
    assert "params/cls" in refusal(BigVision, held(theirs, "npz"), **given)


def test_a_table_that_was_told_of_is_missed() -> None:
    theirs = under("params/", flat(CONFIGS["gap"], model_of(CONFIGS["gap"])[1]))
    given = {"image_size": (24, 24), "positions": {"kind": "learned_1d"}}
    assert read(BigVision, held(theirs, "npz"), **given)[0].backbone == CONFIGS["gap"]
    del theirs["params/pos_embedding"]
    assert "params/pos_embedding" in refusal(BigVision, held(theirs, "npz"), **given)


def test_stacks_that_disagree() -> None:
    config = vit("mean")
    theirs = under("params/", stacked(flat(config, model_of(config)[1]), 2))
    name = f"params/{BLOCK}/LayerNorm_0/scale"
    assert name in refusal(BigVision, held(theirs | {name: theirs[name][:1]}, "npz"))
    empty = {n: t[:0] if BLOCK in n else t for n, t in theirs.items()}
    assert "empty" in refusal(BigVision, held(empty, "npz"))


def test_a_stack_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.weights.checkpoint import Held

    config = vit("mean")
    theirs = under("params/", stacked(flat(config, model_of(config)[1]), 2))
    times: list[int] = []
    original = Held.read
    monkeypatch.setattr(Held, "read", lambda self: (times.append(1), original(self))[1])
    read(BigVision, held(theirs, "npz"))
    assert len(times) == len(theirs)
