"""Accuracy by what tells a class apart: python benchmarks/toybox_cues.py runs/toybox-table1, or runs/toybox-relational.

For every system of a toybox comparison, top-1 in percent over the test clips of the classes that only positions, only
appearance or relations between instances tell apart, or of each pair of classes of toybox-relational: mean ± sample
standard deviation over seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.relational import PAIRS
from ifcar.pipelines.comparison.columns import mean_and_deviation
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.labels.kinds import target_ranks
from ifcar.pipelines.runs.finished import open_run

CUE_OF: dict[str, str] = {action.name: action.cue for action in ACTIONS}
CUE_OF |= {name: pair for pair, names in zip(("touch", "hold", "swap"), PAIRS, strict=True) for name in names}


def main(folder: Path) -> None:
    """Print the table."""
    rows = read_comparison(folder).rows
    shown = {CUE_OF[name] for name in open_run(Path(rows[0].runs[0])).data().classes}
    cues = [cue for cue in dict.fromkeys(CUE_OF.values()) if cue in shown]
    print("| system | protocol | " + " | ".join(cues) + " |\n|---|---|" + "---|" * len(cues))
    for row in rows:
        by_cue: dict[str, list[float]] = {cue: [] for cue in cues}
        counts = dict.fromkeys(cues, 0)
        for path in row.runs:
            run = open_run(Path(path))
            predictions, classes = run.predictions("test"), run.data().classes
            cue_of_clip = np.array([CUE_OF[classes[t]] for t in predictions.targets])
            right = target_ranks(predictions.logits, predictions.targets) < 1
            for cue in cues:
                by_cue[cue].append(float(right[cue_of_clip == cue].mean()))
                counts[cue] = int((cue_of_clip == cue).sum())
        cells = [f"{mean_and_deviation(by_cue[cue])} (n {counts[cue]})" for cue in cues]
        print(f"| {row.system} | {row.protocol} | " + " | ".join(cells) + " |")


main(Path(sys.argv[1]))
