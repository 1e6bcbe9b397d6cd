"""Colours that people who see few of them tell apart too."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

BACKGROUND: Colour = (0, 0, 0)

FIRST: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
)
"""Okabe and Ito (2008), without black, neighbours in this order far apart."""

_GOLDEN = 0.618033988749895
_LIGHTS = (0.42, 0.72, 0.57)


def colours(count: int) -> list[Colour]:
    """As many colours; the first seven differ in brightness too, of more no palette can."""
    return [FIRST[i] if i < len(FIRST) else _further(i) for i in range(count)]


def distinct(count: int) -> list[Colour]:
    """As many colours, none of them twice and none black."""
    found: dict[int, None] = {}
    for red, green, blue in colours(count):
        number = red + 256 * green + 65536 * blue
        while number in found:
            number = number % (2**24 - 1) + 1
        found[number] = None
    return [(number & 255, number >> 8 & 255, number >> 16) for number in found]


def _further(i: int) -> Colour:
    hue, light = (i * _GOLDEN) % 1.0, _LIGHTS[i % len(_LIGHTS)]
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, light, 0.75))
    return red, green, blue
