"""Few shots of atomic actions: base activities, and a few recordings of each novel one (Rai et al. 2021, Table 7).

The paper states 60 base and 15 novel activities, not which; they are drawn once here, a fifth of all novel. What its k
counts is not stated either: here it is recordings of each novel activity. Tests are of all recordings of novel
activities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ifcar.cache.schema import Split

SHOTS, NUM_DRAWS = (1, 5, 10, 20), 3
_NOVEL_SHARE = 0.2
_SEED = 0


def few_shot_parts(
    activities: Sequence[str], trained: Mapping[str, str], tested: Mapping[str, str]
) -> dict[str, dict[str, Split]]:
    """Return the part of each recording in each protocol, by the protocol's name; none where no activity is novel.

    Args:
        activities: all of them.
        trained: the activity of each recording for training.
        tested: of each for tests.

    Returns:
        fewshot-base, and for each number of shots that a novel activity has fewshot-K, fewshot-K-draw2, ….
    """
    novel = {
        str(a) for a in np.random.default_rng(_SEED).permutation(activities)[: round(_NOVEL_SHARE * len(activities))]
    }
    pools = {a: sorted(name for name, own in trained.items() if own == a) for a in activities if a in novel}
    most = max(map(len, pools.values()), default=0)
    if not most:
        return {}
    base = {name: Split.TEST for name, own in tested.items() if own not in novel}
    parts = {"fewshot-base": base | {name: Split.TRAIN for name, own in trained.items() if own not in novel}}
    rest = {name: Split.TEST for name, own in tested.items() if own in novel}
    for shots in (count for count in SHOTS if count <= most):
        for draw in range(NUM_DRAWS):
            chosen = dict(rest)
            for number, pool in enumerate(pools.values()):
                order = np.random.default_rng([_SEED, draw, number]).permutation(pool)
                chosen |= {str(name): Split.TRAIN for name in order[:shots]}  # more shots begin with fewer
            parts[f"fewshot-{shots}" + (f"-draw{draw + 1}" if draw else "")] = chosen
    return parts
