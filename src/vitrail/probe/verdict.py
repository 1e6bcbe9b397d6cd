"""From what a probe measured to advice: a rule of thumb that says what it rests on.

The rule looks at three things, in this order:

1. Do the weights know anything of these classes? If the interval of the difference to fresh weights
   reaches 0, the probe cannot tell them from random ones.
2. Is there anything left to gain? If the probe is right on 98 % or more, hardly.
3. What does the probe lack? If it errs on its own training images at least half as often as on test
   images, the frozen features do not separate the classes, and only training them can help. If it
   has learned its training images and errs on new ones, more freedom fits them better still: that
   pays with many images a class, and with few only where little is set free.

It is a forecast from frozen features; nothing was fine-tuned for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ENOUGH = 0.98
"""Top-1 of a probe from which there is little left to gain."""
MANY = 100
"""Training images a class from which full fine-tuning rarely overfits."""

Worth = Literal["yes", "maybe", "no"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether full fine-tuning is worth the time.

    Attributes:
        worth: In a word.
        sentence: For people, with the figures that it rests on.
    """

    worth: Worth
    sentence: str


def judge(
    *, top1: float, train_top1: float, gap: float, gap_low: float, images_a_class: float
) -> Verdict:
    """Apply the rule.

    Args:
        top1: Of the logistic probe on test images.
        train_top1: Of the same on its own training images.
        gap: Its lead over the same probe on fresh weights.
        gap_low: Lower end of the lead's 95 % interval.
        images_a_class: Training images over classes.
    """
    if gap_low <= 0:
        return Verdict(
            "no",
            f"no: these weights tell no more of your classes than fresh ones do (difference "
            f"{_points(gap)}, its interval reaches {_points(gap_low)}); look for other weights, or "
            "train from scratch",
        )
    lead = f"the weights are worth {_points(gap)} over fresh ones"
    if top1 >= ENOUGH:
        return Verdict(
            "no",
            f"no: {lead}, and the probe is right on {top1:.1%} already; "
            "`--method head` gives you that model in minutes",
        )
    errors, train_errors = 1 - top1, 1 - train_top1
    if train_errors >= errors / 2:
        return Verdict(
            "yes",
            f"yes: {lead}, but frozen features do not separate your classes: the probe errs on "
            f"{train_errors:.1%} of its own training images and on {errors:.1%} of the test images",
        )
    learned = (
        f"the probe errs on {train_errors:.1%} of its own training images and on {errors:.1%} of "
        f"the test images, with {images_a_class:.0f} training images a class"
    )
    if images_a_class >= MANY:
        return Verdict("yes", f"yes: {lead}; {learned}, enough to train everything")
    return Verdict(
        "maybe",
        f"maybe: {lead}; {learned}, too few to set everything free: try `--method lora` or "
        "`--method last-2` first, and more images will help more than more training",
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
