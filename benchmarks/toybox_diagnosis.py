"""What a system of toybox goes by, by what tells its classes apart: python benchmarks/toybox_diagnosis.py RUN [RUN …].

For every run that `ifcar diagnose` was run on, test top-1 in percent under each intervention, and its mean over the
classes that only positions, only appearance or relations between instances tell apart; means over the seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS
from ifcar.pipelines.diagnosis.store import Diagnosis, DiagnosisRow, read_diagnosis
from ifcar.pipelines.diagnosis.table import columns_of

CUES = ("position", "appearance", "relation")
CUE_OF = {action.name: action.cue for action in ACTIONS}


def by_cue(diagnosis: Diagnosis, row: DiagnosisRow) -> list[str]:
    """Return the mean class score of each cue in percent."""
    scores = dict(zip(diagnosis.classes, row.class_scores, strict=True)) if row.class_scores else {}
    means = ([s for name, s in scores.items() if CUE_OF[name] == cue and s is not None] for cue in CUES)
    return [f"{100 * np.mean(own):.1f}" if own else "–" for own in means]


def main(paths: list[Path]) -> None:
    """Print a table for each run."""
    for path in paths:
        diagnosis = read_diagnosis(path)
        if diagnosis is None:
            sys.exit(f"{path}: no diagnosis; make it with ifcar diagnose {path}")
        _, measure, difference, p, *_ = columns_of(diagnosis)
        print(f"\n`{diagnosis.title}`, seeds {', '.join(map(str, diagnosis.seeds))}, n = {diagnosis.n}:\n")
        print("| intervention | top-1 | Δ | p (Holm) | " + " | ".join(CUES) + " |\n|" + "---|" * (4 + len(CUES)))
        for row in diagnosis.rows:
            cells = [row.name, measure.text(row), difference.text(row), p.text(row), *by_cue(diagnosis, row)]
            print(f"| {' | '.join(cells)} |")


main([Path(argument) for argument in sys.argv[1:]])
