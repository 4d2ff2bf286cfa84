"""The order in which an epoch sees its clips.

full     any order is as likely as any other; needs quick access to every row, so it is used when rows are preloaded
shards   for rows that are streamed from disk: the cache's shards in random order, taken `WINDOW_SHARDS` at a time, and
         the clips of these in random order; a batch mixes clips of so many shards

The order of shards depends on the epoch alone, so that runs with different seeds that train together read the same
shards at the same time; the order of clips among them depends on the seed too. A cache of at most `WINDOW_SHARDS`
shards has one order either way.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["full", "shards"]
WINDOW_SHARDS = 8  # 2,048 rows: many batches' worth, and small beside any machine's memory


def draw_order(order: Order, shards: NDArray[np.int64], epoch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers 0 … n − 1 of an epoch's clips in the order in which they are seen.

    Args:
        order: see above.
        shards: (n,) which shard each clip's first row is in.
        epoch: number of the epoch.
        rng: the generator of this seed and epoch.
    """
    used, place = np.unique(shards, return_inverse=True)
    if order == "full" or len(used) <= WINDOW_SHARDS:
        return rng.permutation(len(shards))
    window = np.random.default_rng(epoch).permutation(len(used))[place] // WINDOW_SHARDS
    shuffled = rng.permutation(len(shards))
    return shuffled[np.argsort(window[shuffled], kind="stable")]
