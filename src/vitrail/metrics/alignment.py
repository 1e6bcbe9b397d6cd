"""Which symbol of a text was read as which: an alignment with the fewest edits."""

from __future__ import annotations

Pair = tuple[str | None, str | None]
"""A true symbol and what was read for it; None stands for a symbol that is not there."""


def align(true: str, read: str) -> list[Pair]:
    """Lay two texts side by side (Levenshtein 1966; Wagner and Fischer 1974).

    The pairs that differ are as few as possible: their number is the edit distance. Of equally
    short alignments the one is taken that replaces symbols as far to the right as it can.
    """
    distance = [list(range(len(read) + 1))]
    for i, symbol in enumerate(true, start=1):
        above, row = distance[-1], [i]
        for j, other in enumerate(read, start=1):
            row.append(min(above[j - 1] + (symbol != other), above[j] + 1, row[j - 1] + 1))
        distance.append(row)
    i, j = len(true), len(read)
    pairs: list[Pair] = []
    while i or j:
        here = distance[i][j]
        if i and j and here == distance[i - 1][j - 1] + (true[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((true[i], read[j]))
        elif i and here == distance[i - 1][j] + 1:
            i -= 1
            pairs.append((true[i], None))
        else:
            j -= 1
            pairs.append((None, read[j]))
    return pairs[::-1]
