"""Which way time runs: python benchmarks/reversal_pairs.py runs/toybox-contact-masks.

For every system of a comparison on toybox-contact's protocol `order`: how often, in percent of the test clips, a clip's
class scores above the class of the same motion in reverse. A head that sees no order scores a clip and its reverse
alike and is right in one of the two: 50, whatever it has learned. Mean over seeds; 95 % interval over scenes, each
with its two clips and all seeds, from 10,000 resamples; and the largest difference between a clip's logits and its
reverse's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ifcar.extract.datasets.toybox import SEED
from ifcar.extract.toybox.contact import MOTIONS, NUM_CLIPS, plan_contact
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.runs.finished import open_run

SCENES = {plan.video_id: plan.scene for plan in (plan_contact(SEED, number) for number in range(NUM_CLIPS))}
CLASSES = tuple(name for both in MOTIONS for name in both)
RESAMPLES = 10_000


def main(folder: Path) -> None:
    """Print the table."""
    print("| system | within pairs, % | of 8, % | largest difference in a pair |\n|---|---|---|---|")
    for row in read_comparison(folder).rows:
        if row.protocol != "order":
            continue
        within, whole, difference = [], [], 0.0
        for path in row.runs:
            run = open_run(Path(path))
            assert tuple(run.data().classes) == CLASSES
            found = run.predictions("test")
            scenes = np.array([SCENES[str(clip_id)] for clip_id in found.clip_ids])
            order = np.lexsort((found.targets % 2, scenes))
            logits, targets = found.logits[order].astype(np.float64), found.targets[order]
            clip = np.arange(len(targets))
            # a tie counts half
            margin = logits[clip, targets] - logits[clip, targets ^ 1]
            within.append(((margin > 0) + 0.5 * (margin == 0)).reshape(-1, 2).mean(axis=1))
            whole.append(float((logits.argmax(axis=1) == targets).mean()))
            difference = max(difference, float(np.abs(logits[::2] - logits[1::2]).max()))
        of_scene = np.mean(within, axis=0)
        rng = np.random.default_rng(0)
        means = of_scene[rng.integers(len(of_scene), size=(RESAMPLES, len(of_scene)))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5)) * 100
        print(
            f"| {row.system} | {100 * of_scene.mean():.1f} [{low:.1f}, {high:.1f}] | {100 * np.mean(whole):.1f} | "
            f"{difference:.1e} |"
        )


main(Path(sys.argv[1]))
