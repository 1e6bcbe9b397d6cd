"""One run in a process of its own: `python -m vitrail.studies.worker JOB`, started by `study`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from vitrail.errors import UserError
from vitrail.studies import STUDIES
from vitrail.studies.study import Job
from vitrail.train.interrupt import InterruptedRunError
from vitrail.weights.modelfile import write_atomically


def carry_out(job: Job) -> None:
    """Make a run and keep its figures; what was measured before is not measured again."""
    study = STUDIES[job.study]
    plan = study.plans[job.scale]
    start, cpu = monotonic(), process_time()
    measures = study.run(job, plan)
    result = {
        "key": job.key(plan),
        "arm": job.arm,
        "seed": job.seed,
        "seconds": round(monotonic() - start, 2),
        "cpu_seconds": round(process_time() - cpu, 2),
        "measures": measures,
    }
    write_atomically(job.result, (json.dumps(result, indent=2) + "\n").encode())


def read_result(job: Job) -> dict[str, Any] | None:
    """What a run gave; None where it has not been made, or not as it would be made now."""
    try:
        result: dict[str, Any] = json.loads(job.result.read_text(encoding="utf-8"))
        key = result["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if key == job.key(STUDIES[job.study].plans[job.scale]) else None


def to_text(job: Job) -> str:
    """A job as JSON, for another process."""
    return json.dumps(asdict(job), default=str)


def from_text(text: str) -> Job:
    """What `to_text` wrote."""
    table: dict[str, Any] = json.loads(text)
    table["folder"] = Path(table["folder"])
    return Job(**table)


def main() -> int:
    """Entry point of the process."""
    try:
        carry_out(from_text(sys.argv[1]))
    except UserError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except InterruptedRunError as error:
        return 128 + error.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main())
