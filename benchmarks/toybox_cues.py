"""Accuracy by what tells a class apart: python benchmarks/toybox_cues.py runs/toybox-table1.

For every system of a toybox comparison, top-1 in percent over the test clips of the classes that only positions, only
appearance or relations between instances tell apart: mean ± sample standard deviation over seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS
from ifcar.pipelines.comparison.columns import mean_and_deviation
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.labels.kinds import target_ranks
from ifcar.pipelines.runs.finished import open_run

CUES = ("position", "appearance", "relation")
CUE_OF = {action.name: action.cue for action in ACTIONS}


def main(folder: Path) -> None:
    """Print the table."""
    print("| system | protocol | " + " | ".join(CUES) + " |\n|---|---|" + "---|" * len(CUES))
    for row in read_comparison(folder).rows:
        by_cue: dict[str, list[float]] = {cue: [] for cue in CUES}
        counts = dict.fromkeys(CUES, 0)
        for path in row.runs:
            run = open_run(Path(path))
            predictions, classes = run.predictions("test"), run.data().classes
            cue_of_clip = np.array([CUE_OF[classes[t]] for t in predictions.targets])
            right = target_ranks(predictions.logits, predictions.targets) < 1
            for cue in CUES:
                by_cue[cue].append(float(right[cue_of_clip == cue].mean()))
                counts[cue] = int((cue_of_clip == cue).sum())
        cells = [f"{mean_and_deviation(by_cue[cue])} (n {counts[cue]})" for cue in CUES]
        print(f"| {row.system} | {row.protocol} | " + " | ".join(cells) + " |")


main(Path(sys.argv[1]))
