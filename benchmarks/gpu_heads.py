"""Part heads of `benchmarks/gpu.py`: training steps at the paper's size against the time of their operations."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from gpu_rows import Rows
from head_steps import PRECISIONS, SYSTEMS, measure

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import PAPER_BATCH


def run(rows: Rows) -> None:
    """Measure SFI in both precisions first, then the other heads."""
    clips, rounds = (2, 1) if rows.small else (PAPER_BATCH, 15)
    systems = [SYSTEMS[-1]._replace(preset="small")] if rows.small else SYSTEMS
    for some in (systems[:1], systems[1:]):
        for precision in PRECISIONS:
            for system in some:
                name = f"{system.label}, {system.preset}, {precision}"
                rows.measure(name, partial(one, system, precision, rows.device, clips, rounds), expected=5)


def one(
    system: tuple[str, str, dict[str, Any]], precision: str, device: str, clips: int, rounds: int
) -> dict[str, Any]:
    """Return a row of `benchmarks/heads.py`, and the share of a step in which the GPU computes."""
    row = measure(system, precision, device, clips, rounds, size=128 if rounds == 1 else None)
    return {**row, "computing_share": row["profiled_ms"] / row["step_ms"]}
