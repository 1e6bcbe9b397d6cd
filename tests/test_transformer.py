from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tiny import randomise
from vitrail.errors import SequenceError
from vitrail.nn.decoding import UncachedStep, beam_search, greedy
from vitrail.transformer import Transformer, TransformerConfig

PADDING = 7


def config(**changes: Any) -> TransformerConfig:
    table: dict[str, Any] = {
        "source_vocabulary": 8,
        "target_vocabulary": 9,
        "dim": 16,
        "heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "ffn": 32,
        "padding_id": PADDING,
    }
    return TransformerConfig(**(table | changes))


def model(**changes: Any) -> Transformer:
    return randomise(Transformer(config(**changes)), std=0.3).eval()


def symbols(rows: int, count: int, most: int, seed: int = 0) -> Tensor:
    return torch.randint(0, most, (rows, count), generator=torch.Generator().manual_seed(seed))


PRE = {"norm": "pre", "final_norms": True}
VARIANTS: list[dict[str, Any]] = [
    {},
    PRE,
    {"final_norms": True, "activation": "gelu"},
    {"positions": "rotary"},
    {"positions": "rotary", "tied_embeddings": "target", **PRE},
    {"tied_embeddings": "all", "target_vocabulary": 8},
    {"padding_id": None},
]
every_variant = pytest.mark.parametrize("changes", VARIANTS, ids=str)


@every_variant
def test_it_learns_in_every_part(changes: dict[str, Any]) -> None:
    built = model(**changes).train()
    logits = built(symbols(3, 5, 7), symbols(3, 4, 8))
    assert logits.shape == (3, 4, built.config.target_vocabulary)
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert TransformerConfig.model_validate_json(built.config.model_dump_json()) == built.config
    kept = {tensor.data_ptr() for tensor in built.state_dict().values()}
    assert len(kept) == len(built.state_dict()), "no tensor has two names"


@every_variant
@torch.no_grad()
def test_padding_changes_nothing(changes: dict[str, Any]) -> None:
    built = model(**changes)
    source, target = symbols(3, 5, 7), symbols(3, 4, 8)
    expected = built(source, target)
    longer_target = torch.cat([target, symbols(3, 2, 8, seed=4)], dim=1)
    longer_source = nn.functional.pad(source, (0, 3), value=PADDING)
    if built.config.padding_id is None:
        longer_source = source
    seen = built(longer_source, longer_target)[:, :4]
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_any_length_is_served(positions: str) -> None:
    built = model(positions=positions)
    for source, target in ((1, 1), (3, 70), (300, 2)):
        logits = built(symbols(1, source, 7), symbols(1, target, 8))
        assert logits.shape == (1, target, 9)
        assert logits.isfinite().all()


def test_a_padded_pre_norm_block_is_that_of_torch() -> None:
    """The stored case has post-norm and no padding."""
    torch.manual_seed(0)
    built = model(final_norms=True, norm="pre", activation="gelu", encoder_layers=1)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 32, dropout=0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    block = built.encoder.blocks[0]
    pairs = [
        (theirs.self_attn.out_proj, block.attn.proj),
        (theirs.linear1, block.mlp.fc1),
        (theirs.linear2, block.mlp.fc2),
        (theirs.norm1, block.norm1),
        (theirs.norm2, block.norm2),
    ]
    with torch.no_grad():
        for target, source in pairs:
            target.load_state_dict(source.state_dict())
        theirs.self_attn.in_proj_weight.copy_(block.attn.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(block.attn.qkv.bias)
        theirs.norm1.eps = theirs.norm2.eps = 1e-6
    x = torch.randn(2, 5, 16, requires_grad=True)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    bias = torch.zeros(2, 1, 1, 5).masked_fill(padding[:, None, None], -torch.inf)
    expected = theirs(x, src_key_padding_mask=padding)
    torch.testing.assert_close(block(x, None, bias), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@every_variant
def test_the_step_is_the_plain_definition(changes: dict[str, Any]) -> None:
    built = model(**changes)
    source, begin = symbols(30, 6, 7), torch.zeros(30, 1, dtype=torch.long)
    rules = {"end": 1, "padding": 8, "max_length": 12}
    plain = UncachedStep(built.decoder, built.encode(source), built.source_mask(source))
    one = greedy(built.step(source, capacity=12), begin, **rules)
    assert torch.equal(one.tokens, greedy(plain, begin, **rules).tokens)
    many = beam_search(built.step(source, capacity=12), begin, beams=3, **rules)
    assert torch.equal(many.tokens, beam_search(plain, begin, beams=3, **rules).tokens)


def test_empty_sequences_are_refused() -> None:
    built = model()
    with pytest.raises(SequenceError, match="target has no symbols: begin it"):
        built(symbols(1, 3, 7), symbols(1, 0, 8))
    with pytest.raises(SequenceError, match="source has no symbols: give at least one"):
        built(symbols(1, 0, 7), symbols(1, 3, 8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "dim 16 is not a multiple of heads 3"),
        ({"heads": 16, "positions": "rotary"}, "even dim / heads, got 1"),
        ({"norm": "pre"}, "norm = 'pre' needs final_norms = true"),
        ({"tied_embeddings": "all"}, "needs equal vocabularies, got 8 and 9"),
        ({"padding_id": 8}, "padding_id 8 is none of the 8 source symbols"),
        ({"dropout": 1.0}, "less than 1"),
        ({"layers": 2}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**wrong)


def test_the_default_is_the_base_model_of_the_paper() -> None:
    """Table 3: 65 million parameters, with the 37000 shared symbols of section 5.1."""
    with torch.device("meta"):
        base = Transformer(
            TransformerConfig(
                source_vocabulary=37_000, target_vocabulary=37_000, tied_embeddings="all"
            )
        )
    count = sum(parameter.numel() for parameter in base.parameters())
    d, f, v = 512, 2048, 37_000
    attention, mlp, norm = 4 * d * d + 4 * d, 2 * d * f + d + f, 2 * d
    layers = 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)
    assert count == layers + v * d + v
    assert round(count / 1e6) in (63, 64, 65)


GRAPHS = """
import torch
from vitrail.transformer import Transformer, TransformerConfig
for changes in ({}, {'positions': 'rotary', 'norm': 'pre', 'final_norms': True}):
    torch.manual_seed(0)
    config = TransformerConfig(source_vocabulary=8, target_vocabulary=9, dim=16, heads=2, ffn=32,
        encoder_layers=1, decoder_layers=1, padding_id=7, dropout=0, **changes)
    model = Transformer(config).eval()
    source, target = torch.randint(0, 8, (2, 5)), torch.randint(0, 9, (2, 4))
    longer, further = torch.randint(0, 8, (3, 9)), torch.randint(0, 9, (3, 6))
    with torch.no_grad():
        B, N, T = (torch.export.Dim(name, min=2) for name in 'BNT')
        graph = torch.export.export(model, (source, target),
            dynamic_shapes=({0: B, 1: N}, {0: B, 1: T})).module()
        torch.testing.assert_close(graph(source, target), model(source, target))
        torch.testing.assert_close(graph(longer, further), model(longer, further))
    model.train()
    logits = torch.compile(model, fullgraph=True, backend='aot_eager')(source, target)
    torch.testing.assert_close(logits, model(source, target))
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
"""


def test_it_compiles_and_exports_with_any_length() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GRAPHS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
