"""Whether contact is seen: python benchmarks/contact_presence.py runs/toybox-contact-masks.

For every system of a comparison on toybox-contact's protocol `contact`, mAP, and of all pairs of test clips that show a
shape, of which a hand touches it in the first alone, the percentage in which the first scores higher in the shape's
class. The first line scores 1 where the shape is there and 0 elsewhere, with nothing learned: as ties count half, 50 of
such pairs, so that what a mAP owes to presence can be told from what it owes to contact. Mean over seeds; 95 % interval
over scenes, each with its two clips and all seeds, from 2,000 resamples.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.datasets.toybox import SEED
from ifcar.extract.toybox.contact import NUM_CLIPS, plan_contact, shape_of
from ifcar.pipelines.comparison.columns import mean_and_deviation
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.labels.kinds import label_kind
from ifcar.pipelines.runs.finished import open_run

PLANS = {plan.video_id: plan for plan in (plan_contact(SEED, number) for number in range(NUM_CLIPS))}
RESAMPLES = 2_000


@dataclass(frozen=True)
class TestClips:
    """What is known of the test clips.

    Args:
        scenes: (n,) from 0.
        there: (n, K) whether a clip shows the class's shape.
        targets: (n, K) 1 where a hand touches it.
    """

    scenes: NDArray[np.int64]
    there: NDArray[np.bool_]
    targets: NDArray[np.int8]

    def ranked_right(self, seeds: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Return the share of pairs ranked right by scores (n, K) of each seed, of all scenes and of each resample."""
        count = int(self.scenes.max()) + 1
        draws = np.random.default_rng(0).multinomial(count, [1 / count] * count, RESAMPLES)
        times = np.concatenate([np.ones((1, len(self.scenes))), draws[:, self.scenes]])
        right, pairs = np.zeros(len(times)), np.zeros(len(times))
        for k in range(self.targets.shape[1]):
            touched, not_touched = (np.flatnonzero(self.there[:, k] & (self.targets[:, k] == one)) for one in (1, 0))
            margins = [scores[touched, k][:, None] - scores[not_touched, k] for scores in seeds]
            wins = np.mean([(margin > 0) + 0.5 * (margin == 0) for margin in margins], axis=0)
            right += np.einsum("rp,pn,rn->r", times[:, touched], wins, times[:, not_touched])
            pairs += times[:, touched].sum(1) * times[:, not_touched].sum(1)
        return right / pairs

    def line(self, system: str, seeds: Sequence[NDArray[np.float32]]) -> str:
        """Return a line of the table."""
        share = 100 * self.ranked_right(seeds)
        low, high = np.percentile(share[1:], (2.5, 97.5))
        kind = label_kind("multi")
        found = mean_and_deviation([kind.measures(scores, self.targets)["map"] for scores in seeds])
        return f"| {system} | {found} | {share[0]:.1f} [{low:.1f}, {high:.1f}] |"


def main(folder: Path) -> None:
    """Print the table."""
    rows = [row for row in read_comparison(folder).rows if row.protocol == "contact"]
    runs = {row.system: [open_run(Path(path)) for path in row.runs] for row in rows}
    first = next(iter(runs.values()))[0]
    classes, clips = first.data().classes, first.predictions("test").clip_ids.tolist()
    shown = [{shape_of(noun) for noun in PLANS[clip].nouns} for clip in clips]
    known = TestClips(
        scenes=np.unique([PLANS[clip].scene for clip in clips], return_inverse=True)[1],
        there=np.array([[shape_of(name) in shapes for name in classes] for shapes in shown]),
        targets=first.predictions("test").targets,
    )
    print("| system | mAP | touched above not touched, % |\n|---|---|---|")
    print(known.line("the shape is there", [known.there.astype(np.float32)]))
    for system, own in runs.items():
        found = [run.predictions("test") for run in own]
        assert all(one.clip_ids.tolist() == clips for one in found)
        print(known.line(system, [one.logits for one in found]))


main(Path(sys.argv[1]))
