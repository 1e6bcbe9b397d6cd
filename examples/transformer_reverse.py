"""Train the original Transformer to write digits backwards; less than a minute on one CPU thread.

python examples/transformer_reverse.py [STEPS]
"""

from __future__ import annotations

import sys

import torch
from torch.nn import functional as F

from vitrail.nn.decoding import beam_search, greedy
from vitrail.transformer import Transformer, TransformerConfig

PADDING, BEGIN, END = 10, 11, 12  # the digits stand for themselves
LONGEST = 8
SIZES = {"dim": 64, "heads": 4, "encoder_layers": 2, "decoder_layers": 2, "ffn": 128, "dropout": 0}


def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits and END; BEGIN, the digits backwards and END. Both are padded on the right."""
    place, length = torch.arange(LONGEST + 1), torch.randint(1, LONGEST + 1, (count, 1))
    digits = torch.randint(0, 10, (count, LONGEST + 1)).masked_fill(place > length, PADDING)
    there = digits.masked_fill(place == length, END)
    back = there.gather(1, torch.where(place < length, length - 1 - place, place))
    return there, F.pad(back, (1, 0), value=BEGIN)


def main(steps: str = "600") -> None:
    """Learn with the right symbols given (teacher forcing), then write without."""
    torch.manual_seed(0)
    config = {"source_vocabulary": 13, "target_vocabulary": 13, "padding_id": PADDING, **SIZES}
    model = Transformer(TransformerConfig.model_validate(config))
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    warmup = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=int(steps))
    for _ in range(int(steps)):
        source, target = pairs(64)
        logits = model(source, target[:, :-1]).transpose(1, 2)
        loss = F.cross_entropy(logits, target[:, 1:], ignore_index=PADDING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warmup.step()
    model.eval()
    source, target = pairs(500)
    rules = {"end": END, "padding": PADDING, "max_length": LONGEST + 1}
    once, again = (model.step(source, capacity=LONGEST + 1) for _ in range(2))
    beam = beam_search(again, target[:, :1], beams=4, **rules)
    for name, out in (("greedy", greedy(once, target[:, :1], **rules)), ("4 beams", beam)):
        said = [row[:n].tolist() for row, n in zip(out.tokens, out.lengths, strict=True)]
        true = [row[1 : row.index(END)] for row in target.tolist()]
        print(f"{name}: {sum(map(list.__eq__, said, true))} of {len(true)} are right, such as")
        for row, words, log_prob in zip(source.tolist(), said[:3], out.log_probs, strict=False):
            print(f"  {row[: row.index(END)]} -> {words}, probability {log_prob.exp():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
