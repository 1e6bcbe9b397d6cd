"""Studies: controlled comparisons, one a file. To add one: a file here and a line below."""

from __future__ import annotations

from vitrail.studies.distillation import DISTILLATION
from vitrail.studies.positions import POSITIONS
from vitrail.studies.sequence import SEQUENCE
from vitrail.studies.study import Study
from vitrail.studies.thin import THIN
from vitrail.studies.tokens import TOKENS
from vitrail.studies.windows import WINDOWS

STUDIES: dict[str, Study] = {
    study.name: study for study in (POSITIONS, SEQUENCE, DISTILLATION, TOKENS, WINDOWS, THIN)
}
"""Every study by its name."""
