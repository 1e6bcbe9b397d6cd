"""Every golden case beside the original's outputs, as a table.

    python benchmarks/parity.py [FOLDER] [--out docs/parity.md]

FOLDER holds the cases (default: VITRAIL_GOLDEN, else ../shared/golden). Exit code 1 if an output
is farther off than its case allows. Cases of tasks that are not built yet are listed as such.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vitrail.golden import read_case
from vitrail.verify import Verification, verify

HEAD = """# Parity with the original implementations

Command: `{command}`. Each case is a small checkpoint with random weights
in a published format, read as it is, with outputs that the original implementation computed from
it (float32, CPU). The figures are largest absolute differences; allowed is what the case suggests
for logits (10 times what two implementations of the original differ by), three times that for
tokens and attention.

| case | format | original | logits | tokens | attention | allowed | |
|---|---|---|---|---|---|---|---|
"""


def kind(output: str) -> str:
    """Column of an output."""
    if output.startswith("attn"):
        return "attention"
    return "logits" if output.startswith(("logits", "masks")) else "tokens"


def cell(found: Verification, column: str) -> str:
    """Largest difference of a column, or a dash."""
    gaps = [c.max_abs for c in found.comparisons if kind(c.output) == column]
    return f"{max(gaps):.1e}" if gaps else "-"


def row(folder: Path) -> tuple[str, bool]:
    """One line of the table, and whether it holds."""
    case = read_case(folder)
    name, source = folder.name, case.implementation.split(" (")[0].split("(")[0]
    if case.table["checkpoint"] is None:
        return f"| {name} | {case.format} | {source} | - | - | - | - | built by the tests |", True
    found = verify(folder / case.table["checkpoint"], golden=folder)
    cells = " | ".join(cell(found, column) for column in ("logits", "tokens", "attention"))
    text = f"| {name} | {found.format} | {source} | {cells} | {case.atol:.1e} | {found.verdict} |"
    return text, found.verdict == "equal"


def main() -> None:
    """Parse and run."""
    default = os.environ.get("VITRAIL_GOLDEN", "../shared/golden")
    parser = argparse.ArgumentParser(description="Compare with golden outputs.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(default))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [row(path.parent) for path in sorted(arguments.folder.glob("*/case.json"))]
    page = HEAD.format(command="python benchmarks/parity.py") + "\n".join(t for t, _ in rows) + "\n"
    if arguments.out:
        arguments.out.write_text(page)
    print(page)
    sys.exit(0 if all(holds for _, holds in rows) else 1)


if __name__ == "__main__":
    main()
